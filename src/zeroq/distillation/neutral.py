"""What an input that is no picture is like, as far as the network says."""

from __future__ import annotations

import torch

from zeroq.distillation.statistics import InputStatistic
from zeroq.graph import Network

NEUTRAL_REACH = 4.0  # deviations, of an input of which nothing is known


def neutral_statistic(
    network: Network,
    name: str,
    channels: int,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
) -> InputStatistic:
    """The statistic of an input that is no picture: as given, else as a BatchNorm says that reads it, else neutral."""
    means, deviations = mean or (0.0,) * channels, std or (1.0,) * channels
    norm = next((each for each in network.norms if each.input == name and len(each.mean) == channels), None)
    if mean is None and norm is not None:
        deviation = norm.variance.clamp(min=0).sqrt()
        high = norm.mean + deviation
        sound = torch.isfinite(high) & (high > norm.mean)  # else no float32 tells values apart
        means = tuple(torch.where(sound, norm.mean, 0.0).tolist())
        deviations = tuple(torch.where(sound, deviation, 1.0).tolist())
    return around(means, deviations)


def around(mean: tuple[float, ...], deviation: tuple[float, ...], picture: bool = False) -> InputStatistic:
    """A statistic whose values reach NEUTRAL_REACH deviations to both sides."""
    low, high = (
        tuple(one + side * NEUTRAL_REACH * other for one, other in zip(mean, deviation, strict=True))
        for side in (-1, 1)
    )
    return InputStatistic(mean, deviation, low, high, picture)

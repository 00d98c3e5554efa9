"""What distilled images have to match: the statistics that the network's BatchNorms remember, and the input's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from zeroq.errors import NumericalError, OptionError
from zeroq.graph import Network, Norm
from zeroq.preprocessing import Preprocessing

Moments = tuple[Tensor, Tensor]  # mean and biased variance per channel: [C], [C]

NATURAL: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {  # of photographs' pixels in 0..1 (ImageNet)
    "RGB": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "BGR": ((0.406, 0.456, 0.485), (0.225, 0.224, 0.229)),
    "L": ((0.459,), (0.226,)),  # 0.299 R + 0.587 G + 0.114 B
}
NEUTRAL_REACH = 4.0  # deviations, of an input of which nothing is known
DEAD = 1e-4  # variance of a channel, relative to epsilon, below which its BatchNorm gives a constant
EXTREME = 1e6  # variance relative to the BatchNorm's median, beyond which it is taken for broken; the same of means


@dataclass(frozen=True)
class InputStatistic:
    """Mean and deviation of the network's input per channel, and the least and the greatest value a picture can give.

    All in the network's input space, that is after normalisation.
    """

    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    picture: bool = True  # channels of other data have nothing in common

    def __post_init__(self) -> None:
        if not len(self.mean) == len(self.deviation) == len(self.low) == len(self.high):
            raise ValueError("mean, deviation, low and high must have one entry per channel")
        if not all(math.isfinite(value) for value in (*self.mean, *self.deviation, *self.low, *self.high)):
            raise NumericalError("The input statistic holds NaN or infinity: check the preprocessing's mean and std.")
        if min(self.deviation) <= 0 or any(low >= high for low, high in zip(self.low, self.high, strict=True)):
            raise ValueError("deviation must be positive and low below high")


def natural_statistic(
    preprocessing: Preprocessing,
    input_mean: tuple[float, ...] | None = None,
    input_std: tuple[float, ...] | None = None,
) -> InputStatistic:
    """The statistic of natural pictures, or of pixels in 0..1 as given, carried through the model's normalisation.

    Other than three channels are taken for grey ones. Raises OptionError where a value per channel is missing.
    """
    for option, given in (("input-mean", input_mean), ("input-std", input_std)):
        if given is not None and len(given) != preprocessing.channel_count:
            raise OptionError(
                f"--{option} has {len(given)} values, the network's input {preprocessing.channel_count} channels: "
                "give one value per channel."
            )
    if input_std is not None and min(input_std) <= 0:
        raise OptionError(f"--input-std holds {min(input_std):g}: deviations of pixels in 0..1 are positive.")
    colours = NATURAL.get(preprocessing.channels or "L", NATURAL["L"])
    means, deviations = (
        values if len(values) == preprocessing.channel_count else values * preprocessing.channel_count
        for values in colours
    )

    def carried(values: Sequence[float]) -> tuple[float, ...]:
        rows = zip(values, preprocessing.mean, preprocessing.std, strict=True)
        return tuple((value - mean) / std for value, mean, std in rows)

    return InputStatistic(
        mean=carried(input_mean or means),
        deviation=tuple(value / std for value, std in zip(input_std or deviations, preprocessing.std, strict=True)),
        low=carried((0.0,) * preprocessing.channel_count),
        high=carried((1.0,) * preprocessing.channel_count),
    )


def neutral_statistic(
    network: Network,
    name: str,
    channels: int,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
) -> InputStatistic:
    """The statistic of an input that is no picture: as given, else as a BatchNorm says that reads it, else neutral.

    Values reach NEUTRAL_REACH deviations to both sides.
    """
    means, deviations = mean or (0.0,) * channels, std or (1.0,) * channels
    norm = next((each for each in network.norms if each.input == name and len(each.mean) == channels), None)
    if mean is None and norm is not None:
        sound = torch.isfinite(norm.mean) & torch.isfinite(norm.variance) & (norm.variance > 0)
        means = tuple(torch.where(sound, norm.mean, 0.0).tolist())
        deviations = tuple(torch.where(sound, norm.variance.clamp(min=0).sqrt(), 1.0).tolist())
    low, high = (
        tuple(one + side * NEUTRAL_REACH * other for one, other in zip(means, deviations, strict=True))
        for side in (-1, 1)
    )
    return InputStatistic(means, deviations, low, high, picture=False)


@dataclass(frozen=True)
class Targets:
    """The statistics of all matched channels in one row: BatchNorm after BatchNorm, the input's channels last.

    BatchNorms that share their running statistics (a head at several scales) are one entry: the statistics of their
    sites are averaged, as training did.
    """

    names: tuple[str, ...]  # of each entry: the BatchNorm's module path, or "the network"
    sites: tuple[tuple[int, ...], ...]  # of each entry: positions among the measured
    positions: tuple[int, ...]  # of each entry: values per image and channel
    mean: Tensor  # [channels of all]
    deviation: Tensor
    epsilon: Tensor
    weight: Tensor  # 0 where a channel is left out

    def loss(self, found: Sequence[Moments], images: int) -> Tensor:
        """Sum over channels of weight x ((mean~ - mean)^2 + (deviation~ - deviation)^2).

        found: what each BatchNorm's input has, and the network's at last. A channel of a single value (one image,
        1x1 map) has no variance.
        """
        pooled = [pool([found[site] for site in entry]) for entry in self.sites]
        mean, variance = (torch.cat([moments[part] for moments in pooled]) for part in (0, 1))
        varied = [
            torch.full_like(moments[0], float(images * positions > 1))
            for moments, positions in zip(pooled, self.positions, strict=True)
        ]
        of_deviation = torch.cat(varied) * (torch.sqrt(variance + self.epsilon) - self.deviation)
        return (self.weight * ((mean - self.mean) ** 2 + of_deviation**2)).sum()

    def check(self, found: Sequence[Moments]) -> None:
        """Refuse statistics that are no numbers, with the name of the first BatchNorm that has them."""
        for name, entry in zip(self.names, self.sites, strict=True):
            if not all(bool(torch.isfinite(value).all()) for site in entry for value in found[site]):
                raise NumericalError(
                    f"The input of {name} is NaN or infinite on distilled images: check the network's weights."
                )


def pool(moments: Sequence[Moments]) -> Moments:
    """Mean of the means, mean of the variances."""
    if len(moments) == 1:
        return moments[0]
    return torch.stack([mean for mean, _ in moments]).mean(0), torch.stack([variance for _, variance in moments]).mean(
        0
    )


def make_targets(network: Network, statistic: InputStatistic) -> Targets:
    """What images of a network are to match, each BatchNorm as much as any other."""
    entries: dict[str, list[int]] = {}
    for index, norm in enumerate(network.norms):
        entries.setdefault(path_of(network, norm), []).append(index)
    norms = [network.norms[entry[0]] for entry in entries.values()]
    means = [norm.mean.float() for norm in norms] + [torch.tensor(statistic.mean)]
    variances = [norm.variance.float() for norm in norms] + [torch.tensor(statistic.deviation) ** 2]
    epsilons = [
        torch.full_like(mean, epsilon)
        for mean, epsilon in zip(means, [*(norm.epsilon for norm in norms), 0.0], strict=True)
    ]
    epsilon = torch.cat(epsilons)
    sides = [network.shapes[norm.input] for norm in norms] + [tuple(network.example[0].shape[1:])]
    return Targets(
        names=(*entries, "the network"),
        sites=(*(tuple(entry) for entry in entries.values()), (len(network.norms),)),
        positions=tuple(math.prod(shape[1:]) for shape in sides),
        mean=torch.nan_to_num(torch.cat(means), 0, 0, 0),
        deviation=torch.sqrt(torch.nan_to_num(torch.cat(variances), 0, 0, 0).clamp(min=0) + epsilon),
        epsilon=epsilon,
        weight=torch.cat([weights_of(*rows) for rows in zip(means, variances, epsilons, strict=True)]),
    )


def weights_of(mean: Tensor, variance: Tensor, epsilon: Tensor) -> Tensor:
    """Weight of each of one BatchNorm's channels [channels]: 1 / sum of its variances.

    The paper weighs all channels of all BatchNorms alike, so that those of large values drown the others: ResNet18
    (64 px, 36 steps) was left with a mean error of 0.19 in the logarithm of its layers' largest inputs, and of 0.10
    by these weights. Channels whose running statistics are no numbers, dead or beyond reason get 0.
    """
    alive = torch.isfinite(mean) & torch.isfinite(variance) & (variance > DEAD * epsilon)
    if not alive.any():
        return torch.zeros_like(variance)
    typical = variance[alive].median()
    sound = alive & (variance <= EXTREME * typical) & (mean.abs() <= EXTREME * typical.sqrt())
    return sound / variance[sound].sum()


def path_of(network: Network, norm: Norm) -> str:
    """The module path of a BatchNorm; those that share their statistics share it."""
    return str(network.node(norm.node).args[3].target).removesuffix(".running_mean")  # type: ignore[union-attr]

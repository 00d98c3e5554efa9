"""What pixels are like, as the network's input."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from zeroq.errors import NumericalError, OptionError
from zeroq.preprocessing import Preprocessing

NATURAL: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {  # of photographs' pixels in 0..1 (ImageNet)
    "RGB": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "BGR": ((0.406, 0.456, 0.485), (0.225, 0.224, 0.229)),
    "L": ((0.459,), (0.226,)),  # 0.299 R + 0.587 G + 0.114 B
}


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

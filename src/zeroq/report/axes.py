"""Axes of charts: where a value stands, in percent of the axis, and which values are marked."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from zeroq.report.words import number, power_of_ten, significant

LEAST_EXPONENT = -12
NEGLIGIBLE = 1e-12  # a narrower axis has no marks that differ


@dataclass(frozen=True)
class Tick:
    """A marked value of an axis: its place in percent, and its label."""

    at: float
    label: str


@dataclass(frozen=True)
class Axis:
    """From `low` to `high`, evenly spaced after `transform`; values beyond stand at the ends."""

    low: float
    high: float
    transform: Callable[[float], float]
    marked: tuple[tuple[float, str], ...]

    def place(self, value: float) -> float:
        """Percent of the axis, rounded so that pages stay small and equal."""
        low, high = self.transform(self.low), self.transform(self.high)
        inside = min(max(value, self.low), self.high)
        return round(100 * (self.transform(inside) - low) / (high - low), 2)

    @property
    def ticks(self) -> tuple[Tick, ...]:
        return tuple(Tick(self.place(value), label) for value, label in self.marked if self.low <= value <= self.high)


def linear(low: float, high: float, count: int = 4, label: Callable[[float], str] = number) -> Axis:
    """Marks at multiples of 1, 2 or 5 times a power of ten, about `count` of them."""
    high = high if high - low > NEGLIGIBLE * max(1, abs(high)) else low + 1
    step = nice_step((high - low) / count)
    multiples = range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
    return Axis(low, high, lambda value: value, tuple((step * k, label(significant(step * k))) for k in multiples))


def logarithmic(values: Iterable[float], most: int = 5) -> Axis:
    """Powers of ten around the positive ones of `values`; less than 10^-12 is noise and stands at the lower end."""
    exponents = [max(math.log10(value), LEAST_EXPONENT) for value in values if value > 0] or [0.0]
    low, high = math.floor(min(exponents)), math.ceil(max(exponents))
    high = max(high, low + 1)
    every = math.ceil((high - low) / most)
    marked = tuple(
        (10.0**k, number(10.0**k) if -3 <= k <= 3 else power_of_ten(k)) for k in range(high, low - 1, -every)
    )
    return Axis(10.0**low, 10.0**high, math.log10, marked)


def square_root(low: float, high: float) -> Axis:
    """sign(v) * sqrt(|v|), through zero: values far from it are drawn together, so that narrow ranges show as well."""
    low, high = min(low, 0.0), max(high, 0.0)
    high = high if high - low > NEGLIGIBLE else 1.0
    sides = [(sign, sign * bound) for sign, bound in ((1, high), (-1, low)) if sign * bound > 0.02 * (high - low)]
    marked = [(0.0, "0")]
    for sign, bound in sides:
        far = round_down(bound)
        marked += [(sign * value, number(significant(sign * value))) for value in (far, far / 5) if value]
    return Axis(low, high, lambda value: math.copysign(math.sqrt(abs(value)), value), tuple(marked))


def nice_step(step: float) -> float:
    """The least of 1, 2 and 5 times a power of ten that is not below `step`."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= step * (1 - 1e-9))


def round_down(value: float) -> float:
    """The greatest of 1, 2 and 5 times a power of ten that is not above `value`, a positive number."""
    power = 10.0 ** math.floor(math.log10(value))
    return max(factor * power for factor in (1, 2, 5) if factor * power <= value * (1 + 1e-9))

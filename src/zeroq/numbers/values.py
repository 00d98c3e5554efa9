"""The values that flow between stages. All are frozen and refuse nonsense at birth."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from zeroq.errors import NumericalError, OptionError
from zeroq.numbers.grid import LEAST_BITS, MOST_BITS, Grid, shifts_of

SOURCES = ("batchnorm", "distilled", "calibration", "neither")


@dataclass(frozen=True)
class ActivationRange:
    """What one activation quantizer can represent: unsigned integers of `bits` over [low, high], 0 exactly.

    Source says what the range was measured on: statistics of BatchNorm, distilled images, the user's own pictures
    ("calibration"), or neither.
    """

    low: float
    high: float
    bits: int
    source: str

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high)):
            raise NumericalError(f"An activation range is [{self.low}, {self.high}]: the network's values overflow.")
        if not self.low <= 0 <= self.high or self.low == self.high:
            raise ValueError(f"[{self.low}, {self.high}] is not a range around zero")
        if self.source not in SOURCES:
            raise ValueError(f"unknown source {self.source!r}")

    @property
    def grid(self) -> Grid:
        return Grid(self.bits, signed=False)

    @property
    def scale(self) -> float:
        """Step between neighbouring values, as the nearest 32-bit float."""
        return torch.tensor((self.high - self.low) / self.grid.high, dtype=torch.float32).item()

    @property
    def zero_point(self) -> int:
        """The integer that stands for 0."""
        return min(max(round(-self.low / self.scale), 0), self.grid.high)


@dataclass(frozen=True)
class Ranges:
    """Activation ranges by the name of the quantizer."""

    by_name: Mapping[str, ActivationRange]
    weighed: bool = False  # whether errors counted by what they do to the output, and not all alike

    def __getitem__(self, name: str) -> ActivationRange:
        return self.by_name[name]


@dataclass(frozen=True)
class SensitivityTable:
    """How much the output suffers when one layer alone has few bits: `values[layer][width]`, mean over images."""

    measure: str
    layers: tuple[str, ...]
    widths: tuple[int, ...]
    values: tuple[tuple[float, ...], ...]
    inputs: SensitivityTable | None = None  # likewise of one layer's input alone, of layers whose input has a choice
    derived: tuple[int, ...] = ()  # widths whose values follow from the others'
    coarse: tuple[int, ...] = ()  # widths that were measured in bfloat16

    def __post_init__(self) -> None:
        if len(self.values) != len(self.layers) or any(len(row) != len(self.widths) for row in self.values):
            raise ValueError("values must be [layers, widths]")
        for layer, row in zip(self.layers, self.values, strict=True):
            for width, value in zip(self.widths, row, strict=True):
                if not math.isfinite(value):
                    raise NumericalError(f"The sensitivity of layer {layer!r} at {width} bits is {value}.")

    def of(self, layer: str, width: int) -> float:
        return self.values[self.layers.index(layer)][self.widths.index(width)]


@dataclass(frozen=True)
class Latencies:
    """How long one image takes on a machine, as whole numbers of one unit: each layer by the bits of its input.

    beside: what the whole file takes more than its layers one by one, or less (a negative number), as each of these is
    timed with the start of a run of its own.
    """

    by_layer: Mapping[str, Mapping[int, int]]
    beside: int

    def of(self, layer: str, bits: int) -> int:
        """Of one layer whose input has these bits."""
        return self.by_layer[layer][bits]

    def total(self, input_bits: Mapping[str, int]) -> int:
        """Of the whole file."""
        return self.beside + sum(self.of(layer, bits) for layer, bits in input_bits.items())


@dataclass(frozen=True)
class BitSetting:
    """Weight bits of every quantized layer, and bits of its input where there was a choice."""

    bits: Mapping[str, int]
    inputs: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, bits in [*self.bits.items(), *self.inputs.items()]:
            if not LEAST_BITS <= bits <= MOST_BITS:
                raise OptionError(f"{bits} bits for layer {name!r}: choose {LEAST_BITS} to {MOST_BITS}.")

    def __getitem__(self, layer: str) -> int:
        return self.bits[layer]

    def average(self, parameters: Mapping[str, int]) -> float:
        """Mean width over all quantized weights; `parameters` counts the weights of each layer."""
        return self.weight_bits(parameters) / sum(parameters[name] for name in self.bits)

    def weight_bits(self, parameters: Mapping[str, int]) -> int:
        """Bits of all weights together, scales and biases not counted."""
        return sum(bits * parameters[name] for name, bits in self.bits.items())


@dataclass(frozen=True)
class IntegerWeight:
    """A layer's weight as signed integers and one scale per output channel.

    integers: int8, the shape of the weight, output channels first; those of a channel are among 2^bits in a row.
    scale: float32 [output channels].
    bias: float32 [output channels], in place of the layer's own, which goes with these integers; None leaves that.
    """

    integers: Tensor
    scale: Tensor
    bits: int
    rounding: str
    bias: Tensor | None = None

    def __post_init__(self) -> None:
        if self.integers.dtype != torch.int8 or self.scale.shape != self.integers.shape[:1]:
            raise ValueError("integers must be int8 and scale per output channel")
        shifts_of(self.integers, self.bits)  # refuses integers beyond their width

    def dequantized(self) -> Tensor:
        """The weight that these integers stand for, float32."""
        return self.integers.float() * self.scale.reshape(-1, *[1] * (self.integers.dim() - 1))

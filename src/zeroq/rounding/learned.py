"""What block reconstruction learns by gradients: integers and biases of layers, steps of activations."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from zeroq.numbers.grid import Grid, shifts_of
from zeroq.numbers.values import ActivationRange, IntegerWeight

NEAR = 0.4  # of 0.5, where the border of an integer's cell is: what numbers start at


class LearnedWeight:
    """Integers of a layer that may move to their neighbours, and its bias.

    Numbers in steps of the scale are rounded in each pass, and gradients go through as if they were not (straight
    through). They start within the cells of the integers that are there, on the side of the weight in floating point:
    an integer moves once its number has crossed the border of its cell.
    """

    def __init__(self, weight: IntegerWeight, floating: Tensor, bias: Tensor, names: tuple[str, str]) -> None:
        """floating: the weight [out, ...] before it was rounded.  bias: [out].  names: of the tensors of both."""
        self.weight, self.bias, self.names = weight, bias, names
        self.scale = weight.scale.reshape(-1, *[1] * (weight.integers.dim() - 1))
        integers, grid = weight.integers.float(), Grid(weight.bits, signed=True)
        shifts = shifts_of(weight.integers, weight.bits).reshape(self.scale.shape)
        self.low, self.high = (shifts.float() + end for end in (grid.low, grid.high))
        self.steps = (integers + (floating / self.scale - integers).clamp(-NEAR, NEAR)).requires_grad_()
        self.unit = weight.scale * integers.flatten(1).norm(dim=1).clamp_min(1.0)  # [out], as large as outputs are
        self.change = torch.zeros_like(bias).requires_grad_()

    def tensors(self) -> dict[str, Tensor]:
        """Weight and bias as a pass uses them."""
        within = self.steps.clamp(self.low, self.high)
        rounded = within + (within.round() - within).detach()
        return dict(zip(self.names, (rounded * self.scale, self.bias + self.change * self.unit), strict=True))

    def learned(self) -> IntegerWeight:
        """The integers that are nearest by now, and the bias."""
        with torch.no_grad():
            integers = self.steps.clamp(self.low, self.high).round().to(torch.int8)
            bias, rounding = self.bias + self.change * self.unit, f"{self.weight.rounding}, reconstructed"
            return replace(self.weight, integers=integers, bias=bias, rounding=rounding)


class LearnedStep:
    """The step of an activation's quantizer, by its logarithm; the zero point stays."""

    def __init__(self, range_: ActivationRange, ceiling: float | None, device: torch.device, name: str) -> None:
        """ceiling: what the range's upper end may not exceed: of a rectifier that it takes in.  name: of its tensor."""
        self.range, self.name = range_, name
        self.above = range_.grid.high - range_.zero_point
        self.most = float("inf") if ceiling is None or not self.above else max(ceiling / self.above, range_.scale)
        self.logarithm = torch.zeros((), device=device, requires_grad=True)

    def tensors(self) -> dict[str, Tensor]:
        """The step as a pass uses it."""
        return {self.name: (self.range.scale * torch.exp(self.logarithm)).clamp(max=self.most)}

    def learned(self) -> ActivationRange:
        """The range that has this step."""
        step = self.tensors()[self.name].item()
        return replace(self.range, low=-step * self.range.zero_point, high=step * self.above)


@dataclass(frozen=True)
class Learned:
    """All that is learned of one block."""

    weights: dict[str, LearnedWeight] = field(default_factory=dict)  # by layer
    steps: dict[str, LearnedStep] = field(default_factory=dict)  # by quantizer

    def __bool__(self) -> bool:
        return bool(self.weights or self.steps)

    def tensors(self) -> dict[str, Tensor]:
        """As a pass uses them."""
        parts = [each.tensors() for each in self.weights.values()] + [each.tensors() for each in self.steps.values()]
        return {name: tensor for part in parts for name, tensor in part.items()}

    def found(self) -> tuple[dict[str, IntegerWeight], dict[str, ActivationRange]]:
        """What was learned, by layer and by quantizer."""
        weights = {name: each.learned() for name, each in self.weights.items()}
        return weights, {name: each.learned() for name, each in self.steps.items()}

"""Activation quantizers that gradients pass, and that leave some values unrounded."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx

from zeroq.numbers.operators import QUANTIZE_DEQUANTIZE
from zeroq.simulate.quantized_network import UNCLIPPED


class RoundedStraightThrough(torch.autograd.Function):
    """Values -> the nearest of the integers 0..high -> values, but for some that are clamped alone.

    Gradients: of a value within the range 1, beyond it 0; of the scale, what the rounding adds to a value in steps, and
    of those beyond the range the end that they are clamped to (LSQ, arXiv:1902.08153, equations 3 and 5).
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor, scale: Tensor, zero: float, high: int, dropped: Tensor | None) -> Tensor:
        steps = values / scale
        clamped = steps.clamp(-zero, high - zero)
        found = clamped.round()
        if dropped is not None:
            found = torch.where(dropped, clamped, found)
        inside, ctx.place = steps == clamped, scale.device
        ctx.save_for_backward(inside, found - steps * inside if ctx.needs_input_grad[1] else None)
        return found * scale

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (gradient,) = gradients
        inside, slope = ctx.saved_tensors
        return gradient * inside, None if slope is None else (gradient * slope).sum().to(ctx.place), None, None, None


@dataclass(frozen=True)
class Dropping:
    """Which share of values is not rounded, anew in every pass (QDrop, arXiv:2203.05740)."""

    share: float
    generator: torch.Generator

    def chosen(self, like: Tensor) -> Tensor | None:
        """Truth for the values that are not; None where no value is."""
        if not self.share:
            return None
        return torch.rand(like.shape, device=like.device, generator=self.generator) < self.share


def with_gradients(graph: fx.Graph, tensors: Mapping[str, Tensor], dropping: Dropping) -> fx.Graph:
    """A copy whose quantizers let gradients through and drop some of the rounding.

    What is quantized at 8 bits is always rounded: to drop that takes time and changes little. So is what was quantized
    before it was moved, as it is quantized alike, but without the bound below 8 bits: dropped values pass through.
    """
    changed = copy.deepcopy(graph)
    first: set[str] = set()  # steps that a quantizer below 8 bits has
    for node in changed.nodes:
        if node.target == QUANTIZE_DEQUANTIZE:
            step, zero = str(node.args[1].target), float(tensors[str(node.args[2].target)])
            if node.args[3] != UNCLIPPED:
                first.add(step)
            again = node.args[3] == UNCLIPPED and step in first
            node.target = moved if again else partial(quantize, zero=zero, dropping=dropping)
    return changed


def quantize(
    values: Tensor, scale: Tensor, zero_point: Tensor, high: int, *, zero: float, dropping: Dropping
) -> Tensor:
    """In place of the operator of that name."""
    found: Tensor = RoundedStraightThrough.apply(
        values, scale, zero, high, dropping.chosen(values) if high < UNCLIPPED else None
    )
    return found


def moved(values: Tensor, scale: Tensor, zero_point: Tensor, high: int) -> Tensor:
    """In place of the operator, where it has nothing left to do."""
    return values

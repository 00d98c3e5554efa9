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

STARTS = 1 << 16  # places that a stretch of random numbers may begin at


class RoundedStraightThrough(torch.autograd.Function):
    """Values -> the nearest of the integers 0..high -> values, but for some that are clamped alone: where `kept` is 0.

    Gradients: of a value within the range 1, beyond it 0; of the scale, what the rounding adds to a value in steps, and
    of those beyond the range the end that they are clamped to (LSQ, arXiv:1902.08153, equations 3 and 5).
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor, scale: Tensor, zero: float, high: int, kept: Tensor | None) -> Tensor:
        steps = values / scale
        clamped = steps.clamp(-zero, high - zero)
        found = clamped.round()
        if kept is not None:
            found = torch.lerp(clamped, found, kept)
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

    numbers: Tensor | None  # 0 of a value that is dropped and 1 of all others, at random; None: none is
    generator: torch.Generator  # on the CPU

    @classmethod
    def of(cls, share: float, most: int, device: torch.device, seed: int) -> Dropping:
        """most: numbers in a value. So many are drawn and some more, once, as to draw them in each pass takes long. A
        value has a stretch of them that begins anywhere.
        """
        generator = torch.Generator().manual_seed(seed)
        if not share:
            return cls(None, generator)
        return cls((torch.rand(most + STARTS, generator=generator) >= share).float().to(device), generator)

    def kept(self, like: Tensor) -> Tensor | None:
        """1 for the values that are rounded and 0 for all others, in the same order in memory; None where all are."""
        if self.numbers is None:
            return None
        start = int(torch.randint(STARTS, (), generator=self.generator))
        return torch.as_strided(self.numbers, like.shape, torch.empty_like(like).stride(), start)


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
        values, scale, zero, high, dropping.kept(values) if high < UNCLIPPED else None
    )
    return found


def moved(values: Tensor, scale: Tensor, zero_point: Tensor, high: int) -> Tensor:
    """In place of the operator, where it has nothing left to do."""
    return values

"""Rounding to nearest, then as few steps away from it as bring the sums of errors near zero."""

from __future__ import annotations

import torch
from torch import Tensor

from zeroq.numbers.grid import Grid, quantize
from zeroq.rounding.filters import PAIR_LIMIT


def round_squant(
    filters: Tensor, scale: Tensor, grid: Grid, columns: object, limited: bool, positions: int = 1
) -> Tensor:
    """Make sums of errors small: of each kernel, then of each output channel (SQuant, arXiv:2202.07471).

    What a layer's inputs have in common makes errors of one sign add up. The paper writes the Hessian as a sum of three
    terms without any input: one of each weight by itself, one that is constant over the positions of a kernel (one
    input channel of a filter), one that is constant over a whole filter. They ask in turn for errors, sums over kernels
    and sums over filters of at most half a step. From weights rounded to nearest, each kernel moves as many weights to
    their other neighbour as its sum has whole steps, those with the largest errors; then each filter does the same with
    its kernels, one weight in each. So no weight misses by a step, no kernel's sum by more than one (by half of one,
    where its filter did not need it), and no filter's by more than half, where the grid leaves room.
    Linear layers and 1 x 1 convolutions have kernels of one weight.

    filters: [groups, filters, columns].  scale: [groups, filters].  columns: not used.
    limited: weights of pairs that could come beyond the limit stay at the nearest.
    positions: of a kernel; columns are (*kernel, input channel).
    Gives integers as floating point, [groups, filters, columns].
    """
    nearest = quantize(filters, scale[..., None], 0, grid.low, grid.high)
    wanted = filters.double() / scale.double()[..., None]
    lowest, highest = neighbours(nearest, grid, limited)
    shape = (*filters.shape[:2], positions, -1)
    nearest, wanted, lowest, highest = (
        each.reshape(shape).transpose(2, 3) for each in (nearest, wanted, lowest, highest)
    )  # [groups, filters, input channels, positions]
    integers = nearest + steps(wanted - nearest, nearest > lowest, nearest < highest).to(nearest.dtype)
    errors = wanted - integers
    sums = errors.sum(-1)
    towards = sums.sum(-1).sign()[..., None, None]
    movable = torch.where(towards > 0, integers < highest, integers > lowest) & (errors * towards > 0)
    moved = steps(sums, movable.any(-1), movable.any(-1))
    chosen = torch.where(movable, errors.abs(), 0.0).argmax(-1, keepdim=True)
    integers = integers.scatter_add(-1, chosen, moved.to(integers.dtype)[..., None])
    return integers.transpose(2, 3).reshape(filters.shape)


def steps(errors: Tensor, down: Tensor, up: Tensor) -> Tensor:
    """What to add along the last axis, -1, 0 or 1 each, so that the sum of errors comes within a half.

    The largest errors of the sum's sign move, as many as the sum has steps: that adds least to the squares of errors.
    errors: wanted numbers less what they were rounded to.  down, up: which of them may move so.
    """
    total = errors.sum(-1, keepdim=True)
    sign = total.sign()
    movable = torch.where(sign > 0, up, down) & (errors * sign > 0)
    order = torch.where(movable, errors.abs(), 0.0).argsort(dim=-1, descending=True, stable=True)
    first = torch.arange(errors.shape[-1], device=errors.device) < torch.round(total.abs())  # by falling error
    return torch.zeros_like(errors).scatter(-1, order, first.to(errors.dtype)) * movable * sign


def neighbours(nearest: Tensor, grid: Grid, limited: bool) -> tuple[Tensor, Tensor]:
    """Between what integers each weight may be, a step from the nearest at most, [groups, filters, columns].

    limited: neither of a pair moves away from zero where both could not.
    """
    lowest, highest = torch.clamp(nearest - 1, min=grid.low), torch.clamp(nearest + 1, max=grid.high)
    if not limited:
        return lowest, highest
    even = nearest.shape[-1] // 2 * 2
    together = nearest[..., :even].unflatten(-1, (-1, 2)).sum(-1, keepdim=True).expand(*nearest.shape[:-1], -1, 2)
    together = torch.nn.functional.pad(together.flatten(-2), (0, nearest.shape[-1] - even))
    lowest = torch.where(together - 2 < -PAIR_LIMIT, nearest, lowest)
    return lowest, torch.where(together + 2 > PAIR_LIMIT, nearest, highest)

"""The scale of every output channel, by search."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from zeroq.numbers.grid import AnyGrid, Grid, quantize
from zeroq.rounding.filters import saturating

COARSE, FINE = 12, 6  # candidates of the two passes
LEAST_FACTOR = {2: 0.12, 3: 0.25, 4: 0.4, 5: 0.5, 6: 0.6, 7: 0.7, 8: 0.8}  # of the scale that clips nothing
LEAST_RELATIVE = 1e-6  # of a layer's largest scale: dead channels get this one
ENLARGEMENT = 1.01
STEPS = 128  # of enlarged scales that are searched at once; they reach to 3.6 times a scale, and 2.5 times is enough
CHUNK = 1 << 16  # weights at a time on a CPU, at one factor after another: what stays in the cache
GPU_CHUNK = 1 << 22  # on a GPU, at all factors at once: it computes faster than it is told what to


def search_scales(
    filters: Tensor,
    grid: AnyGrid,
    importance: Tensor | None = None,
    *,
    limited: bool = False,
    least: Tensor | None = None,
) -> Tensor:
    """Scale s of each filter that minimises sum_j h_j (w_j - s q_j)^2 over factors of the scale that clips nothing.

    filters: [groups, filters, columns].  grid: of all filters alike, or [groups, filters].
    importance: h, [groups, columns], the diagonal of the Hessian, or None for 1.
    limited: afterwards a filter's scale grows in steps of 1 % until no pair of its rounded integers can saturate.
    least: [groups, filters], a bound from below.  Gives float32 [groups, filters].
    """
    rows = filters.flatten(0, 1)
    weights = None if importance is None else importance[:, None].expand_as(filters).reshape(rows.shape)
    low, high = (torch.as_tensor(end, device=rows.device).flatten() for end in (grid.low, grid.high))
    reached = torch.where(high > 0, rows.amax(1) / high, 0.0), torch.where(low < 0, rows.amin(1) / low, 0.0)
    widest = torch.maximum(*reached).clamp(min=0)
    height = max(1, (GPU_CHUNK if rows.is_cuda else CHUNK) // rows.shape[1])
    scale = torch.cat(
        [
            search_rows(
                rows[start : start + height],
                widest[start : start + height],
                rows_of(grid, start, height),
                part(weights, start, height),
            )
            for start in range(0, len(rows), height)
        ]
    )
    bound = torch.clamp(widest.max() * LEAST_RELATIVE, min=torch.finfo(torch.float32).tiny)
    scale = torch.maximum(scale, bound if least is None else torch.maximum(bound, least.flatten()))
    if not widest.any():
        scale = torch.ones_like(scale) if least is None else torch.clamp(least.flatten(), min=1.0)
    if limited:
        assert isinstance(grid, Grid), "integers of 8 bits alone can saturate"
        scale = enlarge_saturating(rows, scale, grid)
    return scale.reshape(filters.shape[:2])


def part(weights: Tensor | None, start: int, height: int) -> Tensor | None:
    """Some rows of the importance, where there is one."""
    return None if weights is None else weights[start : start + height]


def rows_of(grid: AnyGrid, start: int, height: int) -> AnyGrid:
    """The grids of some rows, [rows, 1]."""
    if isinstance(grid, Grid):
        return grid
    return replace(grid, low=grid.low.flatten()[start : start + height, None])


def search_rows(rows: Tensor, widest: Tensor, grid: AnyGrid, weights: Tensor | None) -> Tensor:
    """Best scale of each row: a coarse pass over all factors, a fine one around each row's best."""
    step = (1 - LEAST_FACTOR[grid.bits]) / (COARSE - 1)
    coarse = torch.tensor([1 - index * step for index in range(COARSE)], device=rows.device)
    offsets = torch.tensor([step * (2 * index / (FINE + 1) - 1) for index in range(1, FINE + 1)], device=rows.device)
    best, error = torch.ones_like(widest), torch.full_like(widest, torch.inf)
    best, error = better(rows, widest, grid, weights, coarse[:, None].expand(-1, len(rows)), best, error)
    best, error = better(rows, widest, grid, weights, (best + offsets[:, None]).clamp(max=1), best, error)
    return best * widest


def better(
    rows: Tensor,
    widest: Tensor,
    grid: AnyGrid,
    weights: Tensor | None,
    factors: Tensor,
    best: Tensor,
    error: Tensor,
) -> tuple[Tensor, Tensor]:
    """The factor of each row with the smallest error, the best so far or one of [factors, rows], and that error."""
    for some in factors.split(len(factors) if rows.is_cuda else 1):
        scale = torch.clamp(some * widest, min=torch.finfo(torch.float32).tiny)[..., None]
        missed = (quantize(rows, scale, 0, grid.low, grid.high) * scale).sub_(rows).square_()
        every = missed.sum(2) if weights is None else torch.einsum("frc,rc->fr", missed, weights)
        fresh, which = every.min(0)
        improved = fresh < error
        best, error = torch.where(improved, some.gather(0, which[None])[0], best), torch.where(improved, fresh, error)
    return best, error


def enlarge_saturating(rows: Tensor, scale: Tensor, grid: Grid) -> Tensor:
    """Enlarge the scales of rows whose integers could saturate, step by step until none could.

    Measured on MobileNetV2: nothing lost against unlimited scales, while 7 bits lose a point and cutting the pairs
    themselves down loses half of all answers.
    As a scale grows no magnitude does, so the first scale of a row that serves is found by halving: a GPU is waited for
    three times a layer, rather than at each of some 90 steps.
    """
    scale = scale.clone()
    pending = torch.arange(len(rows), device=rows.device)
    while len(pending := pending[can_saturate(rows[pending], scale[pending], grid)]):
        enlarged = [scale[pending]]
        for _ in range(STEPS):  # one after another, as each product is rounded
            enlarged.append(enlarged[-1] * ENLARGEMENT)
        steps = first_step(rows[pending], torch.stack(enlarged), grid)
        scale[pending] = torch.stack(enlarged).gather(0, steps[None])[0]
        pending = pending[steps == STEPS]  # of these the last was not looked at
    return scale


def first_step(rows: Tensor, scales: Tensor, grid: Grid) -> Tensor:
    """Index of the first of each row's growing scales [steps + 1, rows] at which its integers cannot saturate.

    At the first they can; where they can at all before the last, that one is given. steps: a power of two.
    """
    steps = len(scales) - 1
    found = torch.full((len(rows),), steps, device=rows.device)
    width = steps
    while width := width // 2:
        earlier = found - width
        served = ~can_saturate(rows, scales.gather(0, earlier[None])[0], grid)
        found = torch.where(served, earlier, found)
    return found


def can_saturate(rows: Tensor, scale: Tensor, grid: Grid) -> Tensor:
    """Whether pairs of each row's integers could, [rows]."""
    return saturating(quantize(rows, scale[:, None], 0, grid.low, grid.high)) > 0

"""Grid, scale and integers of a filter found together, by the error that the rounding leaves."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from zeroq.numbers.grid import SHIFTED_BITS, AnyGrid, Grid, ShiftedGrid
from zeroq.rounding.gptq import Elimination, fixed
from zeroq.rounding.scales import search_scales

# Factors of the scale that is best where each weight is rounded by itself. At 2 bits carried errors want a larger one;
# at more the best is a filter's luck, which depthwise layers have most of.
LEAST, MOST, STEP = 0.8, 1.6, 0.1
FINEST = 8  # parts of a step
FINE = 6  # factors between a filter's best and its neighbours
SCOUTED = tuple(step / 20 for step in range(16, 33))
SCOUTS = 16  # filters of each group
# Products of weights and columns: as many as the finer of the coarse factors may take, and as many as two factors may
# take where only a few are tried on all filters.
FINE_WORK, WORK = 1 << 26, 1 << 31
LEAST_TRIED = 2
TOGETHER = 1 << 21  # weights, each at several scales: small layers take as long for many as for one
GPU_TOGETHER = 1 << 24  # on a GPU middling layers do


@dataclass(frozen=True)
class Solution:
    """Of all filters."""

    factor: Tensor  # of the scale that is best where each weight is rounded by itself, [groups, filters]
    scale: Tensor  # likewise
    integers: Tensor  # as floating point, [groups, filters, columns]
    error: Tensor  # [groups, filters]


@dataclass(frozen=True)
class Filters:
    """What is to be rounded at some scale."""

    weights: Tensor  # [groups, filters, columns]
    scale: Tensor  # [groups, filters]
    least: Tensor | None  # that a scale may be, likewise
    grid: AnyGrid
    columns: Elimination

    def solutions(self, factors: Iterable[Tensor]) -> Iterator[Solution]:
        """At each factor of the scale, several at a time where a layer is small."""
        every = list(factors)
        count = max(1, (GPU_TOGETHER if self.weights.is_cuda else TOGETHER) // self.weights.numel())
        for start in range(0, len(every), count):
            part = every[start : start + count]
            scales = [self.at(factor) for factor in part]
            weights, grid = self.weights.repeat(1, len(part), 1), with_lows(self.grid, partial(tiled, count=len(part)))
            found = fixed(weights, torch.cat(scales, 1), grid, self.columns, limited=False)
            yield from map(Solution, part, scales, *(each.chunk(len(part), 1) for each in found))

    def at(self, factor: Tensor) -> Tensor:
        """The scale times a factor, not below the least."""
        scale = self.scale * factor
        return scale if self.least is None else torch.maximum(scale, self.least)

    def same(self, factor: float) -> Tensor:
        """One factor for all filters."""
        return torch.full_like(self.scale, factor)

    def some(self) -> Filters:
        """At most `SCOUTS` filters of each group, evenly spread."""
        among = slice(None, None, -(-self.weights.shape[1] // SCOUTS))
        least = None if self.least is None else self.least[:, among]
        grid = with_lows(self.grid, lambda low: low[:, among])
        return Filters(self.weights[:, among], self.scale[:, among], least, grid, self.columns)


def with_lows(grid: AnyGrid, change: Callable[[Tensor], Tensor]) -> AnyGrid:
    """A grid of each filter changed like the filters; one of all filters stays."""
    return replace(grid, low=change(grid.low)) if isinstance(grid, ShiftedGrid) else grid


def tiled(of_filters: Tensor, count: int) -> Tensor:
    """[groups, filters] -> [groups, filters x count]."""
    return of_filters.repeat(1, count)


def round_on_best_grid(
    filters: Tensor, grid: Grid, columns: Elimination, importance: Tensor | None = None, least: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Scale and integers of each filter on the signed grid, or on one that is shifted to where its weights lie:
    whatever leaves less of (w - q)^T H (w - q).

    Filters of few weights lie to one side of 0 as a rule, and have twice as many integers there: those of MobileNetV2's
    depthwise layers leave less than half as much, those of its others a seventh less (docs/scales.md).

    filters: [groups, filters, columns].  grid: signed.  columns: by H, one for each group.
    importance: [groups, columns], the diagonal of H.  least: [groups, filters], a bound from below on scales.
    Gives scales and integers as floating point, [groups, filters] and [groups, filters, columns].
    """
    grids: list[AnyGrid] = [grid, shifted_to(filters, grid.bits)] if grid.bits <= SHIFTED_BITS else [grid]
    found = best(
        round_jointly(filters, search_scales(filters, each, importance, least=least), each, columns, least)
        for each in grids
    )
    return found.scale, found.integers


def shifted_to(filters: Tensor, bits: int) -> ShiftedGrid:
    """The grids that reach from each filter's least weight to its greatest, and to 0; [groups, filters]."""
    low, high = filters.amin(2).clamp(max=0), filters.amax(2).clamp(min=0)
    step = (high - low).clamp(min=torch.finfo(torch.float32).tiny) / (2**bits - 1)
    return ShiftedGrid(bits, torch.round(low / step).clamp(1 - 2**bits, 0))


def round_jointly(
    filters: Tensor, scale: Tensor, grid: AnyGrid, columns: Elimination, least: Tensor | None = None
) -> Solution:
    """Scale of each filter with which GPTQ leaves least of (w - q)^T H (w - q), and the integers.

    A search over factors of the scale given, 1 among them, then a finer one around each filter's best. Where a layer
    takes long, a few of its filters say which few factors serve all.

    filters: [groups, filters, columns].  scale: [groups, filters].  columns: by H, one for each group.
    least: [groups, filters], a bound from below on scales.
    """
    given = Filters(filters, scale, least, grid, columns)
    work = filters.numel() * filters.shape[2]
    coarse = coarse_factors(parts := min(max(FINE_WORK // (8 * work), 1), FINEST))
    if WORK // work < len(coarse) + FINE and filters.shape[1] > SCOUTS:
        factors = few_for_all(given.some(), max(WORK // work, LEAST_TRIED))
        return best(given.solutions(map(given.same, factors)))
    first = best(given.solutions(map(given.same, coarse)))
    finer = [STEP / parts * (2 * index / (FINE + 1) - 1) for index in range(1, FINE + 1)]
    return better(first, best(given.solutions(first.factor + offset for offset in finer)))


def coarse_factors(parts: int) -> list[float]:
    """In steps of 0.1 or of a part of that, 1 first."""
    count = round((MOST - LEAST) / STEP * parts)
    return [1.0, *(factor for place in range(count + 1) if (factor := round(LEAST + place * STEP / parts, 6)) != 1)]


def few_for_all(filters: Filters, count: int) -> list[float]:
    """The factors that together leave least, each filter at the best of them: one after another, greedily."""
    errors = torch.stack([each.error.flatten() for each in filters.solutions(map(filters.same, SCOUTED))])
    chosen: list[int] = []
    left = torch.full_like(errors[0], torch.inf)
    for _ in range(count):
        chosen.append(int(torch.minimum(errors, left).sum(1).argmin()))
        left = torch.minimum(left, errors[chosen[-1]])
    return [SCOUTED[place] for place in dict.fromkeys(chosen)]


def best(solutions: Iterator[Solution]) -> Solution:
    """Of each filter the one that leaves least, the first of equals."""
    found = next(solutions)
    for fresh in solutions:
        found = better(found, fresh)
    return found


def better(one: Solution, other: Solution) -> Solution:
    """Of each filter the one that leaves less, the first of equals."""
    improved = other.error < one.error
    return Solution(
        torch.where(improved, other.factor, one.factor),
        torch.where(improved, other.scale, one.scale),
        torch.where(improved[..., None], other.integers, one.integers),
        torch.where(improved, other.error, one.error),
    )

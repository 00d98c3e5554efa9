"""Scale and integers of a filter found together, by the error that the rounding leaves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from zeroq.numbers.grid import Grid
from zeroq.rounding.gptq import Elimination, elimination, fixed

# Of the scale that is best where each weight is rounded by itself. At 2 bits carried errors want a larger one: a third
# of the error of ResNet18 (CIFAR-10) goes with it, on real pictures as well; at 4 bits a twelfth, a fifth of depthwise
# layers', where it is a filter's luck.
COARSE = (1.0, 0.8, 0.9, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6)
FINE = tuple(step / 70 for step in (-6, -4, -2, 2, 4, 6))  # added to a filter's best: all between two coarse ones
SCOUTS = 16  # filters of each group: a factor that is best for none of them is not tried on the others
TOGETHER = 1 << 18  # weights, each at several scales: small layers take as long for many as for one


@dataclass(frozen=True)
class Solution:
    """Of all filters."""

    factor: Tensor  # of the scale, [groups, filters]
    integers: Tensor  # as floating point, [groups, filters, columns]
    error: Tensor  # [groups, filters]


def round_jointly(
    filters: Tensor, scale: Tensor, grid: Grid, hessian: Tensor, least: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The scale of each filter with which `round_gptq` leaves least of (w - q)^T H (w - q), and the integers.

    Never worse than at the scale given, which is tried first; then a search on a grid of factors of it and a finer one
    around each filter's best.

    filters: [groups, filters, columns].  scale: [groups, filters].  hessian: [groups, columns, columns].
    least: [groups, filters], a bound from below on scales.
    Gives scales and integers as floating point, [groups, filters] and [groups, filters, columns].
    """
    columns = elimination(hessian)

    def best(filters: Tensor, scale: Tensor, least: Tensor | None, factors: Sequence[Tensor]) -> Solution:
        """Of one factor for all filters or one for each, whichever leaves least; of equals the first."""
        found: Solution | None = None
        for fresh in solutions(filters, scale, grid, columns, least, factors):
            found = fresh if found is None else better(found, fresh)
        assert found is not None, "there is a factor"
        return found

    coarse = [torch.full_like(scale, factor) for factor in COARSE]
    stride = -(-filters.shape[1] // SCOUTS)
    if stride > 1:
        among = slice(None, None, stride)
        scouted = best(
            filters[:, among], scale[:, among], None if least is None else least[:, among],
            [factor[:, among] for factor in coarse],
        )  # fmt: skip
        coarse = coarse[:1] + [factor for factor in coarse[1:] if (scouted.factor == factor[0, 0]).any()]
    first = best(filters, scale, least, coarse)
    found = better(first, best(filters, scale, least, [first.factor + offset for offset in FINE]))
    return bounded(scale * found.factor, least), found.integers


def solutions(
    filters: Tensor, scale: Tensor, grid: Grid, columns: Elimination, least: Tensor | None, factors: Sequence[Tensor]
) -> Iterator[Solution]:
    """At each factor of the scale, several at a time where a layer is small."""
    count = max(1, TOGETHER // filters.numel())
    for start in range(0, len(factors), count):
        part = factors[start : start + count]
        scales = torch.cat([bounded(scale * factor, least) for factor in part], 1)
        integers, error = fixed(filters.repeat(1, len(part), 1), scales, grid, columns, limited=False)
        yield from map(Solution, part, integers.chunk(len(part), 1), error.chunk(len(part), 1))


def bounded(scale: Tensor, least: Tensor | None) -> Tensor:
    """Not below the least."""
    return scale if least is None else torch.maximum(scale, least)


def better(one: Solution, other: Solution) -> Solution:
    """Of each filter the one that leaves less, the first of equals."""
    improved = other.error < one.error
    return Solution(
        torch.where(improved, other.factor, one.factor),
        torch.where(improved[..., None], other.integers, one.integers),
        torch.where(improved, other.error, one.error),
    )

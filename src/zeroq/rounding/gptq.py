"""Rounding column by column, the error of each carried into those left."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

import torch
from torch import Tensor

from zeroq.errors import NumericalError
from zeroq.numbers.grid import AnyGrid
from zeroq.rounding.filters import PAIR_LIMIT

DAMPING = 0.01  # of the mean diagonal
MOST_DAMPING = 1.0
BLOCK = 128  # columns between two updates of all that are left


@dataclass(frozen=True)
class Elimination:
    """Columns in the order in which they are fixed, the last one first: (w - q)^T H (w - q) as a sum of squares.

    With H = L L^T and the columns sorted by rising diagonal, that is the sum over k of the squares of
    sum_{j >= k} (w_j - q_j) L_jk.
    """

    order: Tensor  # columns by rising diagonal of H, [groups, columns]
    carry: Tensor  # L_jk / L_kk, lower triangular, [groups, columns, columns]
    pivots: Tensor  # L_kk^2, [groups, columns]


def round_gptq(
    filters: Tensor, scale: Tensor, grid: AnyGrid, columns: Elimination | None, limited: bool, positions: int = 1
) -> Tensor:
    """Minimise (w - q)^T H (w - q) greedily, columns by falling diagonal of H (GPTQ, arXiv:2210.17323).

    filters: [groups, filters, columns].  scale: [groups, filters].  columns: by H, one for each convolution group.
    limited: a column whose neighbour is already fixed stays within the limit on pairs.  positions: not used.
    Gives integers as floating point, [groups, filters, columns].
    """
    assert columns is not None, "GPTQ needs a Hessian"
    return fixed(filters, scale, grid, columns, limited=limited)[0]


def fixed(
    filters: Tensor, scale: Tensor, grid: AnyGrid, columns: Elimination, *, limited: bool
) -> tuple[Tensor, Tensor]:
    """Integers, [groups, filters, columns], and the (w - q)^T H (w - q) that they leave, H damped, [groups, filters].

    From the last column to the first, each q_k makes its own square as small as the grid allows:
    q_k = round(w_k + sum_{j > k} (w_j - q_j) L_jk / L_kk). This is the paper's result (QuIP, arXiv:2307.13304,
    theorem 6) without the inverse of H, at a third of the cost.
    """
    count = filters.shape[2]
    order, carry = columns.order, columns.carry
    place = torch.argsort(order, dim=1)
    every = torch.arange(len(order), device=order.device)[:, None]
    weights = filters.transpose(1, 2)[every, order]  # [groups, columns, filters]
    integers = weights.new_zeros(weights.shape[0], count + 1, weights.shape[2])  # the last: neighbour of an odd column
    error = torch.zeros_like(weights)
    neighbour = torch.cat([place, torch.full_like(place[:, :1], count)], dim=1).gather(1, order ^ 1)
    left = torch.zeros_like(scale)
    fix = fastest_for(carry)
    for stop in range(count, 0, -BLOCK):
        start = max(stop - BLOCK, 0)
        own, share = weights[:, start:stop], carry[:, start:stop, start:stop].transpose(1, 2)
        target = own + carry[:, stop:, start:stop].transpose(1, 2) @ error[:, stop:]
        fix(target, weights, scale, carry, integers, error, neighbour, start, grid, PAIR_LIMIT if limited else None)
        roots = target - own + share @ error[:, start:stop]
        left += torch.einsum("gcf,gc->gf", roots.square(), columns.pivots[:, start:stop])
    return integers[every, place].transpose(1, 2), left


def fix_columns(
    target: Tensor,
    columns: Tensor,
    scale: Tensor,
    carry: Tensor,
    integers: Tensor,
    error: Tensor,
    neighbour: Tensor,
    start: int,
    grid: AnyGrid,
    limit: int | None,
) -> None:
    """Fix one block's columns from `start` on, the last one first: fills in their integers and errors.

    target: what they should be, by the errors of the columns behind the block, [groups, columns of it, filters].
    columns, error: [groups, columns, filters].  integers: with one column more, of zeros.
    carry: [groups, columns, columns].  neighbour: of each column, [groups, columns].  limit: on pairs, None for none.
    """
    every = torch.arange(len(target), device=target.device)[:, None]
    width, scale = target.shape[1], scale[:, None]
    low, high = (end[:, None] if isinstance(end, Tensor) else end for end in (grid.low, grid.high))
    here = slice(start, start + width)
    share, missed = carry[:, here, here].transpose(1, 2).contiguous(), error[:, here]
    # Cut once: of what a column takes, making views of it one by one is the greater part.
    targets, own, errors, found = (each.split(1, 1) for each in (target, columns[:, here], missed, integers[:, here]))
    for column in range(width - 1, -1, -1):
        behind = slice(column + 1, width)
        wanted = torch.baddbmm(targets[column], share[:, column : column + 1, behind], missed[:, behind])
        fixed = torch.div(wanted, scale, out=found[column]).round_().clamp_(low, high)  # type: ignore[arg-type]
        if limit is not None:
            beside = integers[every, neighbour[:, start + column, None]]
            fixed.copy_(torch.clamp(fixed, -limit - beside, limit - beside))
        torch.addcmul(own[column], fixed, scale, value=-1, out=errors[column])


def fastest_for(carry: Tensor) -> Callable[..., None]:
    """`fix_columns`, or on a GPU with Triton one kernel that does the same."""
    if not carry.is_cuda or find_spec("triton") is None:
        return fix_columns
    from zeroq.rounding.columns_cuda import fix_columns as fix_together

    return fix_together


def elimination(hessian: Tensor) -> Elimination:
    """Of the damped Hessian, [groups, columns, columns]. Raises NumericalError where it is not positive even so.

    Columns that no input ever reaches have the damping alone: they round to nearest and carry nothing. A Hessian that
    the damping does not make positive is damped ten times as much, at most twice.
    """
    order = torch.argsort(torch.diagonal(hessian, dim1=1, dim2=2), dim=1, stable=True)
    every = torch.arange(len(hessian), device=hessian.device)[:, None, None]
    matrix = hessian[every, order[:, :, None], order[:, None, :]]
    mean = torch.diagonal(matrix, dim1=1, dim2=2).mean(1)
    mean = torch.where(mean > 0, mean, 1.0)
    added = torch.zeros_like(mean)
    damping = DAMPING
    while True:
        step = torch.where(added < damping * mean, damping * mean - added, 0.0)
        torch.diagonal(matrix, dim1=1, dim2=2).add_(step[:, None])
        added += step
        lower, failed = torch.linalg.cholesky_ex(matrix)
        if not failed.any():
            pivots = torch.diagonal(lower, dim1=1, dim2=2).clone()
            carry = lower.div_(pivots[:, None, :])
            return Elimination(order, carry.contiguous() if carry.is_cuda else carry, pivots.square())
        if damping >= MOST_DAMPING:
            raise NumericalError(
                "The second moments of a layer's inputs are not positive, so they cannot guide its rounding."
            )
        damping *= 10

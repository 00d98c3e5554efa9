"""Rounding by the textbook: slow and obvious."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor


def round_by_inverse(weight: Tensor, scale: float, hessian: Tensor, low: int, high: int) -> Tensor:
    """OBQ of one filter [columns]: columns by falling diagonal, the inverse of what is left computed anew each time.

    hessian: damped already, float64.
    """
    remaining = torch.argsort(torch.diagonal(hessian), descending=True).tolist()
    current, integers = weight.clone(), torch.zeros_like(weight)
    while remaining:
        column, inverse = remaining[0], torch.linalg.inv(hessian[remaining][:, remaining])
        integers[column] = torch.clamp(torch.round(current[column] / scale), low, high)
        missed = current[column] - integers[column] * scale
        current[remaining] -= missed / inverse[0, 0] * inverse[:, 0]
        remaining = remaining[1:]
    return integers


def least_error(weight: Tensor, scale: float, hessian: Tensor, low: int, high: int) -> float:
    """The smallest (w - q)^T H (w - q) over all integers of the grid."""
    every = torch.tensor(list(itertools.product(range(low, high + 1), repeat=len(weight))), dtype=weight.dtype)
    missed = weight - every * scale
    return float(torch.einsum("nc,cd,nd->n", missed, hessian, missed).min())


def count_violations(integers: Tensor, groups: int) -> int:
    """Pairs over the limit, counted one by one, [out, in / groups, *kernel]."""
    if groups == integers.shape[0] and integers.shape[1] == 1 and integers.dim() > 2:
        return 0
    count = 0
    for one_filter in integers:
        flat = one_filter.movedim(0, -1).flatten().tolist()
        for first, second in zip(flat[::2], flat[1::2], strict=False):
            count += (first > 0) == (second > 0) and first * second != 0 and abs(first) + abs(second) > 128
    return count

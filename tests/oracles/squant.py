"""SQuant by the textbook: weight by weight, and the best of all roundings of one kernel."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor


def flip(integers: list[float], errors: list[float], free: list[bool]) -> None:
    """Move the largest errors of the sum's sign by a step, as many as the sum has whole steps; both lists change."""
    total = sum(errors)
    sign = math.copysign(1.0, total)
    order = sorted(range(len(errors)), key=lambda index: -abs(errors[index]))
    movable = [index for index in order if errors[index] * sign > 0 and free[index]]
    for index in movable[: round(abs(total))]:
        integers[index] += sign
        errors[index] -= sign


def round_by_flips(kernels: Tensor, low: int, high: int) -> Tensor:
    """One filter [input channels, positions] in steps, to integers of the grid."""
    integers = [[min(max(round(w), low), high) for w in kernel] for kernel in kernels.tolist()]
    errors = [[w - q for w, q in zip(*pair, strict=True)] for pair in zip(kernels.tolist(), integers, strict=True)]

    def free(integer: float, error: float) -> bool:
        return low <= integer + math.copysign(1.0, error) <= high

    for kernel, missed in zip(integers, errors, strict=True):
        flip(kernel, missed, [free(*pair) for pair in zip(kernel, missed, strict=True)])
    sums = [sum(missed) for missed in errors]
    towards = math.copysign(1.0, sum(sums))
    candidates: list[int | None] = []
    for kernel, missed in zip(integers, errors, strict=True):
        fit = [index for index, each in enumerate(missed) if each * towards > 0 and free(kernel[index], each)]
        candidates.append(max(fit, key=lambda index, missed=missed: abs(missed[index])) if fit else None)
    moved = [0.0] * len(sums)
    flip(moved, sums, [candidate is not None for candidate in candidates])
    for kernel, step, candidate in zip(integers, moved, candidates, strict=True):
        if step and candidate is not None:
            kernel[candidate] += step
    return torch.tensor(integers)


def least_squares_within_half(kernel: Tensor) -> float:
    """The least sum of squared errors of all roundings down or up whose errors sum to half a step at most."""
    every = torch.tensor(list(itertools.product((0, 1), repeat=len(kernel))), dtype=kernel.dtype)
    errors = kernel - (torch.floor(kernel) + every)
    squares = errors.square().sum(1)
    return float(squares[errors.sum(1).abs() <= 0.5].min())

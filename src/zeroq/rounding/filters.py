"""A weight as a matrix of filters, in the order in which integer kernels read it, and the limit on pairs in it."""

from __future__ import annotations

import torch
from torch import Tensor

from zeroq.numbers.grid import MOST_BITS

PAIR_LIMIT = 128  # 2 * 255 * 64 < 2^15: what two products may sum to in 16 bits


def to_filters(weight: Tensor, groups: int) -> Tensor:
    """[out, in / groups, *kernel] -> [groups, out / groups, columns], columns as (*kernel, input channel)."""
    return weight.movedim(1, -1).reshape(groups, weight.shape[0] // groups, -1)


def from_filters(filters: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The inverse of `to_filters`; shape is that of the weight."""
    return filters.reshape(shape[0], *shape[2:], shape[1]).movedim(-1, 1).contiguous()


def is_depthwise(shape: tuple[int, ...], groups: int) -> bool:
    """Whether every filter sees one channel, and every channel has one filter: only these have kernels of their own."""
    return len(shape) > 2 and groups == shape[0] and shape[1] == 1


def is_limited(shape: tuple[int, ...], groups: int, bits: int) -> bool:
    """Whether integers of that width could saturate sums of two products in 16 bits (design: only 8 bits can)."""
    return bits == MOST_BITS and not is_depthwise(shape, groups)


def saturating(filters: Tensor) -> Tensor:
    """Number of neighbours (0, 1), (2, 3), ... along the last axis that sum to more than the limit, [...]."""
    even = filters[..., : filters.shape[-1] // 2 * 2].to(torch.int32)
    # Numbers of opposite signs never sum to more than 127, so the plain sum is enough.
    return (even.unflatten(-1, (-1, 2)).sum(-1).abs() > PAIR_LIMIT).sum(-1)


def violating_pairs(integers: Tensor, groups: int) -> int:
    """How many pairs of a layer's integers [out, in / groups, *kernel] could saturate on a CPU without VNNI.

    An x86 CPU without VNNI adds products of neighbouring pairs in 16 bits; two weights of one sign whose magnitudes
    sum to more than 128 can overflow there. Depthwise kernels do not work in pairs.
    """
    if is_depthwise(tuple(integers.shape), groups):
        return 0
    return int(saturating(to_filters(integers, groups)).sum())

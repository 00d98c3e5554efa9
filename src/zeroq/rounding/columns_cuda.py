"""The columns of one block, fixed one after another by a single kernel of a GPU. Needs Triton, imported by nobody else.

Operator by operator every column takes seven kernels of a few microseconds, and a network has ten thousands of columns.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from zeroq.numbers.grid import AnyGrid

COLUMNS, FILTERS = 128, 8  # of a program: a block's columns, and filters, which know nothing of one another
NEAREST = tl.constexpr(1.5 * 2**23)  # what is added and taken away again is rounded to whole numbers, half to even


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
    """As gptq.fix_columns, but for the order of sums: what a fixed column misses is added to all that are left."""
    groups, width, filters = target.shape
    programs = triton.cdiv(filters, FILTERS), groups
    low, high = (torch.as_tensor(end, dtype=scale.dtype, device=scale.device) for end in (grid.low, grid.high))
    fix_block[programs](
        target.contiguous(), columns, scale.contiguous(), carry, integers, error, neighbour,
        low.expand_as(scale).contiguous(), high.expand_as(scale).contiguous(),
        columns.shape[1], filters, start, width,
        LIMIT=limit or 0, COLUMNS=COLUMNS, FILTERS=FILTERS, num_warps=1,
    )  # fmt: skip


@triton.jit(do_not_specialize=["count", "filters", "start", "width"])
def fix_block(  # type: ignore[no-untyped-def]
    target, columns, scale, carry, integers, error, neighbour, low, high, count, filters, start, width,
    LIMIT: tl.constexpr, COLUMNS: tl.constexpr, FILTERS: tl.constexpr,
):  # fmt: skip
    """Some filters of one group. LIMIT: of pairs, 0 for none."""
    group = tl.program_id(1).to(tl.int64)
    places = tl.arange(0, COLUMNS)
    own = tl.program_id(0) * FILTERS + tl.arange(0, FILTERS)
    inside = own < filters
    there = (places[:, None] < width) & inside[None, :]
    wanted = tl.load(target + (group * width + places[:, None]) * filters + own[None, :], mask=there, other=0.0)
    scales = tl.load(scale + group * filters + own, mask=inside, other=1.0)
    lowest = tl.load(low + group * filters + own, mask=inside, other=0.0)
    highest = tl.load(high + group * filters + own, mask=inside, other=0.0)
    if LIMIT > 0:  # what stands beside each column, 0 where that is not fixed yet
        partners = tl.load(neighbour + group * count + start + places, mask=places < width, other=count)
        stored = integers + (group * (count + 1) + partners[:, None]) * filters + own[None, :]
        beside = tl.load(stored, mask=there, other=0.0)
    for step in range(0, width):
        column = width - 1 - step
        this = places[:, None] == column
        fixed = tl.div_rn(tl.sum(tl.where(this, wanted, 0.0), axis=0), scales)
        fixed = tl.minimum(tl.maximum(fixed, lowest), highest)
        fixed = (fixed + NEAREST) - NEAREST
        if LIMIT > 0:
            other = tl.sum(tl.where(this, beside, 0.0), axis=0)
            fixed = tl.minimum(tl.maximum(fixed, -LIMIT - other), LIMIT - other)
            beside = tl.where((partners == start + column)[:, None], fixed[None, :], beside)
        at = (group * count + start + column) * filters + own
        missed = tl.load(columns + at, mask=inside, other=0.0) - fixed * scales
        tl.store(error + at, missed, mask=inside)
        tl.store(integers + at + group * filters, fixed, mask=inside)
        row = carry + (group * count + start + column) * count + start
        wanted += tl.load(row + places, mask=places < column, other=0.0)[:, None] * missed[None, :]

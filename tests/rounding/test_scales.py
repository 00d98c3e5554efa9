"""The search for scales against a much finer one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from zeroq.numbers.grid import Grid, quantize
from zeroq.rounding.scales import LEAST_FACTOR, search_scales


def weighted_error(filters: Tensor, scale: Tensor, grid: Grid, importance: Tensor) -> Tensor:
    """sum_j h_j (w_j - s q_j)^2 of each filter."""
    missed = filters - quantize(filters, scale[..., None], 0, grid.low, grid.high) * scale[..., None]
    return (missed.square() * importance[:, None]).sum(-1)


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("tails", [False, True])
def test_comes_close_to_the_best_of_a_thousand_factors(bits: int, tails: bool) -> None:
    torch.manual_seed(bits)
    filters, grid, importance = torch.randn(2, 40, 288), Grid(bits, signed=True), torch.rand(2, 288)
    filters = filters**3 if tails else filters
    widest = torch.maximum(filters.amax(-1) / grid.high, filters.amin(-1) / grid.low)
    best = torch.stack(
        [
            weighted_error(filters, factor * widest, grid, importance)
            for factor in torch.linspace(0.02, 1, 1000).tolist()
        ]
    ).amin(0)
    found = weighted_error(filters, search_scales(filters, grid, importance), grid, importance)
    assert found.sum() <= 1.03 * best.sum()
    assert (found <= weighted_error(filters, widest, grid, importance)).all()


def test_a_column_that_does_not_matter_is_clipped() -> None:
    filters = torch.cat([torch.linspace(-1, 1, 30), torch.tensor([2.0])])[None, None]
    importance = torch.ones(1, 31)
    importance[0, 30] = 0
    assert search_scales(filters, Grid(4, signed=True), importance) < 0.6 * search_scales(filters, Grid(4, signed=True))


def test_the_least_scale_holds() -> None:
    least = torch.tensor([[0.5, 1e-9]])
    scale = search_scales(torch.full((1, 2, 4), 0.1), Grid(8, signed=True), least=least)
    assert scale[0, 0] == 0.5 and scale[0, 1] < 0.01


def test_every_width_has_its_range_of_factors() -> None:
    assert sorted(LEAST_FACTOR) == list(range(2, 9))

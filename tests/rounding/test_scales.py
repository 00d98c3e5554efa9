"""The search for scales against a much finer one."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from zeroq.numbers.grid import Grid, quantize
from zeroq.rounding.filters import saturating
from zeroq.rounding.scales import ENLARGEMENT, LEAST_FACTOR, STEPS, enlarge_saturating, search_scales


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


def enlarged_one_by_one(rows: Tensor, scale: Tensor, grid: Grid) -> Tensor:
    """Every row's scale times 1.01, again and again, as long as its integers could saturate."""
    found = scale.clone()
    for index, row in enumerate(rows):
        while saturating(quantize(row, found[index], 0, grid.low, grid.high)) > 0:
            found[index] *= ENLARGEMENT
    return found


@settings(deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(st.integers(1, 4), st.integers(1, 40)),
    power=st.sampled_from([1, 3]),
    factor=st.sampled_from([0.1, 0.8, 1.0, 2.0]),
)
def test_enlarges_as_step_by_step(seed: int, shape: tuple[int, int], power: int, factor: float) -> None:
    generator, grid = torch.Generator().manual_seed(seed), Grid(8, signed=True)
    rows = torch.randn(shape, generator=generator) ** power
    scale = factor * torch.clamp(rows.abs().amax(1), min=1e-3) / grid.high
    assert enlarge_saturating(rows, scale, grid).equal(enlarged_one_by_one(rows, scale, grid))


@pytest.mark.parametrize("steps", [0, 1, 2, 63, 64, 65, STEPS - 1, STEPS, STEPS + 1, 2 * STEPS])
def test_enlarges_by_every_number_of_steps(steps: int) -> None:
    rows, grid = torch.ones(1, 2), Grid(8, signed=True)
    scale = torch.tensor([1 / 64.4 / ENLARGEMENT ** (steps - 0.3)])  # pairs of 64 serve, of 65 do not
    found = enlarge_saturating(rows, scale, grid)
    assert found.equal(enlarged_one_by_one(rows, scale, grid))
    assert found / scale == pytest.approx(ENLARGEMENT**steps, rel=1e-4)

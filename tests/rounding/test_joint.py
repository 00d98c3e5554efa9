"""Scale and integers together, against many scales and against the scale that was given."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from tests.rounding.test_gptq import correlated_hessian, damped
from zeroq.numbers.grid import Grid
from zeroq.rounding import joint
from zeroq.rounding.gptq import elimination, fixed
from zeroq.rounding.joint import (
    LEAST,
    MOST,
    SCOUTED,
    STEP,
    Filters,
    coarse_factors,
    few_for_all,
    round_jointly,
    round_on_best_grid,
    shifted_to,
)
from zeroq.rounding.scales import search_scales


def case(groups: int, count: int, columns: int, bits: int) -> tuple[Tensor, Tensor, Grid, Tensor]:
    """Filters, the scale for rounding to nearest, the grid and a Hessian."""
    hessian, grid = correlated_hessian(groups, columns, bits), Grid(bits, signed=True)
    filters = torch.randn(groups, count, columns, generator=torch.Generator().manual_seed(bits))
    return filters, search_scales(filters, grid), grid, hessian


def squares(filters: Tensor, scale: Tensor, integers: Tensor, hessian: Tensor) -> Tensor:
    """(w - q)^T H (w - q) with H damped, [groups, filters], float64."""
    missed = filters.double() - integers.double() * scale.double()[..., None]
    return torch.einsum("gfc,gcd,gfd->gf", missed, damped(hessian), missed)


@pytest.mark.parametrize(("groups", "count", "columns"), [(1, 4, 150), (5, 1, 9), (2, 3, 130)])
def test_the_error_told_is_that_of_the_integers(groups: int, count: int, columns: int) -> None:
    filters, scale, grid, hessian = case(groups, count, columns, 3)
    integers, error = fixed(filters, scale, grid, elimination(hessian), limited=False)
    torch.testing.assert_close(error.double(), squares(filters, scale, integers, hessian), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("bits", [2, 3, 4, 6])
@pytest.mark.parametrize(("groups", "count", "columns"), [(1, 20, 40), (40, 1, 9)])
def test_comes_near_the_best_of_many_scales_and_no_filter_loses(
    bits: int, groups: int, count: int, columns: int
) -> None:
    filters, scale, grid, hessian = case(groups, count, columns, bits)
    columns_ = elimination(hessian)
    solution = round_jointly(filters, scale, grid, columns_)
    found, integers = solution.scale, solution.integers
    ours = squares(filters, found, integers, hessian)
    every = [
        squares(filters, scale * factor, fixed(filters, scale * factor, grid, columns_, limited=False)[0], hessian)
        for factor in torch.linspace(0.7, 1.7, 101).tolist()
    ]
    given = squares(filters, scale, fixed(filters, scale, grid, columns_, limited=False)[0], hessian)
    assert (ours <= given * (1 + 1e-4)).all()
    assert ours.sum() < 0.95 * given.sum()
    assert ours.sum() < 1.15 * torch.stack(every).amin(0).sum()
    assert torch.equal(integers, fixed(filters, found, grid, columns_, limited=False)[0])


def test_where_a_layer_takes_long_a_few_factors_serve_all(monkeypatch: pytest.MonkeyPatch) -> None:
    filters, scale, grid, hessian = case(1, 60, 40, 2)
    columns = elimination(hessian)
    monkeypatch.setattr(joint, "WORK", 1)
    solution = round_jointly(filters, scale, grid, columns)
    found, integers = solution.scale, solution.integers
    factors = (found / scale).unique().tolist()
    assert len({round(factor, 3) for factor in factors}) <= 2
    assert all(min(abs(factor - one) for one in SCOUTED) < 1e-3 for factor in factors)
    given = squares(filters, scale, fixed(filters, scale, grid, columns, limited=False)[0], hessian)
    assert squares(filters, found, integers, hessian).sum() < 0.95 * given.sum()


def test_the_first_factor_for_all_is_the_best_alone_and_each_further_one_leaves_less() -> None:
    filters, scale, grid, hessian = case(1, 12, 30, 3)
    given = Filters(filters, scale, None, grid, elimination(hessian))
    errors = {
        factor: squares(
            filters, scale * factor, fixed(filters, scale * factor, grid, given.columns, limited=False)[0], hessian
        )
        for factor in SCOUTED
    }
    chosen = few_for_all(given, 3)
    assert chosen[0] == min(SCOUTED, key=lambda factor: float(errors[factor].sum()))
    second = min(SCOUTED, key=lambda factor: float(torch.minimum(errors[factor], errors[chosen[0]]).sum()))
    assert chosen[1] == second and len(set(chosen)) == 3


def test_the_least_scale_holds() -> None:
    filters, scale, grid, hessian = case(1, 8, 20, 4)
    least = torch.zeros_like(scale)
    least[0, 3] = 2 * scale[0, 3]
    found = round_jointly(filters, torch.maximum(scale, least), grid, elimination(hessian), least).scale
    assert (found >= least).all() and found[0, 3] >= 2 * scale[0, 3]


@pytest.mark.parametrize("parts", [1, 3, 8])
def test_coarse_factors_begin_with_the_scale_that_was_given(parts: int) -> None:
    factors = coarse_factors(parts)
    assert factors[0] == 1 and len(set(factors)) == 8 * parts + 1
    assert (min(factors), max(factors)) == (LEAST, MOST)
    steps = [other - one for one, other in itertools.pairwise(sorted(factors))]
    assert all(step == pytest.approx(STEP / parts, abs=1e-5) for step in steps)


@pytest.mark.parametrize("bits", [2, 3, 4, 6])
@pytest.mark.parametrize(("groups", "count", "columns"), [(1, 20, 40), (40, 1, 9)])
def test_each_filter_has_the_better_of_both_grids(bits: int, groups: int, count: int, columns: int) -> None:
    filters, scale, grid, hessian = case(groups, count, columns, bits)
    filters = filters + torch.linspace(-2, 2, groups * count).reshape(groups, count, 1)
    eliminated, own = elimination(hessian), shifted_to(filters, bits)
    found, integers = round_on_best_grid(filters, grid, eliminated)
    left = squares(filters, found, integers, hessian)
    alone = [
        squares(filters, each.scale, each.integers, hessian)
        for each in (
            round_jointly(filters, search_scales(filters, grid), grid, eliminated),
            round_jointly(filters, search_scales(filters, own), own, eliminated),
        )
    ]
    torch.testing.assert_close(left, torch.minimum(*alone), rtol=1e-3, atol=1e-6)
    assert left.sum() < 0.9 * alone[0].sum()
    assert (integers.amax(2) - integers.amin(2)).max() < 2**bits


@pytest.mark.parametrize("bits", [2, 4, 6])
def test_a_shifted_grid_reaches_from_the_least_weight_to_the_greatest_and_to_zero(bits: int) -> None:
    most = 2**bits - 1
    filters = torch.tensor([[[-1.0, 0.0], [0.5, 1.0], [-0.25, 0.75], [0.0, 0.0], [-2.0, 1.0]]])
    grid = shifted_to(filters, bits)
    assert grid.low.tolist() == [[-most, 0, -round(most / 4), 0, -round(2 * most / 3)]]
    assert torch.equal(grid.high - grid.low, torch.full((1, 5), float(most)))


def test_seven_bits_stay_around_zero() -> None:
    """There, integers that are shifted could saturate in pairs."""
    filters, _, grid, hessian = case(1, 20, 9, 7)
    _, integers = round_on_best_grid(filters + 2, grid, elimination(hessian))
    assert integers.min() >= grid.low and integers.max() <= grid.high

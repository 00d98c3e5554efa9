"""Column by column rounding against the explicit inverse and against all integers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.oracles.obq import least_error, round_by_inverse
from zeroq.errors import NumericalError
from zeroq.numbers.grid import Grid
from zeroq.rounding.filters import saturating
from zeroq.rounding.gptq import elimination, round_gptq
from zeroq.rounding.nearest import round_nearest
from zeroq.rounding.scales import search_scales


def correlated_hessian(groups: int, columns: int, seed: int) -> Tensor:
    """2 E[a a^T] of random inputs that move together, [groups, columns, columns]."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(groups, 4 * columns, columns, generator=generator)
    inputs += 2 * torch.randn(groups, 4 * columns, 1, generator=generator)
    inputs *= torch.rand(groups, 1, columns, generator=generator) + 0.1
    return 2 * inputs.transpose(1, 2) @ inputs / inputs.shape[1]


def damped(hessian: Tensor) -> Tensor:
    """One per cent of the mean diagonal added, float64."""
    added = 0.01 * torch.diagonal(hessian, dim1=1, dim2=2).mean(1)
    return hessian.double() + added[:, None, None] * torch.eye(hessian.shape[1], dtype=torch.float64)


@pytest.mark.parametrize(
    ("groups", "count", "columns", "bits"), [(1, 5, 150, 4), (3, 2, 9, 2), (40, 1, 9, 8), (1, 3, 1, 3)]
)
def test_equals_optimal_brain_quantization_by_explicit_inverse(
    groups: int, count: int, columns: int, bits: int
) -> None:
    torch.manual_seed(0)
    filters, hessian, grid = (
        torch.randn(groups, count, columns),
        correlated_hessian(groups, columns, 1),
        Grid(bits, signed=True),
    )
    scale = torch.full((groups, count), 3.0 / grid.high)
    integers = round_gptq(filters, scale, grid, elimination(hessian), limited=False)
    for group, matrix in enumerate(damped(hessian)):
        for row in range(count):
            expected = round_by_inverse(
                filters[group, row].double(), float(scale[group, row]), matrix, grid.low, grid.high
            )
            torch.testing.assert_close(integers[group, row].double(), expected, rtol=0, atol=0)


def test_lies_between_the_best_of_all_integers_and_nearest_on_average() -> None:
    torch.manual_seed(2)
    filters, hessian, grid = torch.randn(60, 1, 4), correlated_hessian(60, 4, 3), Grid(3, signed=True)
    scale = torch.full((60, 1), 0.5)
    matrices = damped(hessian)

    def errors(integers: Tensor) -> Tensor:
        missed = (filters.double() - integers.double() * 0.5)[:, 0]
        return torch.einsum("nc,ncd,nd->n", missed, matrices, missed)

    ours = errors(round_gptq(filters, scale, grid, elimination(hessian), limited=False))
    nearest = errors(round_nearest(filters, scale, grid, hessian, limited=False))
    best = torch.tensor(
        [
            least_error(row[0].double(), 0.5, matrix, grid.low, grid.high)
            for row, matrix in zip(filters, matrices, strict=True)
        ],
        dtype=torch.float64,
    )
    assert (ours >= best - 1e-9).all()
    assert best.mean() <= ours.mean() < 0.8 * nearest.mean()


def test_dead_and_linearly_dependent_columns_round_without_complaint() -> None:
    hessian = correlated_hessian(1, 8, 4)
    hessian[:, 3] = hessian[:, :, 3] = 0
    hessian[:, 5], hessian[:, :, 5] = hessian[:, 4].clone(), hessian[:, :, 4].clone()
    hessian[:, 5, 5] = hessian[:, 4, 4]
    filters, grid = torch.randn(1, 3, 8, generator=torch.Generator().manual_seed(0)), Grid(4, signed=True)
    scale = torch.full((1, 3), 0.4)
    integers = round_gptq(filters, scale, grid, elimination(hessian), limited=False)
    nearest = round_nearest(filters, scale, grid, None, limited=False)
    assert torch.equal(integers[..., 3], nearest[..., 3])


def test_no_input_at_all_is_rounding_to_nearest() -> None:
    filters, grid = torch.randn(2, 3, 7, generator=torch.Generator().manual_seed(0)), Grid(4, signed=True)
    scale = torch.full((2, 3), 0.3)
    integers = round_gptq(filters, scale, grid, elimination(torch.zeros(2, 7, 7)), limited=True)
    assert torch.equal(integers, round_nearest(filters, scale, grid, None, limited=True))


def test_an_indefinite_hessian_is_damped_more_and_in_the_end_refused() -> None:
    slightly = torch.tensor([[[1.0, 1.05], [1.05, 1.0]]])
    filters, scale, grid = torch.ones(1, 1, 2), torch.full((1, 1), 0.3), Grid(4, signed=True)
    assert torch.isfinite(round_gptq(filters, scale, grid, elimination(slightly), limited=False)).all()
    with pytest.raises(NumericalError, match="The second moments of a layer's inputs are not positive, so they cannot"):
        round_gptq(filters, scale, grid, elimination(torch.tensor([[[1.0, 9.0], [9.0, 1.0]]])), limited=False)


@pytest.mark.parametrize("columns", [8, 27, 150])
def test_the_limit_on_pairs_is_held_where_carried_errors_would_break_it(columns: int) -> None:
    grid, hessian = Grid(8, signed=True), correlated_hessian(2, columns, 5)
    filters = 1 + 0.02 * torch.randn(2, 30, columns, generator=torch.Generator().manual_seed(0))
    scale = search_scales(filters, grid, limited=True)
    assert not saturating(round_nearest(filters, scale, grid, None, limited=True)).any()
    free = round_gptq(filters, scale, grid, elimination(hessian), limited=False)
    held = round_gptq(filters, scale, grid, elimination(hessian), limited=True)
    assert saturating(free).any() and not saturating(held).any()
    assert (held - free).abs().max() < 20  # a neighbour gives way, and what it misses is carried on

"""Sums of errors within half a step, by as little as it takes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.oracles.squant import least_squares_within_half, round_by_flips
from zeroq.numbers.grid import Grid
from zeroq.rounding import round_weight
from zeroq.rounding.filters import saturating, to_filters
from zeroq.rounding.nearest import round_nearest
from zeroq.rounding.squant import round_squant

LITTLE = 1e-5  # of a step
CASES = [((6, 3, 3, 3), 1), ((8, 2, 3, 3), 2), ((6, 1, 3, 3), 6), ((5, 33, 1, 1), 1), ((4, 40), 1), ((4, 3, 5), 1)]


def errors_of(weight: Tensor, integers: Tensor, scale: Tensor) -> Tensor:
    """In steps, [out, in / groups, positions]."""
    in_steps = weight.double() / scale.double().reshape(-1, *[1] * (weight.dim() - 1))
    return (in_steps - integers.double()).reshape(*weight.shape[:2], -1)


@settings(max_examples=80, deadline=None)
@given(case=st.sampled_from(CASES), bits=st.integers(3, 8), seed=st.integers(0, 10**6))
def test_sums_of_kernels_and_filters_come_within_half_a_step(
    case: tuple[tuple[int, ...], int], bits: int, seed: int
) -> None:
    shape, groups = case
    grid = Grid(bits, signed=True)
    generator = torch.Generator().manual_seed(seed)
    # Inside the grid by a step, so that every weight may move.
    in_steps = (torch.rand(shape, generator=generator) * 2 - 1) * (grid.high - 1.5)
    filters, scale = to_filters(in_steps * 0.1, groups), torch.full((groups, shape[0] // groups), 0.1)
    positions = torch.Size(shape[2:]).numel()
    integers = round_squant(filters, scale, grid, None, False, positions)
    nearest = round_nearest(filters, scale, grid, None, False)
    assert (integers - nearest).abs().max() <= 1
    errors = (filters.double() / scale.double()[..., None] - integers).unflatten(-1, (positions, -1))
    assert errors.abs().max() < 1
    sums = errors.sum(2)  # of kernels, [groups, filters, input channels]
    assert sums.abs().max() <= 1 + LITTLE
    assert (errors.sum((2, 3)).abs() <= 0.5 + LITTLE).all()
    needed = (sums.abs() > 0.5 + LITTLE).sum(-1)  # kernels that went further, for their filter's sake
    kernels = (filters.double() / scale.double()[..., None] - nearest).unflatten(-1, (positions, -1)).sum(2)
    before = (kernels - torch.round(kernels)).sum(-1)  # of filters, once every kernel is within half a step
    assert (needed <= torch.round(before.abs()) + LITTLE).all()


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), bits=st.integers(2, 8), positions=st.sampled_from([1, 2, 5, 9]))
def test_equals_the_textbook_also_at_the_ends_of_the_grid(seed: int, bits: int, positions: int) -> None:
    grid, channels = Grid(bits, signed=True), 4
    generator = torch.Generator().manual_seed(seed)
    kernels = torch.randn(2, 3, channels, positions, generator=generator, dtype=torch.float64) * grid.high
    kernels += 0.5 * torch.rand(2, 3, 1, 1, generator=generator, dtype=torch.float64)
    filters = kernels.float().transpose(2, 3).flatten(2)
    integers = round_squant(filters, torch.ones(2, 3), grid, None, False, positions)
    found = integers.reshape(2, 3, positions, channels).transpose(2, 3)
    for group in range(2):
        for row in range(3):
            expected = round_by_flips(kernels[group, row].float().double(), grid.low, grid.high)
            torch.testing.assert_close(found[group, row].double(), expected.double(), rtol=0, atol=0)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), positions=st.integers(1, 9))
def test_one_kernel_is_the_nearest_of_all_roundings_with_such_a_sum(seed: int, positions: int) -> None:
    kernel = torch.rand(1, 1, positions, generator=torch.Generator().manual_seed(seed)) * 20 - 10
    integers = round_squant(kernel, torch.ones(1, 1), Grid(8, signed=True), None, False, positions)
    squares = float((kernel - integers).double().square().sum())
    assert squares == pytest.approx(least_squares_within_half(kernel[0, 0].double()), abs=1e-4)


def test_inputs_that_are_all_alike_give_less_error_than_from_nearest() -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(32, 16, 3, 3, generator=generator)
    missed = {}
    for method in ("nearest", "squant"):
        rounded = round_weight(weight, 4, None, method=method)
        missed[method] = (weight - rounded.dequantized()).sum((1, 2, 3)).abs().mean()
    assert missed["squant"] < 0.3 * missed["nearest"]


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("shape", [(6, 4, 3, 3), (6, 3, 3, 3), (6, 9)])
def test_pairs_at_the_limit_stay_and_others_move(shape: tuple[int, ...], sign: int) -> None:
    """Every weight lies 0.3 to 0.5 beyond an integer: all sums ask for steps away from zero."""
    generator = torch.Generator().manual_seed(0)
    integers = torch.tensor([64, 63, 62, 20])[torch.randint(4, shape, generator=generator)]
    filters = to_filters(sign * (integers + 0.3 + 0.2 * torch.rand(shape, generator=generator)), 1)
    grid, scale, positions = Grid(8, signed=True), torch.ones(1, shape[0]), torch.Size(shape[2:]).numel()
    nearest, free, held = (
        round_nearest(filters, scale, grid, None, False),
        *(round_squant(filters, scale, grid, None, limited, positions) for limited in (False, True)),
    )
    assert not saturating(nearest).any() and saturating(free).any() and not saturating(held).any()
    assert (held != nearest).any()


def test_depthwise_filters_are_single_kernels() -> None:
    weight = torch.randn(12, 1, 3, 3, generator=torch.Generator().manual_seed(3))
    rounded = round_weight(weight, 8, None, groups=12, method="squant")
    assert errors_of(weight, rounded.integers, rounded.scale).sum((1, 2)).abs().max() <= 0.5 + LITTLE

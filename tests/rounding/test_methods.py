"""Every method, through the one signature."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.oracles.obq import count_violations
from zeroq.errors import NumericalError
from zeroq.numbers.grid import Grid, shifts_of
from zeroq.rounding import METHODS, round_weight, violating_pairs

SHAPES = [
    ((6, 3, 3, 3), 1),
    ((8, 2, 3, 3), 2),
    ((6, 1, 3, 3), 6),
    ((6, 1, 3, 3), 3),
    ((5, 33, 1, 1), 1),
    ((4, 7), 1),
    ((4, 3, 5), 1),
]


def hessian_of(shape: tuple[int, ...], groups: int, seed: int) -> torch.Tensor:
    """Inputs that move together strongly, so that errors carried from column to column are large."""
    columns = torch.Size(shape[1:]).numel()
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(groups, 50, columns, generator=generator) + 3 * torch.randn(groups, 50, 1, generator=generator)
    return 2 * inputs.transpose(1, 2) @ inputs / 50


@settings(max_examples=60, deadline=None)
@given(
    case=st.sampled_from(SHAPES),
    bits=st.integers(2, 8),
    method=st.sampled_from(sorted(METHODS)),
    shift=st.sampled_from([0.0, 1.0, 5.0]),
    seed=st.integers(0, 10**6),
)
def test_integers_lie_in_the_grid_and_never_saturate(
    case: tuple[tuple[int, ...], int], bits: int, method: str, shift: float, seed: int
) -> None:
    shape, groups = case
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) + shift
    rounded = round_weight(weight, bits, hessian_of(shape, groups, seed), groups=groups, method=method)
    shifts = shifts_of(rounded.integers, bits)  # refuses what no grid holds
    assert rounded.integers.shape == weight.shape and rounded.integers.is_contiguous()
    assert method == "gptq" or not shifts.any()
    assert violating_pairs(rounded.integers, groups) == count_violations(rounded.integers, groups) == 0


@pytest.mark.parametrize("method", sorted(METHODS))
def test_without_the_limit_pairs_do_saturate(method: str) -> None:
    weight = torch.full((2, 4, 3, 3), 1.0)
    hessian = hessian_of((2, 4, 3, 3), 1, 0)
    free = round_weight(weight, 8, hessian, method=method, portable=False)
    assert violating_pairs(free.integers, 1) == count_violations(free.integers, 1) > 0
    held = round_weight(weight, 8, hessian, method=method)
    assert violating_pairs(held.integers, 1) == 0
    torch.testing.assert_close(held.dequantized(), weight, rtol=0.02, atol=0)


def test_depthwise_is_exempt_and_one_channel_with_two_filters_is_not() -> None:
    weight = torch.full((4, 1, 3, 3), 1.0)
    assert int(round_weight(weight, 8, None, groups=4, method="nearest").integers.max()) == 127
    assert int(round_weight(weight, 8, None, groups=2, method="nearest").integers.max()) == 64


@pytest.mark.parametrize("method", sorted(METHODS))
@pytest.mark.parametrize("bits", range(2, 9))
def test_weights_that_lie_on_a_grid_of_the_width_come_back(method: str, bits: int) -> None:
    grid = Grid(bits, signed=True)
    integers = torch.arange(grid.low, grid.high + 1).repeat(3, 1)
    scale = torch.tensor([0.5, 0.01, 3.0])
    hessian = 2 * torch.eye(integers.shape[1])[None]
    rounded = round_weight(integers * scale[:, None], bits, hessian, method=method, portable=False)
    torch.testing.assert_close(rounded.dequantized(), integers * scale[:, None], rtol=1e-5, atol=0)


@pytest.mark.parametrize("method", sorted(METHODS))
def test_dead_channels_keep_a_scale_that_a_bias_of_five_fits(method: str) -> None:
    weight = torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    weight[1] = 1e-9
    weight[2] = 0
    input_scale, bias = 0.02, torch.tensor([0.1, 5.0, 5.0, 0.1])
    least = bias.abs() / (2**30 * input_scale)
    rounded = round_weight(weight, 8, hessian_of((4, 3, 3, 3), 1, 0), method=method, least_scale=least)
    assert (torch.round(bias / (rounded.scale * input_scale)).abs() < 2**31).all()
    assert (rounded.scale >= least).all() and torch.isfinite(rounded.dequantized()).all()
    torch.testing.assert_close(rounded.dequantized()[1:3], torch.zeros(2, 3, 3, 3), rtol=0, atol=1e-6)
    alone = round_weight(torch.zeros(4, 3, 3, 3), 4, hessian_of((4, 3, 3, 3), 1, 0), method=method)
    assert not alone.integers.any() and torch.equal(alone.scale, torch.ones(4))


def test_numbers_that_are_none_are_named() -> None:
    weight, hessian = torch.ones(2, 3), torch.eye(3)[None]
    with pytest.raises(
        NumericalError, match="^The weight of layer 'head' holds NaN or infinity: quantize a network that"
    ):
        round_weight(weight * torch.nan, 8, hessian, name="head")
    with pytest.raises(
        NumericalError, match="^The inputs of layer 'head' hold NaN or infinity: quantize a network that"
    ):
        round_weight(weight, 8, hessian * torch.inf, name="head")


def test_gptq_leaves_less_error_than_nearest_on_average() -> None:
    ratios = []
    for seed, (shape, groups) in enumerate(SHAPES):
        weight, hessian = (
            torch.randn(shape, generator=torch.Generator().manual_seed(seed)),
            hessian_of(shape, groups, seed),
        )
        errors = []
        for method in ("gptq", "nearest"):
            rounded = round_weight(weight, 4, hessian, groups=groups, method=method)
            missed = (weight - rounded.dequantized()).movedim(1, -1).reshape(groups, shape[0] // groups, -1)
            errors.append(float(torch.einsum("gfc,gcd,gfd->", missed, hessian, missed)))
        ratios.append(errors[0] / errors[1])
    assert sum(ratios) / len(ratios) < 0.7

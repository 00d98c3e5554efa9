"""The two operators give what the grid's formulas give, and are what torch.library expects of operators."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zeroq.numbers import grid
from zeroq.numbers.operators import DEQUANTIZE, QUANTIZE_DEQUANTIZE, WEIGHT_ONLY, dequantize, quantize_dequantize


@settings(deadline=None)
@given(
    bits=st.integers(2, 8),
    scale=st.floats(2**-20, 2**10, width=32),
    share=st.floats(0, 1),
    values=st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=50),
)
def test_activations_are_rounded_as_on_the_grid(bits: int, scale: float, share: float, values: list[float]) -> None:
    high = 2**bits - 1
    zero_point = torch.tensor(round(share * high), dtype=torch.uint8)
    step, given_values = torch.tensor(scale), torch.tensor(values)
    integers = grid.quantize(given_values, step, int(zero_point), 0, high)
    expected = grid.dequantize(integers, step, int(zero_point))
    assert torch.equal(quantize_dequantize(given_values, step, zero_point, high), expected)


def test_ties_go_to_even() -> None:
    values = torch.tensor([0.5, 1.5, 2.5, -0.5])
    result = quantize_dequantize(values, torch.tensor(1.0), torch.tensor(2, dtype=torch.uint8), 15)
    assert result.tolist() == [0.0, 2.0, 2.0, 0.0]


@pytest.mark.parametrize("shape", [(3,), (3, 2), (3, 2, 1, 4)])
def test_weights_have_a_scale_for_each_output_channel(shape: tuple[int, ...]) -> None:
    integers = torch.randint(-127, 128, shape).to(torch.int8)
    scale = torch.tensor([0.5, 1.0, 2.0])
    result = dequantize(integers, scale)
    assert result.dtype == torch.float32
    for channel in range(3):
        assert torch.equal(result[channel], integers[channel].float() * scale[channel])


def test_biases_are_of_32_bits() -> None:
    assert dequantize(torch.tensor([2**24], dtype=torch.int32), torch.tensor([0.5])).tolist() == [2.0**23]


def test_inputs_stay_as_they_are() -> None:
    values = torch.tensor([0.3, 5.0])
    quantize_dequantize(values, torch.tensor(1.0), torch.tensor(0, dtype=torch.uint8), 3)
    assert values.tolist() == pytest.approx([0.3, 5.0])


def test_they_are_operators_that_can_be_exported() -> None:
    scale, zero_point = torch.tensor(0.1), torch.tensor(3, dtype=torch.uint8)
    torch.library.opcheck(QUANTIZE_DEQUANTIZE, (torch.randn(2, 3), scale, zero_point, 15))
    torch.library.opcheck(DEQUANTIZE, (torch.ones(2, 3, dtype=torch.int8), torch.ones(2)))
    torch.library.opcheck(WEIGHT_ONLY, (torch.ones(2, 3, dtype=torch.int8), torch.ones(2)))


def test_a_weight_that_is_only_stored_as_integers_stands_for_the_same_values() -> None:
    integers, scale = torch.randint(-127, 128, (3, 2, 2), dtype=torch.int8), torch.rand(3)
    assert torch.equal(WEIGHT_ONLY(integers, scale), dequantize(integers, scale))

"""Corrected biases make the mean output that of the float layer."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from zeroq.bias_correction import corrected_bias
from zeroq.errors import NumericalError


@pytest.mark.parametrize("has_bias", [True, False])
def test_the_mean_output_is_that_of_the_float_layer(has_bias: bool) -> None:
    torch.manual_seed(0)
    inputs, weight, bias = torch.rand(20, 3, 6, 6), torch.randn(4, 3, 3, 3), torch.randn(4) if has_bias else None
    coarse = torch.round(weight)
    wanted = functional.conv2d(inputs, weight, bias).mean((0, 2, 3))
    corrected = corrected_bias(bias, wanted, functional.conv2d(inputs, coarse, bias).mean((0, 2, 3)))
    torch.testing.assert_close(functional.conv2d(inputs, coarse, corrected).mean((0, 2, 3)), wanted)
    assert corrected.dtype == torch.float32


def test_means_that_are_none_and_shapes_that_differ_are_refused() -> None:
    with pytest.raises(
        NumericalError, match="^A layer's mean output is NaN or infinite: quantize a network that computes"
    ):
        corrected_bias(None, torch.tensor([math.nan]), torch.zeros(1))
    with pytest.raises(ValueError, match="per channel"):
        corrected_bias(torch.zeros(3), torch.zeros(2), torch.zeros(2))

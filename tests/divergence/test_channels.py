"""Squared errors of output channels over their variance."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from zeroq.divergence.channels import LEAST_SHARE, ChannelErrors, by_channel
from zeroq.errors import NumericalError


def literal(reference: Tensor, outputs: Tensor, axis: int) -> list[float]:
    """Channel by channel, by numpy's variance."""
    pairs = zip(reference.unbind(axis), outputs.unbind(axis), strict=True)
    return [float(((b.double() - a.double()) ** 2).mean()) / np.var(a.double().numpy()) for a, b in pairs]


def errors(*batches: tuple[object, object]) -> ChannelErrors:
    found = ChannelErrors()
    for reference, outputs in batches:
        found.add(reference, outputs)
    return found


@pytest.mark.parametrize(("shape", "axis"), [((6, 5), 1), ((6, 5, 3, 4), 1), ((6, 9, 5), 2)])
def test_equals_the_definition_over_batches(shape: tuple[int, ...], axis: int) -> None:
    reference = torch.randn(shape) * torch.arange(1, 6).reshape(
        [5 if each == axis else 1 for each in range(len(shape))]
    )
    outputs = reference + 0.1 * torch.randn(shape)
    expected = literal(reference, outputs, axis)
    found = errors((reference[:4], outputs[:4]), (reference[4:], outputs[4:]))
    assert found.channels()[0].tolist() == pytest.approx(expected, rel=1e-9)
    assert found.value() == pytest.approx(np.mean(expected), rel=1e-9)


def test_channels_are_the_second_axis_and_the_last_of_three() -> None:
    assert by_channel(torch.zeros(7)).shape == (7, 1, 1)
    assert by_channel(torch.zeros(2, 3)).shape == (2, 1, 3)
    assert by_channel(torch.zeros(2, 3, 4, 5)).shape == (2, 20, 3)
    assert by_channel(torch.zeros(2, 4200, 10)).shape == (2, 4200, 10)
    assert by_channel(torch.zeros(2, 3, 4, 5, 6)).shape == (2, 120, 3)


def test_several_outputs_count_alike() -> None:
    """However many channels each has: one channel of objectness beside 80 classes."""
    wide, narrow = torch.randn(8, 80), torch.randn(8, 1)
    moved = narrow + 0.5
    alone = errors((narrow, moved)).value()
    assert errors(((wide, {"score": narrow}), (wide, {"score": moved}))).value() == pytest.approx(alone / 2)


def test_a_constant_channel_is_not_divided_by_nothing() -> None:
    reference = torch.stack([torch.randn(1000), torch.full((1000,), 3.0)], dim=1)
    varied, constant = errors((reference, reference + 0.01)).channels()[0].tolist()
    assert varied == pytest.approx(1e-4, rel=0.2) and constant == pytest.approx(2 * varied / LEAST_SHARE, rel=0.01)
    assert errors((reference, reference)).value() == 0
    assert math.isfinite(errors((torch.zeros(3, 2), torch.zeros(3, 2))).value())


def test_whole_numbers_beside_do_not_count() -> None:
    scores = torch.randn(4, 3)
    assert errors(((scores, torch.arange(4)), (scores, torch.arange(4) + 1))).value() == 0


def test_names_whose_outputs_are_no_numbers() -> None:
    good, spoilt = torch.zeros(3, 2), torch.full((3, 2), math.nan)
    with pytest.raises(NumericalError, match="^The network's outputs are NaN or infinite for 3 of 3 images"):
        errors((good, spoilt))
    with pytest.raises(NumericalError, match="^The reference's outputs are NaN or infinite for 3 of 3 images"):
        errors((spoilt, good))

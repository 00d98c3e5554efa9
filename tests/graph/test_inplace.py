"""Assignments to slices: the captured graph is pure and gives what the module gives."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.graph.test_canonical import captured, operators
from tests.runs import QUICK
from zeroq.errors import CaptureError
from zeroq.pipeline import quantize

Change = Callable[[Tensor], Tensor]


def halved(value: Tensor) -> Tensor:
    value[:, :2] = value[:, :2] * 0.5
    return value


def emptied_columns(value: Tensor) -> Tensor:
    value[..., 0] = 0
    value[..., -1].zero_()
    value[:, 1, 2:].fill_(3.0)
    return value


def turned_round(value: Tensor) -> Tensor:
    """A cyclic shift, as of windows."""
    result = torch.zeros_like(value)
    result[:, :, 1:] = value[:, :, :-1]
    result[:, :, :1] = value[:, :, -1:]
    return result


def shifted_channels(value: Tensor) -> Tensor:
    """Of each channel another part, as networks for video shift them in time; slices of slices."""
    result = torch.empty_like(value)
    result[:, :1, :, :-1] = value[:, :1, :, 1:]
    result[:, :1, :, -1] = 0
    result[:, 1:] = value[:, 1:]
    return result


def padded(value: Tensor) -> Tensor:
    result = value.new_zeros(value.shape[0], 3, 8, 8)
    result[:, :, 2:6, 2:6] = value
    return result


def decoded(value: Tensor) -> Tensor:
    """As detectors turn what they predict into boxes."""
    value = value.permute(0, 2, 3, 1).contiguous().sigmoid()
    value[..., 0:2] = value[..., 0:2] * 2 - 0.5
    value[..., 2:3] = (value[..., 2:3] * 2) ** 2
    return value.view(value.shape[0], -1, 3)


def later_readers(value: Tensor) -> Tensor:
    """What was read before keeps the old values, what is read behind has the new ones, by another slice as well."""
    before = value[:, 0] * 1.0
    part = value[:, 0]
    part.mul_(2.0)
    part += 1
    return torch.stack([before, part, value[:, 0]], dim=1) + value[:, 0:1]


def changed_source(value: Tensor) -> Tensor:
    """What was assigned stays what it was then."""
    source = value[:, 1:2] * 2
    value[:, 0:1] = source
    source.add_(5.0)
    return torch.cat([value, source], dim=1)


def of_another_type(value: Tensor) -> Tensor:
    value[:, 0] = value[:, 1] > 0
    value[:, 1:] = value[:, :1]  # broadcast
    return value


def everything(value: Tensor) -> Tensor:
    value[:, :, ...] = value * 3
    return value


CHANGES = [
    halved, emptied_columns, turned_round, shifted_channels, padded, decoded, later_readers, changed_source,
    of_another_type, everything,
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_slices_are_assigned(change: Change) -> None:
    network = captured(lambda images, layer: change(layer(images)))
    schemas = [getattr(node.target, "_schema", None) for node in network.graph.nodes]
    assert not any(schema is not None and schema.is_mutable for schema in schemas)


@given(st.integers(-5, 5) | st.none(), st.integers(-5, 5) | st.none(), st.integers(-3, 2), st.sampled_from([2, 3]))
@settings(max_examples=15, deadline=None)
def test_any_slice_and_any_place(first: int | None, last: int | None, place: int, axis: int) -> None:
    def change(images: Tensor, layer: nn.Module) -> Tensor:
        value = layer(images)
        value[:, place % 3 : place % 3 + 1].mul_(2.0)
        rows = value if axis == 2 else value.transpose(2, 3)
        value = rows.contiguous() * 1.0
        value[:, place, first:last] *= 3.0
        return value

    captured(change)


def test_a_whole_is_put_together_from_what_lies_around() -> None:
    assert operators(captured(lambda images, layer: halved(layer(images)))) == [
        "conv2d", "slice", "mul", "slice", "cat",
    ]  # fmt: skip


def with_gaps(value: Tensor) -> Tensor:
    value[:, :, ::2] += 1.0
    return value


def test_a_slice_with_gaps_is_refused() -> None:
    with pytest.raises(CaptureError, match=r"in a way that cannot be untangled at .*: write that line without"):
        captured(lambda images, layer: with_gaps(layer(images)))


class Shifted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        return self.second(shifted_channels(self.first(images).relu())).mean((2, 3))


def test_a_network_that_assigns_slices_is_quantized() -> None:
    run = quantize(Shifted(), torch.randn(2, 3, 8, 8), **QUICK)
    assert run.result["verification"]["agreement"] == 1


@pytest.mark.parametrize(
    "empty",
    [
        lambda value: torch.empty(value.shape),
        lambda value: torch.empty(value.shape, memory_format=torch.channels_last),
        lambda value: torch.empty_strided(value.shape, (48, 16, 4, 1)),
        lambda value: value.new_empty_strided(value.shape, (48, 16, 4, 1)),
    ],
    ids=["empty", "channels last", "strided", "new strided"],
)
def test_what_is_filled_part_by_part_is_definite_before(empty: Change) -> None:
    def filled(images: Tensor, layer: nn.Module) -> Tensor:
        result = empty(images)
        result[:, :2] = images[:, :2]
        result[:, 2:] = images[:, 2:]
        return layer(result)

    assert not [name for name in operators(captured(filled)) if "empty" in name]

"""Values on disk are those that were put there, to the last bit."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some
from torch import Tensor

from zeroq.errors import RunError
from zeroq.graph.live import File, LiveValues, Room

SHAPES = some.lists(some.integers(0, 5), min_size=0, max_size=4)
TYPES = some.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.uint8, torch.bool])


@given(shape=SHAPES, kind=TYPES, seed=some.integers(0, 99), turned=some.booleans())
def test_a_tensor_comes_back_with_its_strides(shape: list[int], kind: torch.dtype, seed: int, turned: bool) -> None:
    numbers = torch.randint(0, 2, shape, generator=torch.Generator().manual_seed(seed)).to(kind)
    value = numbers.permute(list(range(numbers.dim()))[::-1]) if turned else numbers
    file = File(None)
    file.write({"value": value})
    (found,) = file.read().values()
    assert found.dtype == value.dtype and found.shape == value.shape and found.stride() == value.stride()
    assert torch.equal(found, value)


def test_nested_values_views_and_numbers_come_back() -> None:
    whole = torch.arange(24.0).reshape(4, 6)
    value = {"pair": [whole[1:3, ::2], whole[:, :1].expand(4, 3)], "count": 3, "nothing": None}
    file = File(None)
    file.write({"long": torch.zeros(1000)})
    file.write(value)
    found = file.read()
    assert found["count"] == 3 and found["nothing"] is None
    for one, other in zip(found["pair"], value["pair"], strict=True):  # type: ignore[call-overload]
        assert torch.equal(one, other) and one.stride() == other.stride()
    assert os.fstat(file.file.fileno()).st_size < 200, (
        "only what a view spans is stored, and what was longer is cut off"
    )


def test_chunks_behind_those_that_are_kept_are_on_disk(tmp_path: Path) -> None:
    values: list[dict[str, Any]] = [{"value": torch.full((2, 3), float(index))} for index in range(4)]
    live = LiveValues(values, Room(2, 1, tmp_path))
    assert [isinstance(chunk, File) for chunk in live.chunks] == [False, True, True, True]
    live[3] = {"value": torch.ones(1)}
    found: list[Tensor] = [each["value"] for each in live]
    assert torch.equal(torch.cat([each.flatten() for each in found]), torch.tensor([0.0] * 6 + [1] * 6 + [2] * 6 + [1]))
    assert live[0]["value"] is values[0]["value"]
    assert list(tmp_path.iterdir()) == [], "the files have no names"


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    file = File(tmp_path)
    with open("/dev/full", "wb", buffering=0) as file.file, pytest.raises(RunError, match="No space left"):
        file.write({"value": torch.zeros(3)})
    with pytest.raises(RunError, match="free some space there, or raise the limit"):
        File(tmp_path / "missing")

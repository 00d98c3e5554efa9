"""Safetensors with the same bytes every time."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load, save

from zeroq.errors import RunError
from zeroq.numbers.tensor_file import read_tensor_file, tensor_file_bytes

METADATA = {f"key {index}": f"value {index} äß" for index in range(9)}


def test_the_library_reads_what_was_written(tmp_path: Path) -> None:
    tensors = {"b": torch.randn(3, 2), "a": torch.arange(5, dtype=torch.int8), "empty": torch.zeros(0, 3)}
    data = tensor_file_bytes(tensors, METADATA)
    assert all(torch.equal(value, tensors[name]) for name, value in load(data).items())
    (tmp_path / "some.safetensors").write_bytes(data)
    found, metadata = read_tensor_file(tmp_path / "some.safetensors")
    assert found.keys() == tensors.keys() and metadata == METADATA
    assert int.from_bytes(data[:8], "little") % 8 == 0


def test_strided_tensors_are_written_in_their_shape() -> None:
    values = torch.randn(2, 3, 4, 4)
    strided = values.to(memory_format=torch.channels_last)
    assert tensor_file_bytes({"x": strided}) == tensor_file_bytes({"x": values})


def test_the_bytes_are_the_same_every_time() -> None:
    """The library's own order of metadata differs from call to call."""
    tensors = {"x": torch.ones(4)}
    backwards = dict(reversed(METADATA.items()))
    assert len({tensor_file_bytes(tensors, metadata) for metadata in [METADATA, backwards] * 10}) == 1
    assert len({save(tensors, METADATA) for _ in range(20)}) > 1


@pytest.mark.parametrize("data", [b"", b"not a tensor file", tensor_file_bytes({"x": torch.ones(40)})[:-7]])
def test_what_is_no_tensor_file_is_named(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "some.safetensors"
    path.write_bytes(data)
    with pytest.raises(RunError, match=r"some\.safetensors cannot be read as safetensors \(.*\): quantize again\."):
        read_tensor_file(path)
    with pytest.raises(RunError, match="cannot be read as safetensors"):
        read_tensor_file(tmp_path / "absent.safetensors")


def test_tensors_with_memory_in_common_are_written_each() -> None:
    values = torch.arange(6.0)
    read = load(tensor_file_bytes({"all": values, "some": values[:4], "same": values}))
    assert {name: value.tolist() for name, value in read.items()} == {
        "all": values.tolist(), "some": values[:4].tolist(), "same": values.tolist()
    }  # fmt: skip

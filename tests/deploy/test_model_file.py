"""model.safetensors: weights at their true width, and refusals of what is no such file. Round trips: test_onnx_file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.networks import NETWORKS, example_of
from tests.quantized import quantize
from zeroq.deploy.model_file import load_network, serialise
from zeroq.errors import RunError
from zeroq.numbers.grid import shifts_of
from zeroq.numbers.packing import packed_bytes
from zeroq.numbers.tensor_file import read_tensor_file


def written(folder: Path, bits: int = 3) -> Path:
    """A model file of a tiny network."""
    stages = quantize(NETWORKS["plain"](), example_of("plain", 4), bits, method="nearest")
    path = folder / "model.safetensors"
    path.write_bytes(serialise(stages.quantized, stages.weight_bits, {"seed": 1, "task": "classification"}))
    return path


@pytest.mark.parametrize("bits", [2, 3, 8])
def test_weights_are_stored_at_their_true_width(bits: int, tmp_path: Path) -> None:
    tensors, metadata = read_tensor_file(written(tmp_path, bits))
    sizes = {"0.0.weight": 8 * 3 * 9, "1.0.weight": 8 * 8 * 9, "4.weight": 4 * 8}
    for name, count in sizes.items():
        stored = [tensor for key, tensor in tensors.items() if key.startswith(f"{name}_integers.")]
        assert sum(tensor.numel() * tensor.element_size() for tensor in stored) == packed_bytes(count, bits)
    assert (metadata["seed"], metadata["task"]) == ("1", "classification")


def test_shifted_filters_come_back_and_take_a_byte_each(tmp_path: Path) -> None:
    stages = quantize(NETWORKS["plain"](), example_of("plain", 4), 3)
    path = tmp_path / "model.safetensors"
    path.write_bytes(serialise(stages.quantized, stages.weight_bits, {}))
    loaded, expected = load_network(path)[0].tensors(), stages.quantized.tensors()
    assert loaded.keys() == expected.keys()
    assert all(torch.equal(loaded[name], expected[name]) for name in expected)
    shifts = {name: shifts_of(expected[name], bits) for name, bits in stages.weight_bits.items()}
    tensors, _ = read_tensor_file(path)
    stored = {name.removesuffix(".shifts"): each for name, each in tensors.items() if name.endswith(".shifts")}
    assert stored and stored.keys() == {name for name, each in shifts.items() if each.any()}
    assert all(torch.equal(stored[name], shifts[name]) for name in stored)


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(RunError, match="cannot be read as safetensors .*: quantize again"):
        load_network(path)
    path.unlink()
    with pytest.raises(RunError, match="cannot be read as safetensors .*: quantize again"):
        load_network(path)


def test_safetensors_of_something_else_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file({name: tensor.clone() for name, tensor in NETWORKS["plain"]().state_dict().items()}, path)
    with pytest.raises(RunError) as error:
        load_network(path)
    assert str(error.value) == f"{path} holds no network quantized by this version of zeroq: quantize again."


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("graph", '[["call_function"]]'),
        ("graph", "not JSON"),
        ("graph", json.dumps([["call_function", "add", "aten::no_such.Tensor", [], {"dict": {}}]])),
        ("packed", json.dumps({"0.0.weight_integers": {"bits": 5, "shape": [8, 3, 3, 3]}})),
    ],
)
def test_a_damaged_file_is_refused_in_a_sentence(key: str, value: str, tmp_path: Path) -> None:
    path = written(tmp_path)
    tensors, metadata = read_tensor_file(path)
    save_file(tensors, path, {**metadata, key: value})
    with pytest.raises(RunError, match="is damaged .*: quantize again"):
        load_network(path)


def test_operators_of_other_packages_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path)
    tensors, metadata = read_tensor_file(path)
    graph = json.dumps([["call_function", "run", "os::system.default", [], {"dict": {}}]])
    save_file(tensors, path, {**metadata, "graph": graph})
    with pytest.raises(RunError) as error:
        load_network(path)
    assert str(error.value) == (
        "The saved network uses the operator os::system.default, which this version does not know."
    )

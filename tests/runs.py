"""Whole runs for tests: tiny, on one thread, and what two of them are compared by."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import onnx
import torch

import zeroq
from tests.networks import NETWORKS, example_of
from zeroq.conclusion import page
from zeroq.deploy import Verification
from zeroq.models import LoadedModel
from zeroq.models.resolve import from_module
from zeroq.pipeline import Run
from zeroq.preparation import Prepared, prepare

QUICK: dict[str, Any] = {"images": 8, "iterations": 2, "threads": 1}
QUICKLY = "--images 8 --iterations 2 --threads 1".split()
FILES = {
    "run.json", "distilled.safetensors", "ranges.json", "sensitivity.json", "frontier.json", "model.safetensors",
    "model.onnx", "result.json", "report.html",
}  # fmt: skip


def loaded(name: str) -> LoadedModel:
    """One of the tiny networks, as if it had been named on the command line."""
    return from_module(NETWORKS[name](), example_of(name), name=name)


def quick_run(name: str, **options: Any) -> Run:
    """A run of a tiny network in a temporary directory."""
    return zeroq.quantize(NETWORKS[name](), example_of(name), name=name, **QUICK | options)


@cache
def shared_run(name: str = "residual") -> Run:
    """The one run with a target that many tests look at; none may change it."""
    return quick_run(name, average_bits=4)


def contents(directory: Path) -> dict[str, Any]:
    """All files of a run: bytes, or for JSON the values, without what time and memory it took; the page likewise."""
    found: dict[str, Any] = {path.name: path.read_bytes() for path in directory.iterdir()}
    with tempfile.TemporaryDirectory() as folder:
        masked = Path(shutil.copytree(directory, Path(folder) / "run"))
        for path in masked.glob("*.json"):
            value = json.loads(path.read_bytes())
            if "seconds" in value:
                value["seconds"] = dict.fromkeys(value["seconds"], 1.0) if path.name == "result.json" else {}
            if "peak_memory_mb" in value:
                value["peak_memory_mb"] = 1.0
            path.write_text(json.dumps(value))
            found[path.name] = value
        if "report.html" in found:
            assert found["report.html"].rstrip().endswith(b"</html>")
            found["report.html"] = page(masked)
    return found


def assert_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Equal contents; names the files that differ."""
    assert one.keys() == other.keys()
    assert [name for name in one if one[name] != other[name]] == []


def remembering(function: Callable[..., Any], key: Callable[..., str]) -> Callable[..., Any]:
    """A slow, deterministic function that gives what it gave before for an equal key."""
    known: dict[str, Any] = {}

    def call(*arguments: Any) -> Any:
        name = key(*arguments)
        if name not in known:
            known[name] = function(*arguments)
        return known[name]

    return call


def sham_export(network: Any, example: Any, widths: dict[str, int], metadata: dict[str, Any]) -> onnx.ModelProto:
    """In place of export_onnx where the file is not looked at: it holds a hash of all that the file depends on."""
    tensors = {name: tensor.tolist() for name, tensor in network.tensors().items()}
    text = json.dumps([tensors, [list(value.shape) for value in example], widths, metadata])
    return onnx.ModelProto(producer_name=hashlib.sha256(text.encode()).hexdigest())


def sham_verify(model: onnx.ModelProto, network: Any, images: torch.Tensor, **_: Any) -> Verification:
    """All is well with a sham file."""
    held = frozenset(name for name in network.tensors() if name.endswith("weight_integers"))
    return Verification(len(held), 0, 0.0, 0.0, 1.0, 1.0, {"QLinearConv": len(held)}, {}, held, frozenset(), 0.01)


def prepare_key(model: LoadedModel, options: Any) -> str:
    return repr((model.name, model.source, model.weights_sha256, options))


prepare_once: Callable[[LoadedModel, Any], Prepared] = remembering(prepare, prepare_key)


def parameters(module: torch.nn.Module) -> int:
    return sum(tensor.numel() for tensor in module.parameters())

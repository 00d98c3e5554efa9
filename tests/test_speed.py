"""benchmark(): which files are timed, what is said where integers are not faster, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import zeroq.pipeline
import zeroq.speed
from tests.runs import QUICK
from zeroq.deploy.timing import Timing
from zeroq.errors import ModelError, OptionError, RunError
from zeroq.graph import as_tuple
from zeroq.models import load_model
from zeroq.options import Options
from zeroq.speed import benchmark, images_of, opened, warnings_of

SOURCE = """
import torch
from torch import nn

PREPROCESS = dict(size=(6, 6), mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4), channels="RGB")

def tiny():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(128, 5))
"""
MEDIANS = {"float": 2.0, "quantized": 1.0, "onnxruntime_static": 1.5}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file and a run of it."""
    folder = tmp_path_factory.mktemp("speed")
    (folder / "net.py").write_text(SOURCE)
    zeroq.pipeline.quantize_model(load_model(f"{folder}/net.py:tiny"), Options.of(**QUICK), folder / "run")
    return folder


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], dict[str, tuple[int, ...]]]]:
    """No test hangs on a clock: made-up times, and a note of what was to be timed."""
    asked: list[tuple[list[str], dict[str, tuple[int, ...]]]] = []

    def interleaved(sessions: Mapping[str, Any], feed: Mapping[str, Any]) -> dict[str, Timing]:
        for session in sessions.values():
            session.run(None, feed)
        asked.append((list(sessions), {name: value.shape for name, value in feed.items()}))
        return {name: Timing(MEDIANS[name], 0.5, 3.0) for name in sessions}

    monkeypatch.setattr(zeroq.speed, "interleaved", interleaved)
    return asked


def test_float_and_quantized_at_every_batch(folder: Path, timed: list[Any]) -> None:
    result = benchmark(folder / "run", batch=(1, 5), threads=1)
    assert list(result) == [
        *("cpu", "integer_instructions", "threads", "rows", "load_ms", "float_nodes", "warnings")
    ]
    assert timed == [(["float", "quantized"], {"input": (size, 3, 6, 6)}) for size in (1, 5)]
    assert [(row["file"], row["batch"], row["median_ms"]) for row in result["rows"]] == [
        ("float", 1, 2.0), ("quantized", 1, 1.0), ("float", 5, 2.0), ("quantized", 5, 1.0)
    ]  # fmt: skip
    assert result["rows"][0] == {"file": "float", "batch": 1, "median_ms": 2.0, "low_ms": 0.5, "high_ms": 3.0}
    assert result["threads"] == 1 and result["warnings"] == [] and min(result["load_ms"].values()) > 0
    json.dumps(result, allow_nan=False)


def test_onnxruntimes_own_quantization_beside_it(folder: Path, timed: list[Any]) -> None:
    result = benchmark(folder / "run", batch=(2,), threads=1, static="distilled")
    assert [row["file"] for row in result["rows"]] == ["float", "quantized", "onnxruntime_static"]


def test_slower_integers_are_said_with_what_stays_float() -> None:
    def rows(floating: float, quantized: float, batch: int) -> list[dict[str, Any]]:
        return [{"file": "float", "batch": batch, "median_ms": floating},
                {"file": "quantized", "batch": batch, "median_ms": quantized}]  # fmt: skip

    found = warnings_of(rows(1.0, 1.25, 1) + rows(9.0, 3.0, 32), {"Softmax": 1, "HardSwish": 7})
    assert found == [
        "At batch 1 the quantized file takes 1.25 ms and the float file 1 ms: in floating point it computes "
        "7 HardSwish, 1 Softmax. zeroq quantize --fastest finds layers that are faster in floating point here."
    ]
    (sentence,) = warnings_of(rows(1.0, 1.0, 1), {}, fastest=True)
    assert sentence.endswith("all of it computes in integers."), "the option was taken already"


def test_refusals(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"is no run directory, as it holds no run.json: give what --out named"):
        benchmark(tmp_path)
    half = shutil.copytree(folder / "run", tmp_path / "half")
    (half / "result.json").unlink()
    with pytest.raises(RunError, match="holds no result.json: give the directory of a finished run"):
        benchmark(half)
    (half / "result.json").write_text("[]")
    with pytest.raises(RunError, match="result.json is damaged .a list in place of an object.: quantize again"):
        benchmark(half, batch=(1,))
    shutil.copy(folder / "run" / "result.json", half)
    (half / "model.onnx").write_bytes((half / "model.onnx").read_bytes()[:500])
    with pytest.raises(ModelError, match="onnxruntime cannot load .*model.onnx .*: quantize again"):
        benchmark(half)
    bare = shutil.copytree(folder / "run", tmp_path / "bare")
    (bare / "distilled.safetensors").unlink()
    with pytest.raises(OptionError, match="keeps no distilled images: name a folder of pictures with --static FOLDER"):
        benchmark(bare, static="distilled")
    lost = shutil.copytree(folder / "run", tmp_path / "lost")
    record = json.loads((lost / "run.json").read_text())
    (lost / "run.json").write_text(json.dumps({**record, "model": "/nowhere/net.py:tiny"}))
    with pytest.raises(ModelError, match="which is not at hand: There is no file /nowhere/net.py"):
        benchmark(lost)
    (lost / "run.json").write_text(json.dumps({**record, "model": "digits", "given": None}))
    with pytest.raises(ModelError, match="not at hand: digits was quantized as a module in Python, which no command"):
        benchmark(lost)


def test_a_run_of_several_inputs_is_timed_on_inputs_in_their_own_order(tmp_path: Path, timed: list[Any]) -> None:
    class Two(nn.Module):
        """A vector first, a picture second, which their names in the file of images are not sorted by."""

        def __init__(self) -> None:
            super().__init__()
            self.picture, self.vector = nn.Conv2d(3, 4, 3), nn.Linear(5, 4)

        def forward(self, numbers: Tensor, images: Tensor) -> Tensor:
            return self.vector(numbers) + self.picture(images).mean((2, 3))

    example = torch.randn(2, 5), torch.randn(2, 3, 6, 6)
    batch = {0: torch.export.Dim("batch")}
    torch.export.save(torch.export.export(Two().eval(), example, dynamic_shapes=(batch, batch)), tmp_path / "two.pt2")
    zeroq.pipeline.quantize_model(load_model(f"{tmp_path}/two.pt2"), Options.of(**QUICK), tmp_path / "run")
    assert [tuple(each.shape[1:]) for each in images_in(tmp_path / "run")] == [(5,), (3, 6, 6)]
    result = benchmark(tmp_path / "run", batch=(3,), threads=1, static="distilled")
    assert [row["file"] for row in result["rows"]] == ["float", "quantized", "onnxruntime_static"]
    assert list(timed[0][1].values()) == [(3, 5), (3, 3, 6, 6)]


def images_in(run: Path) -> tuple[Tensor, ...]:
    """What `--static distilled` takes."""
    record, network, model = opened(run)
    return as_tuple(images_of(run, "distilled", model, network, record))

"""evaluate() of runs, files and float networks: how pictures become inputs, and which network they are held to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import save_file

import zeroq.pipeline
import zeroq.stages
from tests.runs import QUICK
from zeroq.accuracy import OtherWeightsError, evaluate
from zeroq.errors import DataError, ModelError, OptionError, RunError, ZeroqError
from zeroq.models import load_model
from zeroq.options import Options
from zeroq.preprocessing import apply_pixels

METRICS = ["top1", "top5", "standard_error"]
KEYS = ["images", "task", *METRICS, "float", "agreement", "mean_divergence", "images_per_second"]
SOURCE = """
import torch
from torch import nn

def bare():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(128, 5))

class Classes(nn.Module):
    def forward(self, scores):
        return scores.argmax(1)

def classes():
    return nn.Sequential(bare(), Classes())

class Named(nn.Module):
    def forward(self, scores):
        return {"best": scores.argmax(1), "scores": scores, "beside": None}

def named():
    return nn.Sequential(bare(), Named())

def labels():
    return nn.Sequential(bare(), nn.Sigmoid())
"""
GIVEN = {"size": [6, 6], "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4], "channels": "RGB"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file without PREPROCESS, a run of it with --preprocess, and pictures that its float network labels itself."""
    folder = tmp_path_factory.mktemp("accuracy")
    (folder / "net.py").write_text(SOURCE)
    (folder / "given.json").write_text(json.dumps(GIVEN))
    model = load_model(f"{folder}/net.py:bare", preprocess=folder / "given.json")
    zeroq.pipeline.quantize_model(model, Options.of(**QUICK), folder / "run")
    pixels = np.random.default_rng(0).integers(0, 256, (40, 6, 6, 3), dtype=np.uint8)
    mean, std = (np.array(GIVEN[name], dtype=np.float32) for name in ("mean", "std"))
    inputs = torch.from_numpy(((pixels / np.float32(255) - mean) / std).transpose(0, 3, 1, 2).copy())
    with torch.inference_mode():
        labels = model.module(inputs).argmax(1).numpy()
    np.savez(folder / "data.npz", images=pixels, labels=labels)
    return folder


def found(folder: Path, target: str, **options: Any) -> dict[str, Any]:
    return evaluate(f"{folder}/{target}", data=f"{folder}/data.npz", threads=1, **options)


def test_a_float_network_takes_preprocess(folder: Path) -> None:
    """Nothing else says what its pictures are like."""
    result = found(folder, "net.py:bare", preprocess=folder / "given.json")
    assert list(result) == KEYS and result["images"] == 40
    assert result["top1"] == 1.0 and result["agreement"] is None
    with pytest.raises(ModelError, match="give --input-shape C,H,W, or PREPROCESS"):
        found(folder, "net.py:bare")


def test_a_run_is_held_to_the_network_that_it_came_from(folder: Path) -> None:
    """Also where only --preprocess said how pictures become its input."""
    steps: list[tuple[str, int, int]] = []
    result = found(folder, "run", batch=16, on_progress=lambda *step: steps.append(step))
    assert result["agreement"] == result["top1"] >= 0.9 and 0 <= result["mean_divergence"] < 0.05
    assert steps == [("evaluate", 16, 40), ("evaluate", 32, 40), ("evaluate", 40, 40)]
    alone = found(folder, "net.py:bare", preprocess=folder / "given.json")
    assert result["float"] == {name: alone[name] for name in METRICS}
    simulated = found(folder, "run", simulation=True)
    assert abs(simulated["top1"] - result["top1"]) <= 0.05 and simulated["agreement"] == simulated["top1"]


def test_a_file_alone_is_evaluated_as_the_run_is(folder: Path) -> None:
    alone, run = found(folder, "run/model.onnx"), found(folder, "run")
    assert alone["top1"] == run["top1"] and alone["agreement"] is None and alone["mean_divergence"] is None
    held = found(folder, "run/model.onnx", reference=f"{folder}/net.py:bare", preprocess=folder / "given.json")
    assert held["agreement"] == run["agreement"]


def test_a_run_on_pictures_of_other_channels_than_its_file_says(folder: Path, tmp_path: Path) -> None:
    """The preprocessing of the run is that of --preprocess, whatever PREPROCESS of the file is."""
    colours = {"size": (6, 6), "mean": (0.5,) * 3, "std": (0.5,) * 3, "channels": "RGB"}
    (tmp_path / "grey.py").write_text(
        f"import torch\nfrom torch import nn\nPREPROCESS = {colours}\ndef grey():\n    torch.manual_seed(0)\n"
        "    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(128, 5))\n"
    )
    (tmp_path / "given.json").write_text(json.dumps({"size": [6, 6], "mean": [0.5], "std": [0.2], "channels": "L"}))
    model = load_model(f"{tmp_path}/grey.py:grey", preprocess=tmp_path / "given.json")
    zeroq.pipeline.quantize_model(model, Options.of(**QUICK), tmp_path / "run")
    with np.load(folder / "data.npz") as data:
        np.savez(tmp_path / "data.npz", images=data["images"][..., :1], labels=data["labels"])
    result = evaluate(str(tmp_path / "run"), data=f"{tmp_path}/data.npz", threads=1)
    assert result["agreement"] >= 0.8 and set(result["float"]) == set(METRICS)


def test_what_a_file_of_another_tool_says_by_our_names_is_not_believed(folder: Path, tmp_path: Path) -> None:
    model = onnx.load(folder / "run" / "model.onnx")
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, {"task": "classify", "ignore": "none"})
    onnx.save(model, tmp_path / "other.onnx")
    result = evaluate(
        f"{tmp_path}/other.onnx", data=f"{folder}/data.npz", threads=1, preprocess=folder / "given.json"
    )
    assert result["task"] == "classification" and result["top1"] == found(folder, "run")["top1"]


def test_another_preprocessing_takes_its_place(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "dark.json").write_text(json.dumps(GIVEN | {"mean": [9.0, 9.0, 9.0]}))
    assert found(folder, "run", preprocess=tmp_path / "dark.json")["top1"] < 0.9
    (tmp_path / "large.json").write_text(json.dumps(GIVEN | {"size": [9, 9]}))
    with pytest.raises(DataError, match=r"takes inputs \[.*, 3, 6, 6\] and was given \[.*3, 9, 9\]"):
        found(folder, "run", preprocess=tmp_path / "large.json")


def test_a_reference_of_other_weights_is_refused(folder: Path, tmp_path: Path) -> None:
    state = load_model(f"{folder}/net.py:bare", input_shape=(3, 6, 6)).module.state_dict()
    save_file({name: value + 1 for name, value in state.items()}, tmp_path / "other.safetensors")
    said = "has other weights than the run was made from: give the same with --weights"
    with pytest.raises(OtherWeightsError, match=said):
        found(folder, "run", weights=tmp_path / "other.safetensors")


def test_a_run_whose_network_is_gone_is_evaluated_without(folder: Path, tmp_path: Path) -> None:
    record = json.loads((folder / "run" / "run.json").read_bytes())
    moved = tmp_path / "run"
    moved.mkdir()
    (moved / "model.onnx").write_bytes((folder / "run" / "model.onnx").read_bytes())
    (moved / "run.json").write_text(json.dumps(record | {"model": "gone.py:bare"}))
    warnings: list[str] = []
    result = evaluate(str(moved), data=f"{folder}/data.npz", threads=1, on_warning=warnings.append)
    assert result["agreement"] is None and result["top1"] >= 0.9
    (warning,) = warnings
    assert "The float network gone.py:bare is not found from here, so agreement with it is not measured" in warning
    (moved / "run.json").write_text(json.dumps(record | {"model": "network", "given": None}))  # a module in Python
    warnings.clear()
    evaluate(str(moved), data=f"{folder}/data.npz", threads=1, on_warning=warnings.append)
    assert warnings == []


def test_weights_that_cannot_be_read_or_belong_to_nothing_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="gone"):
        found(folder, "run", weights=tmp_path / "gone.safetensors")
    with pytest.raises(OptionError, match="--weights are those of a float network: name it with --reference"):
        found(folder, "run/model.onnx", weights=tmp_path / "gone.safetensors")


def test_what_cannot_be_evaluated(folder: Path, tmp_path: Path) -> None:
    for target, options, error, part in (
        ("net.py:bare", {"simulation": True}, OptionError, "--simulation is about a run"),
        ("gone.onnx", {}, ZeroqError, "gone.onnx is not there"),
        ("run", {"reference": "nothing"}, ModelError, "There is no model 'nothing'"),
    ):
        with pytest.raises(error, match=part):
            found(folder, target, **options)
    with pytest.raises(RunError, match="is no run directory, as it holds no run.json: give what --out named."):
        evaluate(str(tmp_path), data="digits")


def test_outputs_of_integers_and_of_nothing_stand_beside_numbers(folder: Path, tmp_path: Path) -> None:
    model = load_model(f"{folder}/net.py:named", preprocess=folder / "given.json")
    zeroq.pipeline.quantize_model(model, Options.of(**QUICK), tmp_path / "run")
    with np.load(folder / "data.npz") as data:
        inputs = apply_pixels(data["images"], model.picture())
        with torch.inference_mode():
            np.savez(tmp_path / "data.npz", images=data["images"], targets=model.module(inputs)["scores"].numpy())
    result = evaluate(str(tmp_path / "run"), data=f"{tmp_path}/data.npz", threads=1)
    assert result["task"] == "regression" and 0 < result["nmse"] < 0.1
    assert result["agreement"] == pytest.approx(1 - result["nmse"], abs=1e-3)


def test_a_task_is_guessed_as_it_is_for_quantizing(folder: Path, tmp_path: Path) -> None:
    """Behind a sigmoid stand labels of which none wins."""
    model = load_model(f"{folder}/net.py:labels", preprocess=folder / "given.json")
    with np.load(folder / "data.npz") as data:
        np.savez(tmp_path / "data.npz", images=data["images"], targets=np.eye(5, dtype=np.float32)[data["labels"]])
    said: list[str] = []
    result = evaluate(
        f"{folder}/net.py:labels", data=f"{tmp_path}/data.npz", preprocess=folder / "given.json", on_warning=said.append
    )
    quantized = zeroq.pipeline.quantize_model(model, Options.of(**QUICK), tmp_path / "run").result
    assert result["task"] == quantized["task"] == "regression"
    assert len(said) == 1 and "numbers to be met (regression)" in said[0]


def test_a_network_that_gives_classes_alone_is_refused(folder: Path) -> None:
    with pytest.raises(ModelError, match="^The network gives int64 alone: let it return the numbers that these are"):
        found(folder, "net.py:classes", preprocess=folder / "given.json")

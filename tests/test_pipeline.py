"""The whole path: what a run gives, how it goes on after an interruption, what a changed option computes again."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

import zeroq
import zeroq.candidates
import zeroq.channels
import zeroq.conclusion
import zeroq.pipeline
import zeroq.stages
from tests.networks import NETWORKS, block, classifier, example_of
from tests.runs import (
    FILES,
    QUICK,
    assert_same,
    contents,
    loaded,
    parameters,
    prepare_once,
    quick_run,
    sham_export,
    sham_verify,
    shared_run,
)
from zeroq.deploy.model_file import load_network
from zeroq.errors import OptionError, RunError, SizeError
from zeroq.forecast import forecast
from zeroq.options import Options
from zeroq.pipeline import Run, quantize_model
from zeroq.precision import Precision
from zeroq.whole_files import read_json

SECONDS = ["capture", "distill", "ranges", "sensitivity", "allocate", "rounding", "export", "verify", "report", "load"]
RESULT_KEYS = [
    "version", "model", "task", "seed", "effort", "device", "cpu", "precision", "float_bytes", "weight_bytes",
    "other_bytes", "onnx_bytes", "average_bits", "compression", "bounds", "layers", "not_quantized", "divergence",
    "forecast", "verification", "integer_nodes", "float_nodes", "integer_share", "seconds", "peak_memory_mb",
    "predicted_memory_mb", "warnings",
]  # fmt: skip
TARGETED = {**QUICK, "average_bits": 4}


def simulated_and_run(run: Run, images: torch.Tensor) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Outputs of the simulation and of the file in onnxruntime."""
    session = onnxruntime.InferenceSession(run.directory / "model.onnx", providers=["CPUExecutionProvider"])
    with torch.inference_mode():
        return run.model(images).numpy(), session.run(None, {session.get_inputs()[0].name: images.numpy()})[0]


# What a run gives


def test_a_run_leaves_every_file_and_all_keys() -> None:
    run = shared_run()
    assert {path.name for path in run.directory.iterdir()} == FILES
    result = run.result
    assert list(result) == RESULT_KEYS
    assert result == read_json(run.directory / "result.json")
    assert list(result["seconds"]) == SECONDS and all(value is not None for value in result["seconds"].values())
    assert list(result["divergence"]) == ["mean", "agreement", "images"] and result["divergence"]["images"] == 2
    assert list(result["verification"]) == [
        "compared", "largest_steps", "share_over_one_step", "agreement", "optimised_equals_plain",
    ]  # fmt: skip
    for layer in result["layers"]:
        assert list(layer) == [
            "name", "operator", "parameters", "multiply_accumulates", "weight_bits", "activation_bits", "sensitivity",
            "rounding",
        ]  # fmt: skip
        assert list(layer["sensitivity"]) == ["2", "4", "8"]
    assert result["forecast"] == forecast("classification", result["divergence"])
    assert (result["model"], result["task"]) == ("residual", "classification")


def test_every_json_file_says_what_it_should() -> None:
    files = {path.stem: json.loads(path.read_bytes()) for path in shared_run().directory.glob("*.json")}
    assert set(files) == {"run", "ranges", "sensitivity", "frontier", "result"}
    record = files["run"]
    assert record["options"] == Options.of(**TARGETED).to_dict()
    assert Options.of(**record["options"]) == Options.of(**TARGETED)
    assert set(record["versions"]) == {"zeroq", "torch", "onnxruntime", "python"}
    assert set(record["precision"]) == {"dtype", "layout"} and record["input_shape"] == [3, 8, 8]
    assert files["sensitivity"]["widths"] == [2, 4, 8]
    assert {entry["source"] for entry in files["ranges"]["quantizers"].values()} == {"distilled"}
    frontier = files["frontier"]
    assert frontier["limit"] == {"average_bits": 4} and frontier["chosen"] in frontier["candidates"]
    assert frontier["chosen"]["bits"] == {layer["name"]: layer["weight_bits"] for layer in files["result"]["layers"]}


def test_the_figures_agree_with_each_other() -> None:
    run = shared_run()
    result, module = run.result, NETWORKS["residual"]()
    weights = {layer["name"]: layer["parameters"] for layer in result["layers"]}
    bits = sum(layer["parameters"] * layer["weight_bits"] for layer in result["layers"])
    assert result["average_bits"] == bits / sum(weights.values()) <= 4
    assert result["compression"] == 32 / result["average_bits"]
    assert bits / 8 <= result["weight_bytes"] <= bits / 8 + len(weights)
    assert result["float_bytes"] == 4 * parameters(module)
    assert result["onnx_bytes"] == (run.directory / "model.onnx").stat().st_size
    assert result["integer_share"] == 1 and result["float_nodes"] == {}
    assert result["integer_nodes"]["QLinearConv"] == 3
    assert result["verification"]["largest_steps"] <= 1


def test_the_quantized_network_is_what_the_file_computes() -> None:
    images = example_of("residual", images=16, seed=5)
    simulated, computed = simulated_and_run(shared_run(), images)
    assert np.abs(simulated - computed).max() <= 0.05 * np.abs(simulated).max()
    assert (simulated.argmax(1) == computed.argmax(1)).all()
    with torch.inference_mode():
        reference = NETWORKS["residual"]()(images).numpy()
    assert np.corrcoef(reference.ravel(), computed.ravel())[0, 1] > 0.95


def test_the_file_says_where_it_came_from() -> None:
    """Preprocessing is stored, so that nobody has to guess it (timm 2463)."""
    run = shared_run()
    model = onnx.load(run.directory / "model.onnx")
    stored = {entry.key: entry.value for entry in model.metadata_props}
    record = read_json(run.directory / "run.json")
    text = json.dumps(stored)
    for key in ("version", "task", "seed", "preprocess", "bits"):
        assert key in text
    preprocess = next(json.loads(value) for key, value in stored.items() if key.endswith("preprocess"))
    assert preprocess == record["preprocess"]
    _, metadata = load_network(run.directory / "model.safetensors")
    assert json.loads(metadata["preprocess"]) == record["preprocess"]


def test_a_run_can_be_saved_once(tmp_path: Path) -> None:
    run = shared_run()
    saved = run.save(tmp_path / "kept")
    assert contents(saved) == contents(run.directory)
    with pytest.raises(RunError) as caught:
        run.save(saved)
    assert str(caught.value) == f"{saved} is there already: name a directory that does not exist yet."


def test_a_run_that_cannot_be_saved_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: Path, target: Path) -> None:
        target.mkdir()
        (target / "model.onnx").write_bytes(b"half")
        raise shutil.Error([("model.onnx", str(target), "No space left on device")])

    run = shared_run()
    with monkeypatch.context() as broken, pytest.raises(RunError) as caught:
        broken.setattr(shutil, "copytree", full)
        run.save(tmp_path / "kept")
    said = f"The run cannot be saved to {tmp_path / 'kept'} (No space left on device): name another directory."
    assert str(caught.value) == said and not list(tmp_path.iterdir())
    run.save(tmp_path / "kept")


def test_a_module_as_it_is_with_options_as_keywords(tmp_path: Path) -> None:
    """Patterns, floats, layers of their own width, a preprocessing, a directory."""
    seen: list[str] = []
    run = zeroq.quantize(
        classifier(block(1, 8), block(8, 8)).eval(), torch.rand(1, 1, 6, 6), out=tmp_path / "run", name="mine",
        preprocess={"size": (6, 6), "mean": (0.5,), "std": (0.25,), "channels": "L"}, task="classification",
        on_progress=lambda stage, done, total: seen.append(stage), weight_bits=4,
        layer_bits={"1.*": 3}, keep_float="0.*", keep_images=False, **QUICK,
    )  # fmt: skip
    assert run.directory == tmp_path / "run"
    assert {path.name for path in run.directory.iterdir()} == FILES - {"distilled.safetensors"}
    assert [(layer["name"], layer["weight_bits"]) for layer in run.result["layers"]] == [("1.0", 3), ("4", 8)]
    assert {"name": "0.0", "reason": "kept in floating point as asked"} in run.result["not_quantized"]
    assert run.result["integer_share"] < 1
    assert [warning[:59] for warning in run.result["warnings"]] == [
        "16 of 16 BatchNorm channels have the mean 0 and the varianc"
    ]
    assert b"data:image/png" not in (run.directory / "report.html").read_bytes()
    assert list(dict.fromkeys(seen)) == ["capture", "distill", "ranges", "allocate", "rounding", "export", "verify"]


def test_what_an_option_cannot_be_is_said_before_the_module_is_looked_at() -> None:
    with pytest.raises(OptionError, match="There is no option 'average_bit': did you mean 'average_bits'"):
        zeroq.quantize(nn.Linear(1, 1), torch.zeros(1), average_bit=4)


# Interruptions

Quantize = Callable[..., Run]
MEASURED = Precision(torch.float32, True)


@pytest.fixture
def quantize(quantize_to_file: Quantize, monkeypatch: pytest.MonkeyPatch) -> Quantize:
    """The same with a sham file, for what is not about the file."""
    monkeypatch.setattr(zeroq.stages, "export_onnx", sham_export)
    monkeypatch.setattr(zeroq.stages, "verify", sham_verify)
    return quantize_to_file


@pytest.fixture
def quantize_to_file(monkeypatch: pytest.MonkeyPatch) -> Quantize:
    """quantize_model() on a tiny network, captured once for equal options, in a precision that no clock decides."""
    monkeypatch.setattr(zeroq.pipeline, "prepare", prepare_once)
    monkeypatch.setattr(zeroq.stages, "choose_precision", lambda *_: (MEASURED, {"fp32 channels-last": 0.5}))
    model = loaded("residual")

    def run(out: Path, fresh: bool = False, **options: Any) -> Run:
        return quantize_model(model, Options.of(**TARGETED | options), out, fresh=fresh)

    return run


def test_a_size_that_is_refused_leaves_the_finished_run(quantize_to_file: Quantize, tmp_path: Path) -> None:
    quantize_to_file(tmp_path / "run")
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    with pytest.raises(SizeError, match="cannot be reached, the smallest file has"):
        quantize_to_file(tmp_path / "run", average_bits=None, size_mb=1e-6)
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before


def test_a_run_knows_when_its_directory_holds_another(quantize_to_file: Quantize, tmp_path: Path) -> None:
    first = quantize_to_file(tmp_path / "run")
    second = quantize_to_file(tmp_path / "run", average_bits=3)
    assert second.model is not None
    for use in (lambda: first.model, lambda: first.save(tmp_path / "kept")):
        with pytest.raises(RunError, match="holds another run by now: give each its own directory with out="):
            use()
    assert not (tmp_path / "kept").exists()


def test_another_network_is_refused_the_directory(quantize_to_file: Quantize, tmp_path: Path) -> None:
    run = quantize_to_file(tmp_path / "run")
    record = read_json(run.directory / "run.json")
    changed = json.dumps(record | {"model": "other.py:make", "weights_sha256": "0"})
    (run.directory / "run.json").write_text(changed)
    with pytest.raises(RunError, match="holds a run of another network, other.py:make: name another directory with"):
        quantize_to_file(tmp_path / "run")
    assert (run.directory / "run.json").read_text() == changed and (run.directory / "model.onnx").exists()
    assert quantize_to_file(tmp_path / "run", fresh=True).result["model"] == "residual"
    (run.directory / "run.json").write_text(json.dumps(record | {"model": "elsewhere/net.py:make"}))
    quantize_to_file(tmp_path / "run")  # the same weights by another path


def test_without_images_held_out_the_figures_are_said_to_be_too_good(
    quantize_to_file: Quantize, tmp_path: Path
) -> None:
    sentence = "Of fewer than 4 images none is held out"
    assert sentence in " ".join(quantize_to_file(tmp_path / "few", images=3).result["warnings"])
    assert sentence not in " ".join(quantize_to_file(tmp_path / "more", images=4).result["warnings"])


def interrupt(monkeypatch: pytest.MonkeyPatch, module: Any, name: str, at: int, after: bool = False) -> list[int]:
    """Ctrl-C at the call number `at` of a function, before or after its work; gives a list that grows by one a call."""
    function, calls = getattr(module, name), []  # type: ignore[var-annotated]

    def call(*arguments: Any, **named: Any) -> Any:
        calls.append(len(calls))
        if len(calls) == at and not after:
            raise KeyboardInterrupt
        value = function(*arguments, **named)
        if len(calls) == at:
            raise KeyboardInterrupt
        return value

    monkeypatch.setattr(module, name, call)
    return calls


def test_a_run_interrupted_at_any_file_ends_with_the_same_bytes(
    quantize: Quantize, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the file takes its place and after it, by turns; what follows a stage's file is run.json."""
    with monkeypatch.context() as patch:
        calls = interrupt(patch, os, "replace", 0)
        quantize(tmp_path / "whole")
    expected = contents(tmp_path / "whole")
    assert len(calls) >= len(FILES)
    for at in range(1, len(calls) + 1):
        out = tmp_path / str(at)
        with monkeypatch.context() as patch:
            interrupt(patch, os, "replace", at, after=at % 2 == 0)
            with pytest.raises(KeyboardInterrupt):
                quantize(out)
        assert not list(out.glob(".*")), "a part of a file is left"
        quantize(out)
        assert_same(contents(out), expected)


INSIDE = [
    (zeroq.stages, name)
    for name in (
        *("choose_precision", "distill", "measure_sensitivity", "select", "serialise", "export_onnx", "verify"),
    )
] + [
    (zeroq.channels, "helpful_factors"),
    *((zeroq.candidates, name) for name in ("round_weights", "divergence_of")),
    *((zeroq.conclusion, name) for name in ("render", "compare")),
]


def test_a_run_interrupted_in_any_stage_ends_with_the_same_bytes(
    quantize: Quantize, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quantize(tmp_path / "whole")
    expected = contents(tmp_path / "whole")
    for module, name in INSIDE:
        out = tmp_path / f"{module.__name__}-{name}"
        with monkeypatch.context() as patch:
            interrupt(patch, module, name, 1)
            with pytest.raises(KeyboardInterrupt):
                quantize(out)
        quantize(out)
        assert_same(contents(out), expected)


# What is computed again

COMPUTING = ("distill", "helpful_factors", "measure_sensitivity", "select", "serialise", "export_onnx")


@pytest.fixture
def computed(quantize: Quantize, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the stages' functions, as they are called."""
    names: list[str] = []
    where = dict.fromkeys(COMPUTING, zeroq.stages) | {"helpful_factors": zeroq.channels}

    def noting(name: str) -> Callable[..., Any]:
        function = getattr(where[name], name)

        def call(*arguments: Any, **named: Any) -> Any:
            names.append(name)
            return function(*arguments, **named)

        return call

    for name in COMPUTING:
        monkeypatch.setattr(where[name], name, noting(name))
    return names


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, ""),
        ({"effort": "fast"}, ""),  # with images and iterations given it means nothing
        ({"seed": 1}, "distill helpful_factors measure_sensitivity select serialise export_onnx"),
        ({"images": 9}, "distill helpful_factors measure_sensitivity select serialise export_onnx"),
        ({"input_mean": (0.5, 0.4, 0.3), "input_std": (0.2, 0.2, 0.2)},
         "distill helpful_factors measure_sensitivity select serialise export_onnx"),
        ({"activation_bits": 6}, "helpful_factors measure_sensitivity select serialise export_onnx"),
        ({"sensitivity": "kl"}, "measure_sensitivity select serialise export_onnx"),
        ({"layer_bits": {"stem*": 8}}, "measure_sensitivity select serialise export_onnx"),
        ({"average_bits": 5}, "select serialise export_onnx"),
        ({"bit_operations": 0.0025}, "select serialise export_onnx"),
        ({"average_bits": None, "compression": 8}, "select serialise export_onnx"),
        ({"keep_images": False}, "distill"),
        ({"fresh": True}, "distill helpful_factors measure_sensitivity select serialise export_onnx"),
    ],
    ids=str,
)  # fmt: skip
def test_only_what_depends_on_a_change_is_computed_again(
    change: dict[str, Any], expected: str, quantize: Quantize, computed: list[str], tmp_path: Path
) -> None:
    quantize(tmp_path / "run")
    computed.clear()
    quantize(tmp_path / "run", **change)
    assert computed == expected.split()
    quantize(tmp_path / "fresh", **change)
    assert_same(contents(tmp_path / "run"), contents(tmp_path / "fresh"))


def test_a_finished_run_is_verified_and_nothing_else(
    quantize: Quantize, computed: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = quantize(tmp_path / "run")
    stamps = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("run/model.*")}
    computed.clear()
    calls = interrupt(monkeypatch, zeroq.stages, "verify", 0)
    again = quantize(tmp_path / "run")
    assert computed == [] and len(calls) == 1
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("run/model.*")} == stamps
    assert {**first.result["seconds"], "verify": 0, "report": 0, "load": 0} == {
        **again.result["seconds"], "verify": 0, "report": 0, "load": 0,
    }  # fmt: skip


def test_what_is_found_damaged_is_computed_again(quantize: Quantize, computed: list[str], tmp_path: Path) -> None:
    quantize(tmp_path / "run")
    expected = contents(tmp_path / "run")
    (tmp_path / "run" / "model.onnx").write_bytes(b"")
    (tmp_path / "run" / "ranges.json").unlink()
    computed.clear()
    quantize(tmp_path / "run")
    assert computed == ["helpful_factors", "export_onnx"]
    assert_same(contents(tmp_path / "run"), expected)


def test_files_of_another_format_are_written_again(
    quantize: Quantize, computed: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(zeroq.stages, "FORMAT", "zeroq 1")
        quantize(tmp_path / "run")
    computed.clear()
    quantize(tmp_path / "run")
    assert computed == ["serialise", "export_onnx"]


def test_an_interrupted_run_shows_no_result_of_an_earlier_one(
    quantize: Quantize, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quantize(tmp_path / "run")
    interrupt(monkeypatch, zeroq.channels, "helpful_factors", 1)
    with pytest.raises(KeyboardInterrupt):
        quantize(tmp_path / "run", seed=1)
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"run.json", "distilled.safetensors"}


def test_equal_weights_in_another_network_are_another_network(quantize: Quantize, tmp_path: Path) -> None:
    """A stride is no weight."""
    model = loaded("plain")
    for stride in (1, 2):
        torch.manual_seed(0)
        network = classifier(block(3, 8, stride=stride)).eval()
        other = replace(model, module=network, weights_sha256="the same", name=f"stride{stride}")
        run = quantize_model(other, Options(**QUICK), tmp_path / "run")
        with torch.inference_mode():
            images = torch.rand(4, 3, 8, 8)
            assert (run.model(images) - network(images)).abs().max() < 0.05
        assert run.result["layers"][0]["multiply_accumulates"] == 8 * 27 * (8 // stride) ** 2


def test_files_say_the_name_under_which_the_network_was_given_last(quantize: Quantize, tmp_path: Path) -> None:
    for name in ("first", "second"):
        quantize_model(replace(loaded("one_convolution"), source=name), Options(**QUICK), tmp_path / "r")
    assert load_network(tmp_path / "r" / "model.safetensors")[1]["model"].strip('"') == "second"


def test_one_seed_gives_the_same_bytes_and_another_one_other_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zeroq.stages, "choose_precision", lambda *_: (MEASURED, {}))
    runs = [quick_run("one_convolution", seed=3, average_bits=4) for _ in range(2)]
    one, same = (contents(run.directory) for run in runs)
    assert_same(one, same)
    monkeypatch.setattr(zeroq.stages, "export_onnx", sham_export)
    monkeypatch.setattr(zeroq.stages, "verify", sham_verify)
    other = quick_run("one_convolution", seed=4, average_bits=4)
    assert one["distilled.safetensors"] != (other.directory / "distilled.safetensors").read_bytes()


# Targets


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"average_bits": 2, "edge_bits": 8},
            "An average of 2 bits cannot be reached, the smallest setting has 3.07: ask for --average-bits 3.07 or "
            "more, or allow fewer bits in --weight-bits, --edge-bits or --layer-bits.",
        ),
        (
            {"average_bits": None, "compression": 16, "weight_bits": (4, 8)},
            "A compression of 16 cannot be reached, the smallest setting has 8: ask for --compression 8 or less, or "
            "allow fewer bits in --weight-bits, --edge-bits or --layer-bits.",
        ),
    ],
    ids=["average_bits", "compression"],
)
def test_an_impossible_target_is_refused_before_anything_is_written(
    options: dict[str, Any], sentence: str, quantize: Quantize, tmp_path: Path
) -> None:
    with pytest.raises(SizeError) as caught:
        quantize(tmp_path / "run", **options)
    assert str(caught.value) == sentence
    assert not (tmp_path / "run").exists()


def test_an_impossible_size_names_one_that_is_possible(quantize_to_file: Quantize, tmp_path: Path) -> None:
    """Before anything is written, and it is one that the run then keeps to."""
    quantize, widths = quantize_to_file, (4, 8)
    with pytest.raises(SizeError, match="0.001 MB cannot be reached, the smallest file has .* MB, of which") as caught:
        quantize(tmp_path / "run", average_bits=None, size_mb=0.001, weight_bits=widths)
    assert not (tmp_path / "run").exists()
    least = float(str(caught.value).split("--size-mb ")[1].split()[0])
    run = quantize(tmp_path / "run", average_bits=None, size_mb=least, weight_bits=widths)
    assert run.result["onnx_bytes"] <= least * 1e6
    assert run.result["average_bits"] < 5


@pytest.mark.parametrize("options", [{"average_bits": 2}, {"average_bits": 3.1}, {"compression": 5.5}], ids=str)
def test_a_target_holds(options: dict[str, Any], quantize: Quantize, tmp_path: Path) -> None:
    result = quantize(tmp_path / "run", **{"average_bits": None, **options}).result
    assert result["average_bits"] <= options.get("average_bits", 8)
    assert result["compression"] >= options.get("compression", 4)


def test_two_bits_of_everything_run_in_integers(quantize_to_file: Quantize, tmp_path: Path) -> None:
    run = quantize_to_file(tmp_path / "run", average_bits=None, weight_bits=2, activation_bits=2, edge_bits="same")
    assert run.result["verification"] == {
        "compared": sum(run.result["integer_nodes"].values()),
        "largest_steps": run.result["verification"]["largest_steps"], "share_over_one_step": 0.0, "agreement": 1.0,
        "optimised_equals_plain": 1.0,
    }  # fmt: skip
    assert run.result["integer_share"] == 1 and run.result["float_nodes"] == {}


@pytest.mark.parametrize("bits", range(2, 9))
def test_every_width_of_weights_and_activations(bits: int, quantize: Quantize, tmp_path: Path) -> None:
    run = quantize(tmp_path / "run", average_bits=None, weight_bits=bits, activation_bits=bits, edge_bits="same")
    assert {layer["weight_bits"] for layer in run.result["layers"]} == {bits}
    assert [layer["activation_bits"] for layer in run.result["layers"]] == [8, bits, bits, bits]
    assert run.result["average_bits"] == bits and run.result["integer_share"] == 1
    assert read_json(run.directory / "sensitivity.json")["layers"] == {}
    widths = json.loads(load_network(run.directory / "model.safetensors")[1]["bits"])
    assert set(widths.values()) == {bits}


def test_edges_are_8_bits_wide_unless_said_otherwise(quantize: Quantize, tmp_path: Path) -> None:
    uniform = quantize(tmp_path / "run", average_bits=None, weight_bits=4, activation_bits=4).result["layers"]
    assert [(layer["weight_bits"], layer["activation_bits"]) for layer in uniform] == [(8, 8), (4, 4), (4, 4), (8, 8)]


@pytest.mark.parametrize("count", [1, 3])
def test_few_images_suffice(count: int, quantize: Quantize, tmp_path: Path) -> None:
    result = quantize(tmp_path / "run", images=count).result
    assert result["divergence"]["images"] == count


def test_without_the_limit_on_pairs(quantize: Quantize, tmp_path: Path) -> None:
    run = quantize(tmp_path / "run", average_bits=None, portable=False)
    weights = run.model.tensors()["stem.0.weight_integers"]  # type: ignore[operator]
    assert weights.abs().amax((1, 2, 3)).min() == 127

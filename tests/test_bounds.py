"""Bounds beside size, as limits and in whole runs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest

from tests.runs import loaded, quick_run
from zeroq.bounds import Limits, limits_of
from zeroq.errors import SizeError
from zeroq.numbers.tensor_file import read_tensor_file
from zeroq.numbers.values import Latencies
from zeroq.options import Options
from zeroq.preparation import prepare
from zeroq.setting import LayerPlan
from zeroq.terminal import run_rows
from zeroq.whole_files import read_json

STEM, BODY, HEAD = 64 * 8 * 27, 64 * 8 * 72, 4 * 8  # multiply-accumulates of the network "residual"


def test_limits_are_those_that_were_asked_for() -> None:
    prepared = prepare(loaded("residual"), Options.of(average_bits=4, bit_operations=0.003))

    def limits(other: int | None, **asked: float) -> Limits:
        return limits_of(prepared.plan, Options.of(**asked), other, prepared.memory)

    assert limits(0, average_bits=4, bit_operations=0.003) == Limits(4 * 1400, 3_000_000)
    assert limits(300, size_mb=0.001) == Limits(700 * 8, None)
    assert limits(None, size_mb=0.000001) == Limits(None, None)
    assert limits(None, activation_mb=0.002) == Limits(None, None, 16000)


def test_a_latency_limits_the_layers_once_it_is_measured_and_where_they_differ() -> None:
    options = Options.of(latency_ms=0.3, bit_operations=0.01, activation_bits=(4, 8), edge_bits="same")
    prepared = prepare(loaded("residual"), options)
    plan, inputs = prepared.plan, prepared.plan.inputs
    assert limits_of(plan, options, None, prepared.memory).latency is None

    def plan_with(less: int) -> LayerPlan:
        by_layer = {name: {bits: 900 - less * bits for bits in widths} for name, widths in inputs.items()}
        return replace(plan, latency=Latencies(by_layer, -400))

    alike, unlike = plan_with(0), plan_with(1)
    with pytest.raises(SizeError, match="^0.3 ms for one image cannot be kept, the least .* is 0.32 ms"):
        limits_of(alike, options, None, prepared.memory)
    found = limits_of(unlike, replace(options, latency_ms=0.32), None, prepared.memory)
    assert found.latency == 3600 and [limit for _, limit in found.sums(unlike)] == [10_000_000, 3600]
    assert limits_of(alike, replace(options, latency_ms=0.32), None, prepared.memory).latency is None


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        (
            {"bit_operations": 0.0001},
            "0.0001 x 10^9 bit operations cannot be reached, the smallest setting has 0.001402: ",
        ),
        (
            {"bit_operations": 0.0001, "compression": 10},
            "0.0001 x 10^9 bit operations cannot be reached with --compression 10, the smallest setting has 0.001402: ",
        ),
        (
            {"activation_mb": 0.001},
            "A peak of 0.001 MB of activations cannot be kept, the least is 0.001536 MB: ask for --activation-mb "
            "0.001536 or more, or allow fewer bits in --activation-bits or --edge-bits.",
        ),
    ],
)
def test_what_no_setting_reaches_is_refused_before_anything_is_written(
    asked: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(SizeError) as caught:
        quick_run("residual", out=tmp_path / "run", **asked)
    assert str(caught.value).startswith(sentence)
    assert not (tmp_path / "run").exists()
    assert 2 * 8 * (STEM + 2 * BODY + HEAD) == 1_401_344


def test_a_run_within_a_number_of_bit_operations() -> None:
    run = quick_run("residual", bit_operations=0.0025)
    result, frontier = run.result, read_json(run.directory / "frontier.json")
    counted = sum(
        layer["multiply_accumulates"] * layer["weight_bits"] * layer["activation_bits"] for layer in result["layers"]
    )
    assert result["bounds"] == {"bit_operations": {"asked": 0.0025, "reached": counted / 1e9}}
    assert counted <= 2_500_000
    assert 0.002 < frontier["candidates"][0]["bit_operations"] <= 0.0025
    assert frontier["chosen"]["bit_operations"] == counted / 1e9 and frontier["optimum"]["gap"] == 0
    rows = dict(run_rows(result))
    assert rows["bit operations of an image"] == f"{counted / 1e9:.4g} x 10^9, asked for at most 0.0025"
    page = (run.directory / "report.html").read_text()
    assert "within 0.0025 × 10⁹ bit operations for each image" in page and "bit operations of an image" in page


def test_a_run_within_a_size_and_a_number_of_bit_operations() -> None:
    run = quick_run("residual", average_bits=4, bit_operations=0.0025)
    frontier = read_json(run.directory / "frontier.json")
    assert run.result["average_bits"] <= 4 and run.result["bounds"]["bit_operations"]["reached"] <= 0.0025
    assert frontier["limit"] == {"average_bits": 4, "bit_operations": 0.0025}
    assert set(frontier["optimum"]) == {"sensitivity", "lower_bound", "gap"} and frontier["optimum"]["gap"] >= 0


def test_a_run_whose_inputs_bits_are_a_choice() -> None:
    """Chosen per layer, and so in the ranges, the simulation, the file, the result and the page."""
    run = quick_run("plain", bit_operations=0.0013, weight_bits=8, activation_bits=(4, 8))
    result, frontier = run.result, read_json(run.directory / "frontier.json")
    inputs = {layer["name"]: layer["activation_bits"] for layer in result["layers"]}
    assert frontier["chosen"]["activation_bits"].items() <= inputs.items()
    assert 4 in inputs.values() and result["layers"][0]["activation_bits"] == 8  # the network's own input
    counted = sum(
        layer["multiply_accumulates"] * layer["weight_bits"] * layer["activation_bits"] for layer in result["layers"]
    )
    assert counted / 1e9 == result["bounds"]["bit_operations"]["reached"] <= 0.0013
    assert [list(layer["activation_sensitivity"]) for layer in result["layers"]][:2] == [[], ["4", "8"]]
    stored = read_json(run.directory / "sensitivity.json")["inputs"]
    assert stored["widths"] == [4, 8] and set(stored["layers"]) == set(frontier["chosen"]["activation_bits"])
    metadata = read_tensor_file(run.directory / "model.safetensors")[1]
    assert json.loads(metadata["activation_bits"]) == inputs
    used = set(json.loads(metadata["quantizers"]).values())
    assert used < set(read_json(run.directory / "ranges.json")["quantizers"])
    clips = [node for node in onnx.load(run.directory / "model.onnx").graph.node if node.op_type == "Clip"]
    assert len(clips) == list(inputs.values()).count(4) and result["verification"]["largest_steps"] <= 1
    assert "bits of an input" in dict(run_rows(result))
    assert "activations of 4 or 8 bits" in (run.directory / "report.html").read_text()


def test_a_run_within_a_peak_of_activations() -> None:
    """relu6 holds two values of 768 numbers at a time: at 8 bits 1,536 bytes."""
    run = quick_run("relu6", activation_mb=0.0012, activation_bits=(4, 8), edge_bits="same")
    result = run.result
    assert {layer["weight_bits"] for layer in result["layers"]} == {8} and result["average_bits"] == 8
    bound = result["bounds"]["activation_mb"]
    assert bound["asked"] == 0.0012 and bound["reached"] <= 0.0012
    assert 4 in {layer["activation_bits"] for layer in result["layers"]}
    assert dict(run_rows(result))["peak of activations"].endswith("MB, asked for at most 0.0012")
    assert read_json(run.directory / "frontier.json")["optimum"]["gap"] >= 0


def test_three_bounds_at_once_are_kept() -> None:
    run = quick_run(
        "relu6", activation_mb=0.0012, bit_operations=0.003, size_mb=0.02, activation_bits=(4, 8), edge_bits="same"
    )
    bounds = run.result["bounds"]
    assert all(bound["reached"] <= bound["asked"] for bound in bounds.values()) and len(bounds) == 2
    assert run.result["onnx_bytes"] <= 20_000


def test_a_run_with_a_choice_of_inputs_goes_on_where_it_stopped(tmp_path: Path) -> None:
    asked: dict[str, Any] = {"bit_operations": 0.0015, "activation_bits": (4, 8), "precision": "fp32"}
    first = quick_run("plain", out=tmp_path / "run", **asked)
    before = (first.directory / "model.safetensors").read_bytes()
    (first.directory / "model.safetensors").unlink()
    again = quick_run("plain", out=tmp_path / "run", **asked)
    assert (again.directory / "model.safetensors").read_bytes() == before


def test_without_a_bound_none_is_named() -> None:
    result = quick_run("residual", average_bits=4).result
    assert result["bounds"] == {} and "bit operations of an image" not in dict(run_rows(result))

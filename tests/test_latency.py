"""--latency-ms: what is timed and made of the times, given made-up ones; whole runs, in which no clock decides."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import zeroq.latency as latency
import zeroq.stages
from tests.runs import QUICK, assert_same, contents, loaded, prepare_once, sham_export, sham_verify
from zeroq.cli import main
from zeroq.deploy.one_layer import BETWEEN, CLIPPED, INTEGERS, NARROWED, Kernel
from zeroq.errors import SizeError
from zeroq.latency import Timed, latencies_of, record_of, time_kernels, timed_layers
from zeroq.options import Options
from zeroq.pipeline import Run, quantize_model
from zeroq.precision import Precision
from zeroq.terminal import run_rows
from zeroq.whole_files import read_json

ONE, OTHER = Kernel((1, 4, 4), (2, 1, 3, 3), True, (1, 1)), Kernel((1, 8, 8), (2, 1, 3, 3), True, (1, 1))
TIMES = {
    ONE: {INTEGERS: 1.0, CLIPPED: 1.2, NARROWED: 1.5, BETWEEN: 0.7},
    OTHER: {INTEGERS: 3.0, CLIPPED: 2.9, NARROWED: 3.5, BETWEEN: 9.0},
}
LAYERS = {
    "a": Timed((ONE,), {8: (INTEGERS,)}, floating=False),
    "b": Timed((ONE, OTHER), {4: (CLIPPED, NARROWED), 8: (INTEGERS, INTEGERS)}, floating=False),
    "c": Timed((OTHER,), {4: (CLIPPED,), 8: (INTEGERS,)}, floating=False),
    "d": Timed((ONE,), {4: (CLIPPED,), 8: (INTEGERS,)}, floating=True),
}
WIDEST = dict.fromkeys(LAYERS, 8)


# What is timed


def test_equal_kernels_are_measured_once_in_all_kinds_that_layers_want() -> None:
    asked: list[tuple[Kernel, list[str]]] = []

    def measure(kernel: Kernel, kinds: Iterable[str]) -> dict[str, float]:
        asked.append((kernel, list(kinds)))
        return TIMES[kernel]

    steps: list[tuple[int, int]] = []
    assert time_kernels(LAYERS.values(), measure, lambda *step: steps.append(step)) == TIMES
    assert [kernel for kernel, _ in asked] == [ONE, OTHER] and steps == [(1, 2), (2, 2)]
    assert set(asked[0][1]) == {INTEGERS, CLIPPED, BETWEEN}, "floating point for the layer that may have it"
    assert set(asked[1][1]) == {INTEGERS, CLIPPED, NARROWED} and len(asked[1][1]) == 3


def kinds_of(name: str, **options: Any) -> dict[str, dict[int, tuple[str, ...]]]:
    prepared = prepare_once(loaded(name), Options.of(**QUICK, latency_ms=5, edge_bits="same", **options))
    return {name: dict(layer.kinds) for name, layer in timed_layers(prepared).items()}


def test_a_value_of_its_own_is_cut_off_and_one_that_others_read_is_quantized_again() -> None:
    assert list(kinds_of("plain", activation_bits=(4, 8)).values()) == [
        {8: (INTEGERS,)}, {4: (CLIPPED,), 8: (INTEGERS,)}, {4: (CLIPPED,), 8: (INTEGERS,)},
    ]  # fmt: skip
    found = kinds_of("residual", activation_bits=(4, 6))
    assert found["body.0.0"] == {4: (NARROWED,), 6: (NARROWED,)}, "a sum reads it as well"
    assert found["body.1"] == {4: (CLIPPED,), 6: (CLIPPED,)}
    assert len(kinds_of("shared_head")["head.0"][8]) == 2, "a layer of two sites"


def test_floating_point_is_timed_where_a_layer_may_choose_it() -> None:
    prepared = prepare_once(loaded("depthwise"), Options.of(**QUICK, latency_ms=5, fastest=True))
    assert {name: layer.floating for name, layer in timed_layers(prepared).items()} == {
        "0.0": True, "1.0": True, "2.0": True, "5": False,
    }  # fmt: skip
    plain = prepare_once(loaded("depthwise"), Options.of(**QUICK, latency_ms=5))
    assert not any(layer.floating for layer in timed_layers(plain).values())


# What is made of it


def test_sites_add_up_and_what_is_beside_the_layers_is_one_number() -> None:
    record = record_of(LAYERS, TIMES, WIDEST, 10.5)
    assert record == {
        "whole_ms": 10.5,
        "beside_ms": 1.5,  # less 1 + 4 + 3 + 1 in integers
        "layers": [
            {"name": "a", "ms": {"8": 1.0}},
            {"name": "b", "ms": {"4": 4.7, "8": 4.0}},
            {"name": "c", "ms": {"4": 3.0, "8": 3.0}},  # a step more takes no less
            {"name": "d", "ms": {"4": 0.7, "8": 0.7}},  # in floating point
        ],
    }
    found = latencies_of(json.loads(json.dumps(record)))
    assert found.beside == 15_000 and found.by_layer["b"] == {4: 47_000, 8: 40_000}
    assert found.total(WIDEST) == 102_000 and found.total(WIDEST | {"b": 4}) == 109_000


def test_times_are_whole_ticks_so_that_a_resumed_run_adds_up_alike() -> None:
    times = {ONE: {INTEGERS: 1 / 3}}
    record = record_of({"a": Timed((ONE,), {8: (INTEGERS,)}, floating=False)}, times, {"a": 8}, 0.1)
    assert record["layers"] == [{"name": "a", "ms": {"8": 0.3333}}] and record["beside_ms"] == -0.2333


def test_really_measured_whatever_comes_of_it() -> None:
    """The one test with a real clock: it only looks that all parts fit, where inputs have a choice."""
    options = Options.of(**QUICK, latency_ms=5, activation_bits=(4, 8), fastest=True)
    prepared = prepare_once(loaded("grouped"), options)
    steps: list[tuple[int, int]] = []
    record = latency.measured(prepared, lambda *step: steps.append(step))
    assert steps[0] == (0, 1) and steps[-1][0] == steps[-1][1]
    assert record["whole_ms"] > 0 and record["seconds"] > 0 and "weights" in record["note"]
    found = latencies_of(record)
    assert {name: tuple(by_bits) for name, by_bits in found.by_layer.items()} == prepared.plan.inputs
    assert all(ticks > 0 for by_bits in found.by_layer.values() for ticks in by_bits.values())


# Whole runs

Clock = Callable[[float], None]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Made-up times: of layers behind a Clip a tenth more; whole files take what is said, at first 2 ms.

    The file to time is none.
    """
    precision = Precision(torch.float32, True)
    monkeypatch.setattr(zeroq.stages, "choose_precision", lambda *_: (precision, {"fp32 channels-last": 0.5}))
    monkeypatch.setattr(latency, "file_without_numbers", lambda prepared: None)
    monkeypatch.setattr(latency, "time", SimpleNamespace(perf_counter=lambda: 1.0))
    monkeypatch.setattr(
        latency, "time_kinds",
        lambda kernel, kinds, threads: {kind: 0.1 if kind == INTEGERS else 0.11 for kind in kinds},
    )  # fmt: skip

    def set_time(milliseconds: float) -> None:
        for module in (latency, zeroq.stages):
            monkeypatch.setattr(module, "time_file", lambda model, prepared: milliseconds)

    set_time(2.0)
    return set_time


@pytest.fixture
def sham(monkeypatch: pytest.MonkeyPatch) -> None:
    """No real files, where only the decision is looked at."""
    monkeypatch.setattr(zeroq.stages, "export_onnx", sham_export)
    monkeypatch.setattr(zeroq.stages, "verify", sham_verify)


def quantize(out: Path, **options: Any) -> Run:
    return quantize_model(loaded("plain"), Options.of(**QUICK | {"precision": "fp32"} | options), out)


def test_a_generous_bound_passes_and_what_was_measured_is_recorded(clock: Clock, tmp_path: Path) -> None:
    run = quantize(tmp_path / "run", latency_ms=5)
    assert run.result["bounds"] == {"latency_ms": {"asked": 5, "reached": 2.0, "predicted": 2.0}}
    assert run.result["warnings"] == quantize(tmp_path / "plain").result["warnings"]
    stored = read_json(run.directory / "run.json")["latency"]
    assert stored["whole_ms"] == 2.0 and stored["beside_ms"] == 1.7
    assert [layer["ms"] for layer in stored["layers"]] == [{"8": 0.1}] * 3
    frontier = read_json(run.directory / "frontier.json")
    assert frontier["limit"] == {"latency_ms": 5} and frontier["chosen"]["latency_ms"] == 2.0
    assert dict(run_rows(run.result))["latency of an image"] == "2 ms, asked for at most 5"
    page = (run.directory / "report.html").read_text()
    assert "at most 5 ms for each image" in page and "measured on this machine; at most 5 was asked for" in page
    for name in ("model.safetensors", "ranges.json", "sensitivity.json"):
        assert (run.directory / name).read_bytes() == (tmp_path / "plain" / name).read_bytes()


@pytest.mark.usefixtures("sham")
def test_a_file_that_takes_longer_than_its_layers_said_is_a_warning_with_both_figures(
    clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zeroq.stages, "time_file", lambda model, prepared: 2.345678)
    result = quantize(tmp_path / "run", latency_ms=2.2).result
    assert result["bounds"]["latency_ms"] == {"asked": 2.2, "reached": 2.3457, "predicted": 2.0}
    assert result["warnings"][-1] == (
        "The file takes 2.346 ms for one image, more than --latency-ms 2.2, where 2 ms were predicted from times of "
        "its layers: time it again on an idle machine (zeroq benchmark RUN --batch 1), or allow more."
    )


@pytest.mark.usefixtures("sham")
def test_a_bound_that_no_setting_keeps_is_refused_and_nothing_is_written(clock: Clock, tmp_path: Path) -> None:
    with pytest.raises(SizeError) as caught:
        quantize(tmp_path / "run", latency_ms=1.9, activation_bits=(4, 8))
    assert str(caught.value) == (
        "1.9 ms for one image cannot be kept, the least measured on this machine is 2 ms: ask for --latency-ms 2.1 or "
        "more, as two measurements differ, or give more --threads."
    )
    assert not (tmp_path / "run").exists()
    quantize(tmp_path / "run", latency_ms=2)
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    with pytest.raises(SizeError):
        quantize(tmp_path / "run", latency_ms=1.9)
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before


@pytest.mark.usefixtures("sham")
def test_inputs_of_few_bits_save_operations_within_the_time_that_there_is(clock: Clock, tmp_path: Path) -> None:
    """Two inputs have a choice, of which one must be narrow and one alone may: each takes 0.01 ms more."""
    asked: dict[str, Any] = {"bit_operations": 0.0013, "weight_bits": 8, "activation_bits": (4, 8)}
    free = quantize(tmp_path / "free", latency_ms=2.02, **asked).result
    assert free["bounds"]["bit_operations"]["reached"] <= 0.0013
    kept = quantize(tmp_path / "kept", latency_ms=2.01, **asked)
    inputs = [layer["activation_bits"] for layer in kept.result["layers"]]
    assert inputs.count(4) == 1 and kept.result["bounds"]["latency_ms"]["predicted"] == 2.01
    frontier = read_json(kept.directory / "frontier.json")
    assert all(candidate["latency_ms"] <= 2.01 for candidate in frontier["candidates"])
    assert frontier["optimum"]["gap"] >= 0
    with pytest.raises(SizeError, match="2.005 ms .* with --bit-operations 0.0013, the least measured .* is 2.01 ms"):
        quantize(tmp_path / "none", latency_ms=2.005, **asked)


def interrupted(*_: Any) -> bytes:
    raise KeyboardInterrupt


@pytest.mark.usefixtures("sham")
def test_a_resumed_run_keeps_what_was_measured(clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quantize(tmp_path / "whole", latency_ms=5)
    out = tmp_path / "interrupted"
    with monkeypatch.context() as patch:
        patch.setattr(zeroq.channels, "helpful_factors", interrupted)
        with pytest.raises(KeyboardInterrupt):
            quantize(out, latency_ms=5)
    assert read_json(out / "run.json")["latency"] == read_json(tmp_path / "whole" / "run.json")["latency"]
    monkeypatch.setattr(latency, "measured", lambda *_: pytest.fail("measured again"))
    quantize(out, latency_ms=5)
    assert_same(contents(out), contents(tmp_path / "whole"))
    assert quantize(out, latency_ms=3).result["bounds"]["latency_ms"]["asked"] == 3, "another bound, the same times"


@pytest.mark.usefixtures("sham")
def test_another_machine_or_a_fresh_run_is_measured_anew(
    clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quantize(tmp_path / "run", latency_ms=5)
    clock(3.0)
    assert quantize(tmp_path / "run", latency_ms=5).result["bounds"]["latency_ms"]["predicted"] == 2.0
    monkeypatch.setattr(latency.devices, "processor", lambda: "another")
    assert quantize(tmp_path / "run", latency_ms=5).result["bounds"]["latency_ms"]["predicted"] == 3.0
    clock(4.0)
    options = Options.of(**QUICK, precision="fp32", latency_ms=5)
    fresh = quantize_model(loaded("plain"), options, tmp_path / "run", fresh=True)
    assert fresh.result["bounds"]["latency_ms"]["predicted"] == 4.0
    quantize(tmp_path / "run")
    assert "latency" not in read_json(tmp_path / "run" / "run.json")


def test_beside_a_size_and_fastest(clock: Clock, tmp_path: Path) -> None:
    run = quantize(tmp_path / "run", average_bits=4, latency_ms=5, fastest=True)
    assert run.result["average_bits"] <= 4 and "fastest" in run.result
    assert run.result["bounds"]["latency_ms"]["reached"] == 2.0


def test_the_command_refuses_a_bound_beyond_this_machine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the real clock, which is never so fast."""
    words = ["quantize", "digits", "--latency-ms", "0.0001", "--threads", "1", "--out", str(tmp_path / "run")]
    assert main([*words, "--quiet"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("zeroq: 0.0001 ms for one image cannot be kept, the least measured on this machine is 0.")
    assert not (tmp_path / "run").exists()

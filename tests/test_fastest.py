"""--fastest: what is proposed and chosen, given made-up times; whole runs, in which no clock decides."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import zeroq.fastest
import zeroq.stages
from tests.networks import example_of
from tests.runs import QUICK, assert_same, contents, loaded, prepare_once, quick_run, sham_export, sham_verify
from zeroq.conclusion import page
from zeroq.deploy.one_layer import Kernel, KernelTimes
from zeroq.deploy.timing import Timing
from zeroq.fastest import (
    AGAIN,
    WHOLE,
    fastest_of,
    is_faster,
    kernels_by_layer,
    note_of,
    proposals,
    time_layers,
    weights_to_time,
)
from zeroq.numbers.grid import SHIFTED_BITS, shifts_of
from zeroq.numbers.values import BitSetting
from zeroq.options import Options
from zeroq.pipeline import Run, quantize_model
from zeroq.precision import Precision
from zeroq.terminal import run_rows

SLOW, QUICKER = KernelTimes(0.31, 0.22, 0.12), KernelTimes(0.1, 0.3, 0.2)
LISTED = (
    "stays in floating point as its integer kernel is slower on this machine: 0.31 ms against 0.22 ms; "
    "its weights are stored in 8 bits"
)


def times(**medians: float) -> dict[str, Timing]:
    """Of one pass; integers twice."""
    names = {"whole": WHOLE, "again": AGAIN, "first": "0", "second": "1"}
    return {names[name]: Timing(median, 0.0, 99.0) for name, median in medians.items()}


# What is proposed


def test_layers_are_proposed_by_their_own_times() -> None:
    own = {"a": KernelTimes(3.0, 2.0, 1.0), "b": KernelTimes(3.0, 4.0, 2.0), "c": KernelTimes(1.0, 3.0, 2.0)}
    assert proposals(own) == [("a",), ("a", "b")], "between integers, and where neighbours are in floating point too"
    assert proposals({name: own[name] for name in "ac"}) == [("a",)], "the same proposal once"
    assert proposals({"b": own["b"]}) == [("b",)]
    assert proposals({"c": own["c"]}) == []
    assert proposals({"equal": KernelTimes(1.0, 1.0, 1.0)}) == []


@pytest.mark.parametrize("name", ["depthwise", "norm_free", "pre_activation"])
def test_files_that_are_timed_are_as_large_as_that_of_any_weights(name: str) -> None:
    prepared = prepare_once(loaded(name), Options.of(**QUICK))
    setting = BitSetting({layer.name: bits for layer, bits in zip(prepared.plan.layers, itertools.cycle((2, 8, 6, 7)))})
    weights = weights_to_time(prepared, setting)
    assert {name: each.bits for name, each in weights.items()} == setting.bits
    for each in weights.values():
        assert bool(shifts_of(each.integers, each.bits).any()) is (each.bits <= SHIFTED_BITS)
    biased = {layer.name for layer in prepared.plan.layers if layer.bias is not None}
    assert {name for name, each in weights.items() if each.bias is None} == biased


def test_equal_kernels_are_measured_once_and_sites_add_up() -> None:
    one, other = Kernel((1, 4, 4), (2, 1, 3, 3), True, (1, 1)), Kernel((1, 8, 8), (2, 1, 3, 3), True, (1, 1))
    measured: list[Kernel] = []

    def measure(kernel: Kernel) -> KernelTimes:
        measured.append(kernel)
        return KernelTimes(kernel.inputs[1], 1.0, 0.5)

    steps: list[tuple[int, int]] = []
    found = time_layers({"a": [one], "b": [one, other]}, measure, lambda *step: steps.append(step))
    assert measured == [one, other] and steps == [(1, 2), (2, 2)]
    assert found == {"a": KernelTimes(4, 1.0, 0.5), "b": KernelTimes(12, 2.0, 1.0)}


def test_layers_that_give_the_output_are_not_asked() -> None:
    """Their values leave in floating point as it is, or may be chosen to."""
    prepared = prepare_once(loaded("depthwise"), Options.of(**QUICK))
    assert list(kernels_by_layer(prepared)) == ["0.0", "1.0", "2.0"]
    kept = prepare_once(loaded("depthwise"), Options.of(**QUICK, keep_float="1.0"))
    assert list(kernels_by_layer(kept)) == ["0.0", "2.0"]


# What is chosen


def test_a_file_must_be_faster_in_every_pass() -> None:
    good, bad = times(whole=10.0, again=10.1, first=8.0), times(whole=10.0, again=10.1, first=10.0)
    assert fastest_of([good, good, good], [("a",)]) == ("a",)
    assert fastest_of([good, bad, good], [("a",)]) == ()
    assert fastest_of([], []) == ()


def test_by_more_than_the_file_in_integers_differs_from_itself() -> None:
    assert not is_faster(times(whole=10.0, again=11.0, first=9.5), "0")
    assert is_faster(times(whole=10.0, again=11.0, first=8.9), "0")
    assert not is_faster(times(whole=10.0, again=10.0, first=9.95), "0"), "half a per cent is worth no layer"
    assert is_faster(times(whole=10.0, again=10.0, first=9.85), "0")


def test_the_fastest_of_several_is_chosen() -> None:
    some = [times(whole=10.0, again=10.0, first=8.0, second=7.0), times(whole=10.0, again=10.0, first=7.5, second=7.0)]
    assert fastest_of(some, [("a",), ("a", "b")]) == ("a", "b")
    some.append(times(whole=10.0, again=10.0, first=8.0, second=10.5))
    assert fastest_of(some, [("a",), ("a", "b")]) == ("a",)


MILLISECONDS = st.floats(0.001, 1000)


@given(st.lists(st.tuples(*[MILLISECONDS] * 4), min_size=1, max_size=4))
def test_what_is_chosen_was_never_slower(passes: list[tuple[float, float, float, float]]) -> None:
    made = [times(whole=a, again=b, first=c, second=d) for a, b, c, d in passes]
    chosen = fastest_of(made, [("a",), ("b",)])
    if chosen:
        key = "0" if chosen == ("a",) else "1"
        assert all(each[key].median < min(each[WHOLE].median, each[AGAIN].median) for each in made)


@pytest.mark.parametrize(
    ("layers", "files", "proposed", "expected"),
    [
        ([], None, 0, "no layer is slower in integers than in floating point on this machine (avx2): all 9 stay"),
        ([], None, 2, "no file with layers in floating point fits the size asked for: all 9 stay integers"),
        ([], {"integers": 4.0, "floating": 4.1}, 2, "by more than chance in each of 3 passes: 4.1 ms against 4 ms, so"),
        ([{}], {"integers": 4.0, "floating": 3.1}, 2, "1 of 9 layers in floating point on this machine (avx2): 3.1 ms"),
    ],
)
def test_what_came_of_it_is_one_sentence(
    layers: list[Any], files: dict[str, float] | None, proposed: int, expected: str
) -> None:
    record = {"integer_instructions": "avx2", "measured": 9, "layers": layers, "files_ms": files}
    assert expected in note_of(record, proposed)


# Whole runs

Clock = Callable[..., None]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Made-up times: kernels with groups are slow in integers, unless said otherwise; medians of the files."""
    monkeypatch.setattr(zeroq.stages.devices, "integer_instructions", lambda: "avx2")
    precision = Precision(torch.float32, True)
    monkeypatch.setattr(zeroq.stages, "choose_precision", lambda *_: (precision, {"fp32 channels-last": 0.5}))

    def set_times(slow: Callable[[Kernel], bool] = lambda kernel: kernel.groups > 1, **medians: float) -> None:
        files = {"whole": 10.0, "again": 10.1, "first": 8.0, "second": 8.0} | medians

        def interleaved(sessions: Mapping[str, Any], feed: Mapping[str, Any], seconds: float) -> dict[str, Timing]:
            for session in sessions.values():
                session.run(None, feed)
            return {name: times(**files)[name] for name in sessions}

        monkeypatch.setattr(zeroq.fastest, "measure_kernel", lambda kernel, _: SLOW if slow(kernel) else QUICKER)
        monkeypatch.setattr(zeroq.fastest, "interleaved", interleaved)

    set_times()
    return set_times


@pytest.fixture
def sham(monkeypatch: pytest.MonkeyPatch) -> None:
    """No real files, where only the decision is looked at."""
    monkeypatch.setattr(zeroq.stages, "export_onnx", sham_export)
    monkeypatch.setattr(zeroq.stages, "verify", sham_verify)

    class Session:
        def run(self, outputs: None, feed: Any) -> None: ...
        def get_inputs(self) -> list[Any]:
            return [type("Input", (), {"name": "input"})]

    monkeypatch.setattr(zeroq.fastest, "open_session", lambda *_, **__: Session())


def quantize(out: Path, **options: Any) -> Run:
    return quantize_model(loaded("depthwise"), Options.of(**QUICK | options), out)


def test_a_slow_layer_computes_in_floating_point_and_is_listed_with_its_times(clock: Clock, tmp_path: Path) -> None:
    result = quantize(tmp_path / "run", fastest=True).result
    assert {"name": "1.0", "reason": LISTED} in result["not_quantized"]
    assert result["integer_nodes"]["QLinearConv"] == 2 and result["float_nodes"]["Conv"] == 1
    assert result["fastest"] == {
        "integer_instructions": "avx2", "measured": 3,
        "layers": [{"name": "1.0", "integers_ms": 0.31, "floating_ms": 0.22}],
        "files_ms": {"integers": 10.0, "floating": 8.0},
        "note": "1 of 3 layers in floating point on this machine (avx2): 8 ms against 10 ms in integers",
    }  # fmt: skip
    bits = {layer["name"]: (layer["weight_bits"], layer["activation_bits"]) for layer in result["layers"]}
    assert bits["1.0"] == (8, 32) and bits["2.0"] == (8, 8)
    assert not any("floating point" in warning for warning in result["warnings"])
    assert result["verification"]["agreement"] == 1.0 and result["integer_share"] < 1
    rows = list(run_rows(result))
    assert ("stays in float", f"1.0: {LISTED}") in rows and ("fastest", result["fastest"]["note"]) in rows
    text = page(tmp_path / "run")
    assert LISTED in text and result["fastest"]["note"] in text


def test_neighbours_in_floating_point_pass_floats_on(clock: Clock, tmp_path: Path) -> None:
    clock(slow=lambda kernel: kernel.inputs[0] == 8)
    run = quantize(tmp_path / "run", fastest=True, weight_bits=4)
    result = run.result
    assert [layer["name"] for layer in result["fastest"]["layers"]] == ["1.0", "2.0"]
    assert {"1.0", "2.0"} <= {entry["name"] for entry in result["not_quantized"]}
    assert not any("relu" in entry["reason"] for entry in result["not_quantized"]), "it goes with its layer"
    assert result["integer_nodes"]["QLinearConv"] == 1
    assert result["verification"]["agreement"] == 1.0
    plain = quantize(tmp_path / "plain", weight_bits=4).result
    assert result["onnx_bytes"] <= plain["onnx_bytes"], "weights are stored in their few bits all the same"
    assert result["weight_bytes"] == plain["weight_bytes"]
    assert abs(result["other_bytes"] - plain["other_bytes"]) < 100


def test_a_file_that_is_no_faster_is_not_taken(clock: Clock, tmp_path: Path) -> None:
    clock(first=10.0)
    result = quantize(tmp_path / "asked", fastest=True).result
    quantize(tmp_path / "plain")
    assert result["fastest"]["layers"] == [] and "so all 3 stay integers" in result["fastest"]["note"]
    for name in ("model.safetensors", "model.onnx", "ranges.json", "frontier.json"):
        assert (tmp_path / "asked" / name).read_bytes() == (tmp_path / "plain" / name).read_bytes()


def test_where_no_layer_is_slow_no_file_is_made(clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock(slow=lambda kernel: False)
    monkeypatch.setattr(zeroq.fastest, "time_files", lambda *_: pytest.fail("timed"))
    result = quantize(tmp_path / "run", fastest=True).result
    assert result["fastest"]["note"].startswith("no layer is slower in integers")
    assert result["fastest"]["files_ms"] is None


def test_a_file_beyond_the_size_asked_for_is_not_taken(
    clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = prepare_once(loaded("depthwise"), Options.of(**QUICK, size_mb=0.5, fastest=True))
    monkeypatch.setattr(zeroq.fastest, "time_files", lambda *_: pytest.fail("timed"))
    found = zeroq.fastest.choose_fastest(prepared, lambda names: bytes(500_001 if names else 9), lambda *_: None)
    assert found["layers"] == [] and found["note"].startswith("no file with layers in floating point fits the size")


def test_a_resumed_run_keeps_the_decision(
    clock: Clock, sham: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quantize(tmp_path / "whole", fastest=True)
    out = tmp_path / "interrupted"
    with monkeypatch.context() as patch:
        patch.setattr(zeroq.stages, "serialise", interrupted)
        with pytest.raises(KeyboardInterrupt):
            quantize(out, fastest=True)
    assert [layer["name"] for layer in json.loads((out / "run.json").read_text())["fastest"]["layers"]] == ["1.0"]
    clock(first=99.0)
    monkeypatch.setattr(zeroq.fastest, "measure_kernel", lambda *_: pytest.fail("measured again"))
    quantize(out, fastest=True)
    assert_same(contents(out), contents(tmp_path / "whole"))


def interrupted(*_: Any) -> bytes:
    raise KeyboardInterrupt


def test_another_processor_is_measured_anew(
    clock: Clock, sham: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quantize(tmp_path / "run", fastest=True)
    clock(first=99.0)
    assert quantize(tmp_path / "run", fastest=True).result["fastest"]["layers"] != []
    monkeypatch.setattr(zeroq.stages.devices, "integer_instructions", lambda: "amx")
    assert quantize(tmp_path / "run", fastest=True).result["fastest"]["layers"] == []
    assert "fastest" not in quantize(tmp_path / "run").result
    assert "fastest" not in json.loads((tmp_path / "run" / "run.json").read_text())


def test_really_measured_whatever_comes_of_it(tmp_path: Path) -> None:
    """The one test with a real clock: it only looks that all parts fit."""
    run = quick_run("grouped", fastest=True)
    found = run.result["fastest"]
    assert found["measured"] == 2 and found["note"]
    assert run.result["verification"]["agreement"] == 1.0
    assert run.model(example_of("grouped")).shape == (2, 4)

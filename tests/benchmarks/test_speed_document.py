"""The page of times, and the limits, from results of any origin."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.document import STAGES as RUN_STAGES
from benchmarks.speed_document import document
from benchmarks.speed_limits import PARTS, judged
from benchmarks.step_counts import KINDS

MACHINE = {"cpu": "CPU", "integer_instructions": "avx2", "threads": 1, "precision": "fp32 channels-last"}
GOOD = {"statistics_loss": 1.0, "range_error": 0.2, "rank_correlation": 0.9, "confidence": 0.5}


def times(network: str, recipe: float = 155.0, **theirs: float) -> dict[str, Any]:
    """Images in 10 s that are GOOD; those of the recipe, if any, differ in what is given."""
    quality = {"ours": GOOD} | ({"recipe": GOOD | theirs} if theirs else {})
    seconds = {"images": {"ours": 10.0, "recipe": recipe}}
    return {"network": network, **MACHINE, "unit_seconds": 0.5, "seconds": seconds, "quality": quality}


def run(network: str, units: float) -> dict[str, Any]:
    """Of half a second each."""
    return {
        "network": network, **MACHINE, "seconds": dict.fromkeys(RUN_STAGES, 0.5), "total_seconds": units / 2,
        "unit_seconds": 0.5, "units": units, "peak_memory_mb": {"capture": 100.0, "distill": 200.0},
    }  # fmt: skip


def step(seconds: float) -> dict[str, Any]:
    """A unit of 2 s; half of the step are convolutions, and their floor is a quarter of a second."""
    shares = dict(zip(KINDS, (0.5, 0.1, 0.1, 0.1, 0.1, 0.1), strict=True))
    parts = {
        kind: {"multiply_accumulates": 3e9, "bytes_moved": 5e6, "floor_seconds": 0.25 * (kind == KINDS[0])}
        | {"share": share}
        for kind, share in shares.items()
    }
    peaks = {"multiply_accumulates": 40e9, "bytes_moved": 10e9}
    return {
        "network": "resnet18", **MACHINE, "unit_seconds": 2.0, "step_seconds": seconds, "peaks": peaks, "parts": parts
    }  # fmt: skip


def lines(text: str, begin: str) -> list[list[str]]:
    return [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith(f"| {begin}")]


def test_times_as_fast_and_the_earliest_results_which_know_no_memory() -> None:
    record = times("net")
    text = document({"stages": [record]})
    assert "| net | images | 155 | 10 | 15.5 | 20.0 | – | – |" in text
    assert "| net | ours | 1.000 | 0.200 | 0.900 | 0.500 |" in text and "- CPU, avx2, 1 thread(s)" in text
    gpu = record | {"device": "GPU", "precision": "bf16 channels-last", "peak_mb": {"images": {"ours": 1, "recipe": 2}}}
    text = document({"stages": [record, gpu]})
    assert "| net, GPU | images | 155 | 10 | 15.5 | 20.0 | 2 | 1 |" in text and "- GPU, bf16 channels-last\n" in text


def test_a_network_without_real_pictures_has_dashes() -> None:
    record = times("resnet50") | {"quality": {"ours": {"statistics_loss": 0.25}}}
    assert "| resnet50 | ours | 0.250 | – | – | – |" in document({"stages": [record]})


@pytest.mark.parametrize(
    ("record", "verdict"),
    [
        (times("resnet18", statistics_loss=1.1), "met"),
        (times("resnet18", statistics_loss=0.9), "**missed**"),
        (times("resnet18", 149.0, statistics_loss=1.1), "**missed**"),
        (times("mobilenet_v2", range_error=0.3, rank_correlation=0.8), "met"),
        (times("mobilenet_v2", range_error=0.3, rank_correlation=0.95), "**missed**"),
        (times("mobilenet_v2", range_error=0.1), "**missed**"),
        (times("resnet18"), "time met, quality not measured"),
        (times("resnet18", 100.0), "**missed**"),
    ],
)
def test_images_take_15_times_less_and_are_no_worse(record: dict[str, Any], verdict: str) -> None:
    ((what, network, *_, found),) = lines(document({"stages": [record]}), "images against")
    assert (what, network, found) == ("images against the recipe", record["network"], verdict)


def test_other_networks_and_gpus_are_not_held_to_it() -> None:
    assert judged("stages", times("resnet50")) == []
    assert judged("stages", times("resnet18") | {"device": "GPU"}) == []


@pytest.mark.parametrize(("seconds", "verdict"), [(2.6, "met"), (2.7, "**missed**")])
def test_a_step_in_units_and_beside_its_floor(seconds: float, verdict: str) -> None:
    text = document({"step": [step(seconds)]})
    assert lines(text, "step of") == [
        ["step of distillation", "resnet18", f"{seconds / 2:.2f} units", "at most 1.3", verdict]
    ]
    assert lines(text, "resnet18 | fp32")[0][3:] == [
        "2.000", f"{seconds:.3f}", f"{seconds / 2:.2f}", "0.250", f"{4 * seconds:.1f}", "40", "10.0"
    ]  # fmt: skip
    convolutions = lines(text, "resnet18 | conv")[0]
    assert convolutions[2:] == [
        "3.00", "5", "250.0", f"{500 * seconds:.1f}", "50.0%", f"{2 * seconds:.1f}", f"{500 * seconds - 250:.1f}"
    ]  # fmt: skip
    assert lines(text, "resnet18 | rest")[0][-2] == "–", "nothing is a multiple of no floor"


def test_whole_runs_in_units() -> None:
    text = document({"runs": [run("resnet18", 119.0), run("resnet50", 130.0), run("resnet20_cifar10", 500.0)]})
    assert [line[1:] for line in lines(text, "whole run")] == [
        ["resnet18", "119 units", "at most 120, aim 60", "met"],
        ["resnet50", "130 units", "at most 120, aim 60", "**missed**"],
    ]
    assert lines(text, "resnet18 | 0.5")[0][-4:] == ["59.5", "0.500", "119", "200"]
    assert lines(text, "resnet18 | 1.0")[0][-1] == "119.0"


def test_a_gpu_has_seconds_for_resnet50() -> None:
    assert judged("runs", run("resnet50", 18.0) | {"device": "GPU"}) == ["whole run 9.0 s (under 10 s): met"]
    assert judged("runs", run("resnet18", 18.0) | {"device": "GPU"}) == []


def test_a_second_run_of_a_process_has_a_line_of_its_own() -> None:
    twice = run("resnet50", 22.0) | {"device": "GPU"}
    twice["again"] = {"seconds": dict.fromkeys(RUN_STAGES, 0.25), "total_seconds": 9.0}
    text = document({"runs": [twice]})
    assert [line[1:] for line in lines(text, "whole run")] == [
        ["resnet50, GPU", "11.0 s", "under 10 s", "**missed**"],
        ["resnet50, GPU", "9.0 s", "under 10 s", "met"],
    ]
    assert lines(text, "resnet50, GPU, again")[0][1:] == [*["0.2"] * len(RUN_STAGES), "9.0", "–", "–", "–"]


def test_a_peer_has_a_line_for_each_number_of_iterations() -> None:
    rows = [
        {"who": "ours", "iterations": None, "seconds": 5.0, "quality": {"statistics_loss": 0.5}},
        {"who": "peer", "iterations": 8, "seconds": 4.9, "quality": {"statistics_loss": 5.0}},
        {"who": "peer", "iterations": 500, "seconds": 260.0, "quality": {}, "calculated": True},
    ]
    text = document({"peer": [{"network": "resnet18", **MACHINE, "versions": {"toolkit": "1.0"}, "rows": rows}]})
    assert [line[1:4] for line in lines(text, "resnet18")] == [
        ["ours", "5.0", "0.500"],
        ["toolkit, 8 iterations", "4.9", "5.000"],
        ["toolkit, 500 iterations", "260.0 (calculated)", "–"],
    ]
    assert "(toolkit 1.0)" in text


def test_nothing_measured_is_a_page_all_the_same() -> None:
    assert document({part: [] for part in PARTS}).startswith("# Performance")

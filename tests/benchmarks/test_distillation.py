"""The study of images, from results of any origin."""

from __future__ import annotations

from typing import Any

from benchmarks.distillation import CASES, REAL, Case, document, file_of, key_for


def result(network: str, case: Case, stale: bool = False) -> dict[str, Any]:
    """Of 200 pictures in each half, 180 of which the float network has right and 150 the quantized one."""
    half = {"images": 200, "float_top1": 180, "top1": 150, "mean_divergence": 0.25}
    return {
        "network": network, "case": case.name, "key": "" if stale else key_for(network, case),
        "loss": 0.5, "range_error": 0.0625, "rank_correlation": 0.9, "units": 12.4, "cpu": "a processor",
        "sets": {"selection": half, "confirmation": half},
    }  # fmt: skip


def test_cases_differ_by_name_and_by_file() -> None:
    assert len({case.name for case in CASES}) == len({file_of("one", case) for case in CASES}) == len(CASES)
    assert Case().name == "64 images, 24 steps" and Case(steps=None).name == REAL
    assert Case(steps=0, variants=False).name == "64 of noise, no variants"


def test_lines_stand_in_the_order_of_the_cases() -> None:
    text = document([result("mobilenet_v2", CASES[2], stale=True), result("mobilenet_v2", CASES[0])])
    assert "## mobilenet_v2" in text and "Float: 90.00, 90.00." in text
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| 64")]
    assert [line[0] for line in lines] == ["64 images, 24 steps", "64 of noise, no variants `stale`"]
    assert lines[0][1:] == ["0.500", "0.062", "0.900", "75.00", "0.250", "75.00", "0.250", "12"]

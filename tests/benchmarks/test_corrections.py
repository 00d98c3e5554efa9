"""The page of corrections."""

from __future__ import annotations

from typing import Any

from benchmarks.corrections import document
from benchmarks.halves import CONFIRMATION, SELECTION
from benchmarks.rows import W4A4, at_best
from zeroq.candidates import ERRORS, MEANS


def state(held_out: float, misfit: float, divergence: float) -> dict[str, Any]:
    half = {"images": 200, "top1": 150, "divergence": divergence}
    return {"held_out": held_out, "misfit": misfit, "sets": {SELECTION: half, CONFIRMATION: half}}


def test_the_page_says_which_correction_is_kept_and_which_one_pictures_speak_for() -> None:
    record = {"network": "net", "setting": at_best(W4A4), "key": "another", "error": None, "cpu": "a processor"}
    right = record | {ERRORS: state(0.2, 0.3, 0.5), MEANS: state(0.1, 0.9, 0.4)}
    wrong = record | {ERRORS: state(0.1, 0.9, 0.5), MEANS: state(0.2, 0.3, 0.4)}
    page = document([right, wrong])
    lines = [line for line in page.splitlines() if line.startswith("| net |")]
    assert lines[0].startswith("| net | W4A4 | 0.2000; 0.1000 | 0.1000; 0.8000 | means | means `stale` |")
    assert "| 0.5000; 0.4000 | 75.00; 75.00 |" in lines[0]
    assert "| errors | means `stale` |" in lines[1]
    assert "The better one is kept in 1 of 2." in page

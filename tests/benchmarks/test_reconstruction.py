"""The page of block reconstruction."""

from __future__ import annotations

from typing import Any

from benchmarks.halves import CONFIRMATION, SELECTION
from benchmarks.reconstruction import document
from benchmarks.rows import W4A4


def state(held_out: float, misfit: float, top1: int) -> dict[str, Any]:
    half = {"images": 200, "top1": top1, "divergence": 2 * held_out}
    return {"held_out": held_out, "misfit": misfit, "sets": {SELECTION: half, CONFIRMATION: half}}


def test_the_page_says_what_distilled_images_and_what_pictures_say() -> None:
    record = {"network": "net", "setting": W4A4, "steps": 150, "key": "another", "error": None, "cpu": "a processor"}
    record |= {"seconds": 81.6}
    better = record | {"before": state(0.1, 0.5, 150), "after": state(0.05, 0.5, 140)}
    noisy = record | {"before": state(0.1, 0.5, 150), "after": state(0.05, 0.6, 140)}
    lines = [line for line in document([better, noisy]).splitlines() if line.startswith("| net |")]
    assert lines[0].startswith("| net | W4A4 | 82 | 0.100 to 0.050 | 0.500 to 0.500 | for `stale` |")
    assert "| 0.200 to 0.100 | 75.00 to 70.00 |" in lines[0]
    assert "| against `stale` |" in lines[1]

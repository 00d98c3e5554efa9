"""The table of latencies, from results of any origin."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.latency import document


def result(instructions: str, ours: float, static: float) -> dict[str, Any]:
    """ResNet18 that takes 10 ms in floating point at batch 1, and 80 at batch 8."""
    times = {"float": 10.0, "quantized": ours, "onnxruntime_static": static}
    rows = [
        {"file": name, "batch": batch, "median_ms": batch * time, "low_ms": batch * time - 0.5, "high_ms": 90.0}
        for batch in (1, 8)
        for name, time in times.items()
    ]
    return {"network": "resnet18", "cpu": "a processor", "integer_instructions": instructions, "rows": rows}


@pytest.mark.parametrize(
    ("instructions", "ours", "static", "limit"),
    [
        ("avx512-vnni", 4.0, 4.0, "met"),
        ("amx", 4.1, 4.1, "**missed**"),  # 2.4 times as fast as float
        ("avx2", 5.0, 5.0, "met"),
        ("avx2", 5.0, 4.7, "**missed**"),  # 6 % slower than onnxruntime's own
    ],
)
def test_limits_depend_on_the_processor_and_hold_for_one_picture(
    instructions: str, ours: float, static: float, limit: str
) -> None:
    text = document([result(instructions, ours, static)])
    one, eight = (line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| resnet18"))
    assert one[:4] == ["resnet18", f"a processor, {instructions}", "1", "10.00 [9.50, 90.00]"]
    assert one[-3:] == [f"{10 / ours:.2f}", f"{ours / static:.2f}", limit]
    assert eight[2] == "8" and eight[-1] == "–"


def test_limits_are_said() -> None:
    assert "ResNet18 2.5, ResNet50 2.5, MobileNetV2 1.5 times as fast as float with VNNI, ResNet18 1.7" in document([])

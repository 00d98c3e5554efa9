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


def test_a_column_says_what_fastest_changes() -> None:
    plain = result("avx2", 5.0, 5.0)
    none = plain | {"fastest": {"layers": []}}
    row = {"file": "fastest", "median_ms": 3.0, "low_ms": 2.5, "high_ms": 4.0}
    two = plain | {"fastest": {"layers": [{}, {}]}, "rows": plain["rows"] + [row | {"batch": 1}, row | {"batch": 8}]}
    lines = [line.strip("| ").split(" | ") for line in document([plain, none, two]).splitlines() if "a proc" in line]
    assert [line[6] for line in lines[::2]] == ["–", "none", "3.00 [2.50, 4.00], 2 layers"]
    assert {line[-2] for line in lines} == {"1.00"}, "the limit is for files of integers"


def test_a_network_without_a_limit_meets_none() -> None:
    lines = document([result("avx2", 20.0, 5.0) | {"network": "resnext14_16x4d"}]).splitlines()
    assert [line.strip("| ").split(" | ")[-1] for line in lines if line.startswith("| resnext")] == ["–", "–"]


def test_limits_are_said() -> None:
    assert "ResNet18 2.5, ResNet50 2.5, MobileNetV2 1.5 times as fast as float with VNNI, ResNet18 1.7" in document([])

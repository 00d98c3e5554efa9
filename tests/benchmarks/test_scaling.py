"""Costs by layers, from results of any origin."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks.scaling import calculated_share, document, picture
from zeroq.graph import capture, fold


def result(network: str, layers: int, passes: float, frontier: float, coarse: Sequence[int] = ()) -> dict[str, Any]:
    """A network of passes of 0.1 s, whose sensitivities take so many of them."""
    return {
        "network": network, "cpu": "a processor", "threads": 1, "layers": layers, "pass_seconds": 0.1,
        "bf16_share": 1.25, "coarse": coarse, "sensitivity_seconds": 0.1 * passes, "calculated": 0.5,
        "frontier_seconds": frontier, "frontier_points": 1234,
    }  # fmt: skip


def test_of_equal_layers_half_and_half_a_layer_is_computed_for_two_of_three_widths() -> None:
    module = nn.Sequential(*(nn.Conv2d(4, 4, 1) for _ in range(5)))
    network = fold(capture(module.eval(), torch.zeros(2, 4, 3, 3)))
    assert calculated_share(network) == pytest.approx((2 * (5 + 4 + 3 + 2 + 1) + 3 * 5) / (3 * 25))


@pytest.mark.parametrize(("passes", "frontier", "limits"), [(40, 0.1, ("met", "met")), (80, 0.3, ("**missed**",) * 2)])
def test_shares_and_limits(passes: float, frontier: float, limits: tuple[str, str]) -> None:
    text = document([result("resnet50", 50, passes, 0.01), result("resnet152", 150, passes, frontier)])
    one, other = (line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| resnet"))
    assert one[3:8] == ["15.0", "1.25; none", f"{0.1 * passes:.1f}", "0.50", f"{passes / 150:.2f}"]
    assert one[8] == f"{150 / passes:.1f} (3) {limits[0]}"
    assert other[9:] == [f"{frontier:.3f} (0.2) {limits[1]}", "1,234"]


def test_more_is_asked_where_bf16_is_faster() -> None:
    (line,) = (each for each in document([result("resnet50", 50, 30, 0.01, [2])]).splitlines() if "| resnet" in each)
    assert line.strip("| ").split(" | ")[4:9:4] == ["1.25; 2", "5.0 (6) **missed**"]


def test_what_bf16_changes_has_a_line_for_each_network_and_width() -> None:
    exact = {"2": [1.0, 2.0, 4.0], "3": [0.1, 0.2, 0.4]}
    record = {"network": "one", "cpu": "a", "exact": exact, "bf16": {"2": exact["2"], "3": [0.1, 0.4, 0.2]}}
    lines = [line for line in document([], [], [record]).splitlines() if line.startswith("| one")]
    assert [line.strip("| ").split(" | ")[1:] for line in lines] == [
        ["2", "1.0000", "0.000", "0.000"], ["3", "0.5000", "0.693", "0.693"]
    ]  # fmt: skip


def test_the_picture_is_well_formed_and_shows_every_network() -> None:
    for records in ([], [result("resnet50", 50, 80, 0.1), result("resnet152", 150, 200, 0.1)]):
        root = ElementTree.fromstring(picture(records))
        assert len(root.findall("{*}circle")) == len(records)
        assert all(-1 <= float(circle.get("cy", "nan")) <= 320 for circle in root.findall("{*}circle"))


def test_a_network_over_processes_has_a_line_for_each_number_of_them() -> None:
    rows = [
        {"processes": 1, "distill": 10.0, "sensitivity": 20.0, "whole": 60.0, "same_files": True},
        {"processes": 2, "distill": 5.0, "sensitivity": 16.0, "whole": 40.0, "same_files": True},
    ]
    record = {"network": "resnet18", "cpu": "one", "options": "--images 16", "precision": "fp32", "rows": rows}
    assert "several processes" not in document([])
    lines = [line for line in document([], [record]).splitlines() if line.startswith("| resnet18")]
    assert [line.strip("| ").split(" | ")[3:] for line in lines] == [
        ["10.0", "1.00", "20.0", "1.00", "60.0", "1.00", "yes"],
        ["5.0", "2.00 (1.7) met", "16.0", "1.25 (1.7) **missed**", "40.0", "1.50", "yes"],
    ]

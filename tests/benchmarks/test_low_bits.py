"""The table of few bits, from results of any origin."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import low_bits, task_rows, tasks, upkeep
from benchmarks.low_bits import GROUPS, SETTINGS, all_rows, document
from benchmarks.rows import DISTILLED, FAMILIES, MIXED_3, W4_EDGES_8, W6A6, W8, Row, at_best
from benchmarks.task_rows import METRICS, WITHOUT_LABELS, TaskRow
from tests.benchmarks.test_without import result

OTHERS = "nanodet_m, fastestdet; espnet_camvid"  # a group as the table writes it


def cells(text: str, title: str, first: str) -> list[str]:
    """The line of a table that begins so."""
    below = text[text.index(title) :].split("\n\n## ")[0].splitlines()
    (line,) = [line for line in below if line.startswith(f"| {first} |")]
    return line.strip("| ").split(" | ")


def task_result(metric: str, before: float, even: float, odd: float) -> dict[str, Any]:
    """Of a detector or a segmenter: the metric before, as a share, and after on the even and the odd places."""
    after = {"all": (even + odd) / 2, "even": even, "odd": odd}
    sets = {
        half: {"float": before, "quantized": value, "difference": 100 * (value - before), "low": -9.0, "high": 1.0}
        for half, value in after.items()
    }
    return {
        "error": None, "metric": metric, "cpu": "a processor", "integer_instructions": "vnni", "threads": 2,
        "precision": "fp32", "versions": {"torch": "2"}, "sets": sets,
    }  # fmt: skip


def test_every_classifier_and_every_other_network_with_labels_stand_in_one_group() -> None:
    labelled = set(METRICS) - set(WITHOUT_LABELS)
    assert sorted(network for group in GROUPS for network in group) == sorted({*FAMILIES, *labelled})
    assert {len(most) for most in GROUPS.values()} == {len(SETTINGS)}
    rows = all_rows()
    assert len(rows) == len({row.file for row in rows}) == (len(FAMILIES) + len(labelled)) * len(SETTINGS)
    assert {row.options().effort for row in rows if row.setting != W8} == {"best"}
    assert {row for row in rows if row.setting == W8 and row.network in labelled} < set(task_rows.all_rows())


def test_a_mean_is_judged_when_all_of_its_networks_are_there() -> None:
    one, other = (Row(name, W8, DISTILLED) for name in ("vit_cifar10", "vgg_cifar10"))
    alone = document({one: result(12)}, set())
    assert cells(alone, "## Loss", "vit_cifar10, vgg_cifar10")[1:3] == ["top-1", "–"]
    metric, before, after, missing = cells(alone, "## Each network, confirmation", "vit_cifar10")[1:5]
    assert (metric, before, missing) == ("top-1", "75.00", "–") and after.startswith("75.00, +0.00 [-")
    both = document({one: result(12), other: result(8)}, {other})
    assert cells(both, "## Loss", "vit_cifar10, vgg_cifar10")[2] == "12.50 (0.5) **missed** `stale`"
    third = Row("vit_cifar10", at_best(W6A6), DISTILLED)
    held = document({one: result(12), other: result(12), third: result(12)}, set())
    assert cells(held, "## Loss", "vit_cifar10, vgg_cifar10")[2:4] == ["0.00 (0.5) met", "–"]


def test_a_failed_row_is_said() -> None:
    row = Row("vit_cifar10", at_best(W6A6), DISTILLED)
    text = document({row: {"key": "", "error": "it took longer than 1 s"}}, set())
    assert "| vit_cifar10-w6a6-best-distilled | it took longer than 1 s |" in text


def test_other_networks_lose_points_of_their_own_metrics_on_the_odd_places() -> None:
    first, second, third = (TaskRow(name, at_best(W6A6)) for name in ("nanodet_m", "fastestdet", "espnet_camvid"))
    found = {first: task_result("mAP", 0.3, 0.2, 0.28), second: task_result("mAP", 0.2, 0.2, 0.19)}
    assert cells(document(found, set()), "## Loss", OTHERS)[1:] == ["mAP; mIoU", *["–"] * 7]
    text = document(found | {third: task_result("mIoU", 0.5, 0.6, 0.485)}, {third})
    assert cells(text, "## Loss", OTHERS)[1:4] == ["mAP; mIoU", "–", "1.50 (1.5) met `stale`"]
    confirmed, chosen = (cells(text, f"## Each network, {role}", "nanodet_m") for role in ("confirm", "selection"))
    assert confirmed[1:5] == ["mAP", "30.00", "–", "28.00, -2.00 [-9.00, +1.00]"]
    assert chosen[1:5] == ["mAP", "30.00", "–", "20.00, -10.00 [-9.00, +1.00]"]
    assert cells(text, "## Each network, confirm", "espnet_camvid")[4] == "48.50, -1.50 [-9.00, +1.00] `stale`"
    worse = document(found | {third: task_result("mIoU", 0.5, 0.6, 0.484)}, set())
    assert cells(worse, "## Loss", OTHERS)[3] == "1.53 (1.5) **missed**"


def test_a_figure_without_a_limit_is_reported() -> None:
    rows = [TaskRow(name, at_best(MIXED_3)) for name in ("nanodet_m", "fastestdet", "espnet_camvid")]
    text = document({row: task_result("mAP", 0.3, 0.3, 0.2) for row in rows}, set())
    assert cells(text, "## Loss", OTHERS)[-1] == "10.00"


def test_rows_of_other_tasks_are_measured_by_their_own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "networks").mkdir()
    monkeypatch.setattr(task_rows, "RESULTS", tmp_path)
    monkeypatch.setattr(low_bits, "DOCUMENT", tmp_path / "low-bits.md")
    calls: list[list[str]] = []

    def measured(module: str, words: list[str], asked: Any) -> tuple[dict[str, Any], str | None]:
        calls.append([module, *words])
        return task_result("mAP", 0.3, 0.3, 0.25), None

    monkeypatch.setattr(upkeep, "measured", measured)
    setting = at_best(W4_EDGES_8)
    asked = ["--data", str(tmp_path), "--networks", "nanodet_m,fastestdet", "--settings", setting]
    monkeypatch.setattr(sys, "argv", ["low_bits", *asked])
    assert low_bits.main() == 0 and low_bits.main() == 0
    assert calls == [["benchmarks.task_measure", name, setting] for name in ("nanodet_m", "fastestdet")]
    assert (tmp_path / f"nanodet_m-{setting}.json").is_file()
    line = cells((tmp_path / "low-bits.md").read_text(), "## Each network, confirmation", "fastestdet")
    assert line[6] == "–" and line[7] == "25.00, -5.00 [-9.00, +1.00]"


def test_the_command_of_the_other_tasks_has_its_two_settings_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["--data", str(tmp_path), "--markdown-only", "--settings", at_best(W4_EDGES_8)]
    monkeypatch.setattr(sys, "argv", ["tasks", *asked])
    with pytest.raises(SystemExit):
        tasks.main()
    assert "choose from w8a8, avg4-a8." in capsys.readouterr().err

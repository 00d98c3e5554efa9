"""The document of networks without BatchNorm, from results of any origin."""

from __future__ import annotations

from typing import Any

from benchmarks import rows
from benchmarks.rows import DISTILLED, RANDOM, REAL, W4, W8, Row
from benchmarks.without import IMAGES, ROWS, document


def result(right: int) -> dict[str, Any]:
    """Of 16 pictures in each half, 12 of which the float network has right and so many the quantized one."""
    half = {
        "name": "some", "images": 16, "float_top1": 12, "top1": right, "float_correct": "fff0",
        "correct": f"{(1 << 16) - (1 << (16 - right)):04x}", "agreement": 1.0, "mean_divergence": 0.00125,
    }  # fmt: skip
    return {
        "key": "", "error": None, "cpu": "a processor", "integer_instructions": "vnni", "threads": 2,
        "precision": "fp32", "versions": {"torch": "2"}, "sets": {"selection": half, "confirmation": half},
        "range_sources": {"neither": 8}, "integer_nodes": {"QGemm": 2}, "float_nodes": {}, "integer_share": 1.0,
        "simulation": {"images": 16, "same_class": 16}, "total_seconds": 12.3,
    }  # fmt: skip


def lines(text: str, title: str) -> list[list[str]]:
    """Cells of the table below a title."""
    below = text[text.index(title) :].split("\n\n## ")[0].splitlines()
    return [line.strip("| ").split(" | ") for line in below if line.startswith("| v")]


def test_rows_are_every_network_in_every_setting_with_every_kind_of_pictures() -> None:
    assert len(ROWS) == len({row.name for row in ROWS}) == len(rows.WITHOUT_NORM) * 3 * len(IMAGES)
    assert not set(rows.WITHOUT_NORM) & set(rows.NETWORKS)


def test_the_document_says_what_was_measured() -> None:
    ours, random = Row("vgg_cifar10", W8, DISTILLED), Row("vgg_cifar10", W8, RANDOM)
    text = document({ours: result(12), random: result(8)}, {random})
    accuracy = lines(text, "## Accuracy")
    assert len(accuracy) == len(ROWS)
    (mine,) = [cells for cells in accuracy if cells[:3] == ["vgg_cifar10", W8, IMAGES[DISTILLED]]]
    assert mine[3:5] == ["75.00", "75.00"] and mine[5].startswith("+0.00 [") and mine[-1] == "met"
    assert [cells[-1] for cells in accuracy if cells[2] != IMAGES[DISTILLED]] == ["–"] * 12
    (beside,) = [c for c in lines(text, "## Beside") if c[:3] == ["vgg_cifar10", W8, IMAGES[RANDOM]]]
    assert beside[3].startswith("+25.00 [") and beside[3].endswith("`stale`") and beside[5] == "0.00125"
    assert lines(text, "## Ranges")[0][2:5] == ["8 neither", "2 QGemm", "none"]


def test_a_missed_limit_and_a_failed_row_are_said() -> None:
    text = document(
        {
            Row("vit_cifar10", W8, DISTILLED): result(2),
            Row("vit_cifar10", W4, REAL): {"key": "", "error": "it took longer than 1 s"},
        },
        set(),
    )
    assert lines(text, "## Accuracy")[0][-1] == "**missed**"
    assert "| vit_cifar10-w4a8-real | it took longer than 1 s |" in text
    assert "Nothing was measured yet." in document({}, set())

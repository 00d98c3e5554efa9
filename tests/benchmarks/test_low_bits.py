"""The table of few bits, from results of any origin."""

from __future__ import annotations

from benchmarks.low_bits import GROUPS, ROWS, SETTINGS, document
from benchmarks.rows import DISTILLED, FAMILIES, W6A6, W8, Row, at_best
from tests.benchmarks.test_without import result


def cells(text: str, title: str, first: str) -> list[str]:
    """The line of a table that begins so."""
    below = text[text.index(title) :].split("\n\n## ")[0].splitlines()
    (line,) = [line for line in below if line.startswith(f"| {first} |")]
    return line.strip("| ").split(" | ")


def test_every_classifier_stands_in_one_group() -> None:
    assert sorted(network for group in GROUPS for network in group) == sorted(FAMILIES)
    assert {len(most) for most in GROUPS.values()} == {len(SETTINGS)}
    assert len(ROWS) == len(set(ROWS)) == len(FAMILIES) * len(SETTINGS)


def test_a_mean_is_judged_when_all_of_its_networks_are_there() -> None:
    one, other = (Row(name, W8, DISTILLED) for name in ("vit_cifar10", "vgg_cifar10"))
    alone = document({one: result(12)}, set())
    assert cells(alone, "## Loss", "vit_cifar10, vgg_cifar10")[1] == "–"
    before, after, missing = cells(alone, "## Each network, confirmation", "vit_cifar10")[1:4]
    assert (before, missing) == ("75.00", "–") and after.startswith("75.00, +0.00 [-")
    both = document({one: result(12), other: result(8)}, {other})
    assert cells(both, "## Loss", "vit_cifar10, vgg_cifar10")[1] == "12.50 (0.5) **missed** `stale`"
    third = Row("vit_cifar10", at_best(W6A6), DISTILLED)
    held = document({one: result(12), other: result(12), third: result(12)}, set())
    assert cells(held, "## Loss", "vit_cifar10, vgg_cifar10")[1:3] == ["0.00 (0.5) met", "–"]


def test_a_failed_row_is_said() -> None:
    row = Row("vit_cifar10", at_best(W6A6), DISTILLED)
    text = document({row: {"key": "", "error": "it took longer than 1 s"}}, set())
    assert "| vit_cifar10-w6a6-best-distilled | it took longer than 1 s |" in text

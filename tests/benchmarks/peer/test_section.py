"""What the page says of the toolkit beside ours."""

from __future__ import annotations

from typing import Any

from benchmarks.document import Results, document
from benchmarks.peer.rows import PeerRow
from benchmarks.peer.section import section
from benchmarks.rows import DISTILLED, W8, Row
from tests.benchmarks.test_without import result

OURS, PEER = Row("resnet20_cifar10", W8, DISTILLED), PeerRow("resnet20_cifar10", W8, 60)


def ours_of(right: int) -> dict[str, Any]:
    """A row of ours that has so many of 16 pictures right."""
    return result(right) | {"average_bits": 8.0, "layers_by_bits": {"8": 9}}


def peer(right: int) -> dict[str, Any]:
    """A row of the toolkit that has so many of 16 pictures right."""
    return {
        "versions": {"toolkit": "2", "torch": "1"}, "key": "", "error": None, "sets": result(right)["sets"],
        "average_bits": 3.98, "layers_by_bits": {"2": 1, "8": 3},
    }  # fmt: skip


def cells(parts: list[str], title: str) -> list[str]:
    """Of the only line of the table below a title."""
    return parts[parts.index(title) + 1].splitlines()[2].strip("| ").split(" | ")


def test_both_stand_beside_float_on_both_halves() -> None:
    ours = Results({OURS: ours_of(12)}, frozenset())
    parts = section(ours, {PEER: peer(8)}, set())
    assert parts[0] == "## Beside model-compression-toolkit" and "Versions: toolkit 2, torch 1." in parts[1]
    for half in ("Confirmation", "Selection"):
        line = cells(parts, f"### {half}, beside the toolkit")
        assert line[:4] == ["resnet20_cifar10", "W8A8", "75.00", "75.00"] and line[4].startswith("+0.00 [")
        assert line[5] == "50.00 (60 of 500 iterations)"
        assert line[6].startswith("-25.00 [") and line[7].startswith("+25.00 [")
    assert cells(parts, "### Bits chosen")[2:] == ["8.000", "0, 0, 9", "3.980", "1, 0, 3", "60 of 500"]
    whole = section(ours, {PeerRow("resnet20_cifar10", W8): peer(8)}, set())
    assert cells(whole, "### Bits chosen")[6] == "500"
    assert cells(whole, "### Selection, beside the toolkit")[5] == "50.00"
    assert document({}, set(), parts).endswith(f"{parts[-1]}\n")


def test_what_no_longer_holds_is_marked_and_what_is_missing_left_open() -> None:
    line = cells(section(Results({}, frozenset()), {PEER: peer(8)}, {PEER}), "### Selection, beside the toolkit")
    assert line[3:5] == ["–", "–"] and line[5] == "50.00 (60 of 500 iterations) `stale`" and line[7] == "–"
    stale = section(Results({OURS: ours_of(12)}, frozenset({OURS})), {PEER: peer(8)}, set())
    line = cells(stale, "### Selection, beside the toolkit")
    assert line[3].endswith("`stale`") and not line[5].endswith("`stale`") and line[7].endswith("`stale`")


def test_a_failure_is_said_and_nothing_without_rows() -> None:
    assert section(Results({}, frozenset()), {}, set()) == []
    parts = section(Results({}, frozenset()), {PEER: {"key": "", "error": "no toolkit"}}, set())
    assert "| resnet20_cifar10-w8a8 | no toolkit |" in parts[-1] and "Versions: none yet." in parts[1]

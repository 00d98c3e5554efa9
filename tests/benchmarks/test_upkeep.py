"""Rows of every kind: measured once until the method changes, in processes of their own."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest

from benchmarks import recipe_rows, rows, task_rows, upkeep
from benchmarks.process import read, results_of
from benchmarks.recipe_rows import DFQ, RecipeRow
from benchmarks.rows import DISTILLED, MIXED, W8, Row
from benchmarks.task_rows import TaskRow
from benchmarks.upkeep import Measurable, measure_rows, renew_networks

WORDS: dict[Measurable, list[str]] = {  # of the row's process
    Row("etinynet", MIXED, DISTILLED): ["benchmarks.measure", "etinynet", MIXED, DISTILLED],
    TaskRow("fastestdet", W8): ["benchmarks.task_measure", "fastestdet", W8],
    RecipeRow("etinynet", W8, DFQ): ["benchmarks.recipe_measure", "etinynet", W8, DFQ],
}


@pytest.fixture(autouse=True)
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (rows, task_rows, recipe_rows):
        monkeypatch.setattr(module, "RESULTS", tmp_path)


def asked_for(row: Measurable, **further: Any) -> argparse.Namespace:
    return argparse.Namespace(networks=[row.network], settings=[row.setting], **{"markdown_only": False} | further)


@pytest.mark.parametrize("row", WORDS, ids=lambda row: row.name)
def test_a_row_is_measured_once_until_the_method_changes(row: Measurable, monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes: list[tuple[dict[str, Any], str | None]] = [({}, "no luck"), ({"found": 1}, None), ({"found": 2}, None)]
    calls: list[list[str]] = []

    def measured(module: str, words: list[str], asked: argparse.Namespace) -> tuple[dict[str, Any], str | None]:
        calls.append([module, *words])
        return outcomes.pop(0)

    documents: list[Any] = []
    monkeypatch.setattr(upkeep, "measured", measured)
    keys = ["one"]
    monkeypatch.setattr(type(row), "valid_keys", lambda self: keys)

    def measure(**further: Any) -> int:
        return measure_rows([row], asked_for(row, **further), lambda: documents.append(read(row.file)))

    assert measure(markdown_only=True) == 0 and documents == [None] and not calls
    assert measure() == 1 and documents[-1]["error"] == "no luck"
    assert measure() == 0 and measure() == 0 and len(outcomes) == 1
    assert documents[-1] == row.facts | {"key": "one", "error": None, "found": 1}
    assert results_of([row])[1] == set()
    keys = ["earlier", "one"]  # of a program that is shown to be equal to that of the result
    assert results_of([row])[1] == set() and measure() == 0 and len(outcomes) == 1
    keys = ["two", "three"]
    assert results_of([row])[1] == {row}
    assert measure() == 0 and documents[-1]["found"] == 2 and documents[-1]["key"] == "two"
    assert calls == [WORDS[row]] * 3


def test_rows_that_were_not_asked_for_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "measured", lambda module, words, asked: ({}, None))
    row, third = (Row("etinynet", setting, DISTILLED) for setting in (W8, MIXED))
    other = Row("mobilenet_v2", W8, DISTILLED)
    assert measure_rows([other, row, third], asked_for(row), lambda: None) == 0
    record = read(row.file)
    assert record is not None and record["key"] == row.valid_keys()[0]
    assert not other.file.exists() and not third.file.exists()


def test_each_network_is_measured_here_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = argparse.Namespace(networks=["one", "two"], data=tmp_path, threads=1, markdown_only=False)
    measured: list[str] = []
    documents: list[int] = []

    def measure(name: str, data: Path, threads: int | None) -> tuple[dict[str, Any], None]:
        assert (data, threads) == (tmp_path, 1)
        measured.append(name)
        return {"found": f"all of {name}"}, None

    def renew(code: str) -> None:
        renew_networks(asked, tmp_path, lambda name: name + code, measure, lambda: documents.append(1), "found")

    renew("a")
    assert "two: 0 s\n    all of two\n" in capsys.readouterr().out
    renew("a")
    assert measured == ["one", "two"] and len(documents) == 2 + 1 + 1
    renew("b")
    assert measured == ["one", "two"] * 2
    asked.markdown_only = True
    renew("c")
    assert len(measured) == 4 and read(tmp_path / "one.json")["key"] == "oneb"  # type: ignore[index]

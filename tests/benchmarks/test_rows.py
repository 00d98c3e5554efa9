"""Rows and their keys: what makes a result stale, and what does not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import rows
from benchmarks.rows import (
    DISTILLED,
    W4,
    W4_EDGES_8,
    W4A4,
    W6A6,
    W8,
    W8_NOT_PORTABLE,
    Row,
    all_rows,
    at_best,
    method_code,
    program,
)


def test_every_row_has_a_name_of_its_own_and_valid_options() -> None:
    names = [row.name for row in all_rows()]
    assert len(set(names)) == len(names) == 6 * len(rows.NETWORKS)
    labels = {setting: Row("etinynet", setting, DISTILLED).options().label for setting in rows.SETTINGS}
    special = {W8_NOT_PORTABLE: W8, W4_EDGES_8: W4}  # a label says nothing of edges and of saturation, or of efforts
    plain = [setting for setting in rows.SETTINGS if at_best(setting) in rows.SETTINGS]
    expected = {setting: special.get(setting, setting) for setting in plain}
    assert labels == expected | {at_best(setting): label for setting, label in expected.items()}


def test_keys_differ_by_row_and_by_method(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "codes_for", lambda row: ["one", "another"])
    keys = {key for row in all_rows() for key in row.valid_keys()}
    assert len(keys) == 2 * len(all_rows())
    assert Row("etinynet", W8, DISTILLED).valid_keys() == Row("etinynet", W8, DISTILLED).valid_keys()


def test_rows_that_are_reconstructed_are_kept_by_its_program_too(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = [Row("etinynet", setting, DISTILLED) for setting in (W4A4, at_best(W4A4), at_best(W6A6))]
    monkeypatch.setattr(rows, "codes_for", lambda row: ["one"])
    before = [row.valid_keys() for row in chosen]
    monkeypatch.setattr(rows, "LEARNING", rows.LEARNING[1:])
    assert [row.valid_keys() == keys for row, keys in zip(chosen, before, strict=True)] == [True, False, True]


def test_results_of_equal_programs_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever of them measured: those on the way to the earliest, and those beside it."""
    monkeypatch.setattr(rows, "EQUIVALENT", tmp_path / "equivalent.json")
    known = {
        "now": [{"as": "before"}],
        "before": [{"as": "first", "but": ["etinynet"]}, {"as": "another", "inputs": 6}],
        "beside": [{"as": "first"}],
        "other": [{"as": "third"}],
    }
    rows.EQUIVALENT.write_text(json.dumps(known))
    assert rows.equal_to("now", "resnet20_cifar10") == ["first", "before", "beside", "now"]
    assert rows.equal_to("now", "etinynet", 6) == ["another", "before", "now"]
    assert rows.equal_to("now", "etinynet") == rows.equal_to("now", "etinynet", 8) == ["before", "now"]
    monkeypatch.setattr(rows, "code_of", lambda parts: "now")
    assert rows.codes_for(Row("etinynet", W6A6, DISTILLED)) == ["another", "before", "now"]
    assert len(Row("etinynet", W8, DISTILLED).valid_keys()) == 2


def test_wording_does_not_change_a_program_and_everything_else_does() -> None:
    text = '"""A module."""\n\ndef double(value):\n    """Twice."""\n    return 2 * value\n'
    assert program(text) == program("def double(value):  # why\n    return (2 *\n        value)\n")
    for old, new in {"2 *": "3 *", "* value": "+ value", "(value)": "(value=1)", "2": "2.0", "double": "twice"}.items():
        assert program(text) != program(text.replace(old, new))


def test_code_of_the_method_is_read_from_every_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for part in rows.METHOD:
        assert (rows.SOURCE / part).exists()
        file = tmp_path / part / "one.py" if (rows.SOURCE / part).is_dir() else tmp_path / part
        file.parent.mkdir(exist_ok=True)
        file.write_text("value = 1\n")
    monkeypatch.setattr(rows, "SOURCE", tmp_path)
    seen = {method_code("any")}
    for file in tmp_path.rglob("*.py"):
        file.write_text("value = 2\n")
        seen.add(method_code("any"))
    assert len(seen) == 1 + len(rows.METHOD)

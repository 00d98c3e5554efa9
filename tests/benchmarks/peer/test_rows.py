"""Rows of the toolkit and their keys."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import rows as accuracy_rows
from benchmarks.peer import rows
from benchmarks.peer.rows import PeerRow, all_rows, kept_rows, peer_code


def test_every_row_has_a_row_of_ours_and_a_key_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    found = all_rows()
    assert len({row.name for row in found}) == len(found) == 4
    assert {row.ours for row in found} <= set(accuracy_rows.all_rows())
    assert rows.IMAGES == 64 and {row.average_bits for row in found} == {None, 4}
    keys: set[str] = set()
    for code in ("one", "another"):
        monkeypatch.setattr(rows, "peer_code", lambda code=code: code)
        keys |= {key for row in [*found, *all_rows(7)] for key in row.valid_keys()}
    assert len(keys) == 4 * len(found)


def test_the_program_that_measures_is_in_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {peer_code()}
    for name in rows.PROGRAMS:
        (tmp_path / f"{name}.py").write_text("value = 1\n")
    monkeypatch.setattr(rows, "__file__", str(tmp_path / "rows.py"))
    seen.add(peer_code())
    for name in rows.PROGRAMS:
        (tmp_path / f"{name}.py").write_text("value = 2\n")
        seen.add(peer_code())
    assert len(seen) == 2 + len(rows.PROGRAMS)


def test_what_is_kept_goes_by_its_own_iterations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "RESULTS", tmp_path)
    assert kept_rows() == []
    row = PeerRow("resnet20_cifar10", "w8a8", 7)
    row.file.write_text(json.dumps({"iterations": 7}))
    assert kept_rows() == [row]

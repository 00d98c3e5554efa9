"""What is asked of the other environment, and what is said where it is not one."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.peer import environment


def test_options_places_and_the_python_are_handed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[Any, ...]] = []
    monkeypatch.setattr(environment, "run_apart", lambda *given: (calls.append(given), ({}, None))[1])
    monkeypatch.chdir(tmp_path)
    environment.run_in(Path("venv/bin/python"), "a.module", ["net"], Path("data"), iterations=3, threads=None)
    words = ["net", "--data", str(tmp_path / "data"), "--iterations", "3"]
    places = {"DATA": tmp_path / "data", "PEER": tmp_path / "venv"}
    assert calls == [("a.module", words, environment.TIME_LIMIT, places, tmp_path / "venv/bin/python")]


def test_an_environment_without_the_toolkit_is_a_failed_row(tmp_path: Path) -> None:
    words = ["resnet20_cifar10", "w8a8"]
    found, error = environment.run_in(Path(sys.executable), "benchmarks.peer.measure", words, tmp_path, iterations=1)
    assert found == {} and error is not None and "DATA/networks" in error and str(tmp_path) not in error

"""A small slice of the benchmark: one row of the embedded network and one of a real one; resuming; the document."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import accuracy, rows
from benchmarks.document import document
from benchmarks.halves import CONFIRMATION, SELECTION, calibration, even_and_odd, halves
from benchmarks.limits import against_float, in_integers, size_kept
from benchmarks.measure import from_hex, measure, to_hex
from benchmarks.process import measured
from benchmarks.rows import DISTILLED, MIXED, RANDOM, REAL, W4, W8, W8_NOT_PORTABLE, Row
from tests.benchmarks.peer.test_section import peer
from zeroq.models import load_model
from zeroq.models.digits import load_test_split
from zeroq.options import Options

QUICK = {"effort": "fast", "images": 8, "iterations": 2, "precision": "fp32", "threads": 1}
STALE = " `stale` |"  # at a cell's end


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The embedded network, measured as every row is."""
    model, folder = load_model("digits"), tmp_path_factory.mktemp("row")
    pixels, labels = load_test_split()
    pictures = even_and_odd("digits", (pixels[:120], labels[:120]), model, 10)
    found = measure(model, Options.of(**QUICK), pictures, folder / "run", folder / "cache")
    assert len(list((folder / "cache").glob("*.npz"))) == 2
    result: dict[str, Any] = json.loads(json.dumps(found))
    return result


def test_a_row_says_what_the_tables_need(record: dict[str, Any]) -> None:
    half = record["sets"][SELECTION]
    assert half["images"] == 60 and half["name"] == "digits, even places"
    assert from_hex(half["correct"], 60).sum() == half["top1"] and half["float_top1"] > 50
    assert abs(against_float(record, SELECTION).difference) < 20
    assert record["simulation"]["images"] == 60 and record["simulation"]["same_class"] >= 59
    assert in_integers(record) and size_kept(record)
    assert record["units"] > 0 and record["peak_memory_mb"] > 0


def test_truth_values_survive_as_text() -> None:
    correct = np.random.default_rng(0).random(37) < 0.5
    assert (from_hex(to_hex(correct), 37) == correct).all()


def as_rows(record: dict[str, Any]) -> dict[Row, dict[str, Any]]:
    """The same figures for every row of one network."""
    network = "resnet20_cifar10"
    facts = {"key": "", "error": None}
    return {Row(network, s, i): record | facts for s, sources in rows.IMAGES.items() for i in sources}


def test_document_marks_what_is_stale_missed_and_failed(record: dict[str, Any]) -> None:
    found = as_rows(record)
    row = Row("resnet20_cifar10", W8, DISTILLED)
    fresh = document(found, set())
    assert STALE not in fresh and "met |" in fresh and "failed" not in fresh
    assert record["cpu"] in fresh
    assert all(cell.endswith("`stale`") for cell in line_of(document(found, {row}), "## 1.")[1:8])

    worse = {role: half | {"correct": "00" * 8, "top1": 0} for role, half in record["sets"].items()}
    text = document(found | {row: found[row] | {"sets": worse}}, set())
    assert line_of(text, "## 1.")[-1] == "**missed**" and line_of(text, "## 3.")[-1] == "met"

    text = document(found | {row: {"key": "", "error": "it took longer than 1 s"}}, set())
    assert line_of(text, "## 1.")[1:] == ["–"] * 7
    assert "| resnet20_cifar10-w8a8-distilled | it took longer than 1 s |" in text


def test_a_mean_is_judged_when_every_network_is_there(record: dict[str, Any]) -> None:
    found = {Row(network, W8, DISTILLED): record | {"key": "", "error": None} for network in rows.NETWORKS}
    assert mean_of(document(found, set())) == ["mean of 9", "met" if worth_it(record) else "**missed**"]
    assert mean_of(document(found, {Row("etinynet", W8, DISTILLED)}))[0] == "mean of 9 `stale`"
    found.pop(Row("etinynet", W8, DISTILLED))
    assert mean_of(document(found, set())) == ["mean of 8", "–"]


def worth_it(record: dict[str, Any]) -> bool:
    return against_float(record, CONFIRMATION).difference >= -0.5


def mean_of(text: str) -> list[str]:
    """First and last cell of the first line of means."""
    cells = next(line for line in text.splitlines() if line.startswith("| mean of ")).strip("| ").split(" | ")
    return [cells[0], cells[-1]]


def line_of(text: str, title: str) -> list[str]:
    """Cells of the network's first line in the table below a title."""
    line = next(line for line in text[text.index(title) :].splitlines() if line.startswith("| resnet20_cifar10 "))
    return line.strip("| ").split(" | ")


def test_document_without_results_says_so() -> None:
    assert "Nothing was measured yet." in document({}, set())


def test_a_row_of_the_toolkit_is_measured_once_for_its_iterations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[dict[str, Any]] = []
    found = {name: value for name, value in peer(8).items() if name not in ("key", "error")}

    def run_in(
        python: Path, module: str, words: list[str], data: Path, **options: Any
    ) -> tuple[dict[str, Any], str | None]:
        calls.append({"python": python, "module": module, "words": words, **options})
        return ({}, "no toolkit") if len(calls) == 1 else (found, None)

    monkeypatch.setattr(accuracy, "run_in", run_in)
    monkeypatch.setattr(accuracy, "DOCUMENT", tmp_path / "benchmarks.md")
    monkeypatch.setattr(rows, "RESULTS", tmp_path / "ours")
    monkeypatch.setattr(accuracy.peer_rows, "RESULTS", tmp_path / "peer")
    (tmp_path / "networks").mkdir()
    given = f"accuracy --data {tmp_path} --images  --settings w8a8 --networks resnet20_cifar10,etinynet".split(" ")
    peer_asked = ["--peer", sys.executable, "--threads", "1"]

    def run(*further: str) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", [*given, *further])
        return accuracy.main(), (tmp_path / "benchmarks.md").read_text()

    code, without = run()
    assert code == 0 and "toolkit" not in without and not calls
    code, text = run(*peer_asked)
    assert code == 1 and "| resnet20_cifar10-w8a8 | no toolkit |" in text
    code, text = run(*peer_asked)
    assert code == 0 and "## Beside model-compression-toolkit" in text and "| 500 |" in text and STALE not in text
    assert run(*peer_asked) == (0, text) and run("--markdown-only") == (0, text) and len(calls) == 2
    code, text = run(*peer_asked, "--peer-iterations", "60")
    assert code == 0 and "| 60 of 500 |" in text and STALE not in text
    assert [call.pop("iterations") for call in calls] == [500, 500, 60]
    words = ["resnet20_cifar10", "w8a8"]
    asked_for = {"python": Path(sys.executable), "module": "benchmarks.peer.measure", "words": words, "threads": 1}
    assert calls == [asked_for] * 3
    assert "1/1 resnet20_cifar10-w8a8, toolkit: still holds" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--peer", "nowhere/python"], "--peer nowhere/python is no file: name the python of an environment that has"),
        (["--peer-iterations", "0"], "--peer-iterations 0: images take 1 or more."),
        (["--images", "fake"], "--images fake: choose from distilled, real, random."),
    ],
)
def test_a_word_that_cannot_be_is_refused(
    words: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.argv", ["accuracy", "--data", str(tmp_path), "--markdown-only", *words])
    monkeypatch.setattr(accuracy, "DOCUMENT", tmp_path / "benchmarks.md")
    with pytest.raises(SystemExit, match="2"):
        accuracy.main()
    assert message in capsys.readouterr().err


def test_a_failure_and_a_time_limit_are_results_without_paths(tmp_path: Path) -> None:
    module, words = "benchmarks.measure", ["resnet20_cifar10", W4, DISTILLED]
    asked = argparse.Namespace(data=tmp_path, threads=1, time_limit=100.0)
    found, error = measured(module, words, asked)
    assert found == {} and error is not None and "DATA/networks" in error and str(tmp_path) not in error
    asked.time_limit = 0.01
    assert measured(module, words, asked) == ({}, "it took longer than 0.01 s")


def test_slice_of_a_real_network(shared_data: Path, tmp_path: Path) -> None:
    row = Row("resnet20_cifar10", W4, RANDOM)  # the plain setting is the quickest
    model = load_model(f"{shared_data / 'networks' / row.network}.py:{row.network}")
    pictures = halves(row.network, model, shared_data)
    assert [len(half.data) for half in pictures] == [750, 750]
    assert calibration(Row(row.network, W8_NOT_PORTABLE, DISTILLED), model, shared_data, tmp_path) is None
    real = calibration(Row(row.network, MIXED, REAL), model, shared_data, tmp_path)
    assert real is not None and real.name == "cifar10_other_64.npz"
    random = calibration(row, model, shared_data, tmp_path)
    assert random is not None
    with np.load(random) as arrays:
        assert arrays["images"].shape == (64, 32, 32, 3)
        pixels, labels = arrays["images"][:32], np.arange(32) % 10
    few = even_and_odd("random", (pixels, labels), model, 10)
    options = row.options(calibration=random, images=4, threads=1)
    found = measure(model, options, few, tmp_path / "run", tmp_path / "cache")
    assert found["average_bits"] == 4 and found["sets"][SELECTION]["images"] == 16

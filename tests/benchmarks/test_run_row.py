"""A whole run of a tiny network, in seconds and units."""

from __future__ import annotations

import json

import pytest
import torch

from benchmarks import run_row
from benchmarks.document import STAGES
from tests.benchmarks.subjects import PREPROCESSING
from tests.networks import block, classifier


def test_a_run_has_its_stages_and_units(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_row, "OPTIONS", {"average_bits": 4, "images": 8, "iterations": 1})
    torch.manual_seed(0)
    module = classifier(block(3, 4), block(4, 8)).eval()
    found = json.loads(json.dumps(run_row.measure(module, PREPROCESSING, "tiny", {"device": "cpu", "threads": 1})))
    assert set(STAGES) <= found["seconds"].keys() and found["average_bits"] <= 4
    assert found["units"] == pytest.approx(found["total_seconds"] / found["unit_seconds"], rel=0.2)
    assert found["peak_memory_mb"].keys() == set(STAGES) and "again" not in found


def test_a_second_run_in_the_same_process_is_timed_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_row, "OPTIONS", {"average_bits": 4, "images": 4, "iterations": 0})
    options = {"device": "cpu", "threads": 1}
    found = run_row.measure(classifier(block(3, 8)).eval(), PREPROCESSING, "tiny", options, again=True)
    assert found["again"].keys() == {"seconds", "total_seconds"} and set(STAGES) <= found["again"]["seconds"].keys()

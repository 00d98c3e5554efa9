"""The floor of a step, and a tiny network's step beside it."""

from __future__ import annotations

import pytest
import torch

from benchmarks import step_profile
from benchmarks.step_counts import CONVOLUTIONS, KINDS, Pass
from benchmarks.step_profile import Peaks, in_turns, measured, part
from tests.benchmarks.subjects import tiny
from zeroq.distillation.images import prepare
from zeroq.distillation.starts import natural_noise
from zeroq.precision import Precision


def test_the_longer_of_computing_and_moving_counts_operator_by_operator() -> None:
    peaks = Peaks(multiply_accumulates=100.0, bytes_moved=10.0)
    computing, moving = Pass(CONVOLUTIONS, 50, 1), Pass(CONVOLUTIONS, 1, 5, 8)
    assert peaks.floor(computing, 4) == pytest.approx(2.0) and peaks.floor(moving, 4) == pytest.approx(2.8)
    of_two_batches = part([computing, moving], peaks, 16)
    assert of_two_batches["floor_seconds"] == pytest.approx(2 * (16 * 0.5 + (16 * 5 + 8) / 10))
    assert of_two_batches["multiply_accumulates"] == 32 * 51 and of_two_batches["bytes_moved"] == 2 * (16 * 6 + 8)


def test_steps_and_units_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_profile, "ROUNDS", 3)
    subject, asked = tiny(), []

    def unit() -> float:
        asked.append(len(asked))
        return float(len(asked))

    images = natural_noise((2, 3, 8, 8), subject.statistic, torch.Generator().manual_seed(0))
    steps, units = in_turns(images, prepare(subject.network, subject.statistic, Precision()), unit)
    assert len(steps) == 3 and min(steps) > 0 and units == [2.0, 3.0, 4.0], "the first of each does not count"


def test_a_step_of_a_tiny_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_profile, "SIDE", 64)
    monkeypatch.setattr(step_profile, "COPIED", 1 << 16)
    found = measured(tiny())
    assert found["batch"] == 32 and found["step_seconds"] > 0 and found["unit_seconds"] > 0
    assert list(found["parts"]) == list(KINDS) and min(found["peaks"].values()) > 1e6
    assert sum(each["share"] for each in found["parts"].values()) == pytest.approx(1, abs=0.001)

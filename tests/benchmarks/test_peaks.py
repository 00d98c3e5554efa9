"""Peak memory of each stage by itself."""

from __future__ import annotations

import torch

import zeroq
from benchmarks.peaks import STEPS, peak_mb, peaks_by_stage
from tests.networks import NETWORKS, example_of
from tests.runs import QUICK
from zeroq import pipeline
from zeroq.resident import STATUS, forget_peak
from zeroq.stages import Stages


def test_a_peak_is_seen_and_forgotten() -> None:
    assert STATUS.is_file()
    forget_peak()
    before = peak_mb()
    kept = torch.ones(25_000_000)  # 100 MB
    assert peak_mb() > before + 90
    del kept
    forget_peak()
    assert peak_mb() < before + 50


def test_every_stage_has_its_peak_and_the_stages_are_left_as_they_were() -> None:
    prepare, distil = pipeline.prepare, Stages.distil
    with peaks_by_stage() as peaks:
        zeroq.quantize(NETWORKS["plain"](), example_of("plain"), **QUICK)
    assert list(peaks) == list(STEPS) and min(peaks.values()) > 50
    assert pipeline.prepare is prepare and Stages.distil is distil

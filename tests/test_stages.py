"""Measures, keys and memory of stages; whole runs are in test_pipeline.py."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.runs import QUICK, loaded, prepare_once
from zeroq.candidates import ERRORS, MEANS, NOTHING
from zeroq.models.resolve import from_module
from zeroq.options import SENSITIVITIES, Options
from zeroq.preparation import Prepared, prepare
from zeroq.ranges import observe
from zeroq.run_directory import RunDirectory
from zeroq.simulate.outputs import output_quantizers
from zeroq.stages import MEASURES, Stages, chosen_correction


@pytest.fixture
def prepared() -> Prepared:
    return prepare_once(loaded("residual"), Options.of(**QUICK, average_bits=4))


def test_every_measure_has_a_rounding() -> None:
    assert tuple(MEASURES) == SENSITIVITIES
    assert MEASURES["kl"] == "nearest", "the paper's"


def test_the_key_of_every_stage_holds_the_network_and_the_threads(prepared: Prepared, tmp_path: Path) -> None:
    with RunDirectory(tmp_path / "run") as run:
        origin = Stages(run, prepared, lambda stage, done, total: None).origin()
    assert {"version", "torch", "weights", "graph", "input_shape", "preprocess", "device", "threads"} <= set(origin)
    other = prepare(loaded("plain"), prepared.options)
    with RunDirectory(tmp_path / "other") as run:
        assert Stages(run, other, lambda stage, done, total: None).origin()["graph"] != origin["graph"]


@pytest.mark.parametrize(
    ("errors", "means", "nothing", "expected"),
    [
        (0.5, 1.0, 2.0, ERRORS), (0.8, 1.0, 2.0, ERRORS), (0.85, 1.0, 2.0, MEANS), (3.0, 1.0, 2.0, MEANS),
        (0.85, 1.0, 0.9, NOTHING), (0.5, 1.0, 0.4, NOTHING), (0.0, 0.0, 0.0, ERRORS),
    ],
)  # fmt: skip
def test_errors_are_corrected_where_that_is_clearly_better(
    errors: float, means: float, nothing: float, expected: str
) -> None:
    assert chosen_correction({ERRORS: errors, MEANS: means, NOTHING: nothing}) == expected


@pytest.mark.parametrize(("asked", "allowed"), [(0.001, False), (0.0024, True), (None, True)])
def test_outputs_in_floating_point_are_held_to_the_peak(asked: float | None, allowed: bool, tmp_path: Path) -> None:
    """A map of 8 channels leaves, made from one of 4: at 8 bits they take 768 bytes, with the one at 32 bits 2,304."""
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 8, 1)).eval()
    prepared = prepare(from_module(network, torch.randn(2, 3, 8, 8)), Options.of(**QUICK, activation_mb=asked))
    quantizers = list(output_quantizers(prepared.folded, prepared.placement).values())
    assert quantizers
    with RunDirectory(tmp_path / "run") as run:
        stages = Stages(run, prepared, lambda stage, done, total: None)
        assert stages.keeps_peak(quantizers) is allowed and stages.keeps_peak([])


def test_memory_stays_flat_over_many_pictures() -> None:
    """onnxruntime's calibration keeps every value of every picture (26321, 21979)."""
    model = loaded("wide_input")
    prepared = prepare(model, Options.of(**QUICK))
    images = torch.randn(256, 3, 64, 96)  # 19 MB, whose values in this network take 0.4 GB
    observe(prepared.folded, prepared.placement, images[:16], prepared.plan.input_bits)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    observe(prepared.folded, prepared.placement, images, prepared.plan.input_bits)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 60_000, f"{grown} kB more for 256 pictures than for 16"

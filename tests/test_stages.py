"""Measures, keys and memory of stages; whole runs are in test_pipeline.py."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest
import torch

from tests.runs import QUICK, loaded, prepare_once, quick_run
from zeroq.options import SENSITIVITIES, Options
from zeroq.preparation import Prepared, prepare
from zeroq.ranges import observe
from zeroq.run_directory import RunDirectory
from zeroq.stages import MEASURES, Stages
from zeroq.whole_files import read_json


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


def test_sensitivities_are_measured_again_where_weights_are_rounded_otherwise(tmp_path: Path) -> None:
    options = {"weight_bits": (4, 8), "average_bits": 6, "out": tmp_path / "run"}
    quick_run("residual", **options)
    key = read_json(tmp_path / "run" / "run.json")["stages"]["sensitivity"]
    quick_run("residual", portable=False, **options)
    assert read_json(tmp_path / "run" / "run.json")["stages"]["sensitivity"] != key


@pytest.mark.parametrize(("asked", "coarse"), [("bf16", [2]), ("fp32", None)])
def test_long_sensitivities_of_narrow_widths_are_measured_in_bf16(
    asked: str, coarse: list[int] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zeroq.sensitivity.LONG", 0)
    options = {"average_bits": 4, "precision": asked}
    for _ in range(2):  # the second resumes
        run = quick_run("residual", out=tmp_path / "run", **options)
        assert read_json(run.directory / "sensitivity.json").get("coarse") == coarse
        assert read_json(run.directory / "run.json")["sensitivity_in_bf16"] == (coarse is not None)


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

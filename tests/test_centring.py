"""Channels of a whole run are centred before its ranges are fitted, once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import zeroq.centring
from tests.networks import NETWORKS, example_of
from tests.runs import QUICK, assert_same, contents, loaded, prepare_once
from zeroq.candidates import Images
from zeroq.fitted_ranges import fit_ranges
from zeroq.options import Options
from zeroq.pipeline import quantize_model
from zeroq.repair import middles
from zeroq.run_directory import read_json

ASKED = Options.of(**QUICK, average_bits=4)


def test_a_run_takes_up_the_centres_that_it_has_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = quantize_model(loaded("linear_depthwise"), ASKED, tmp_path / "run")
    before = contents(first.directory)
    (site,) = before[zeroq.centring.FILE]
    assert len(before[zeroq.centring.FILE][site]) == 8
    assert first.result["verification"]["agreement"] == 1

    def never(*_: Any) -> None:
        raise AssertionError("centres are found again")

    monkeypatch.setattr(zeroq.centring, "middles", never)
    (first.directory / "model.onnx").unlink()
    assert_same(contents(quantize_model(loaded("linear_depthwise"), ASKED, first.directory).directory), before)


def test_a_network_without_such_channels_has_no_such_stage(tmp_path: Path) -> None:
    run = quantize_model(loaded("depthwise"), ASKED, tmp_path / "run")
    assert not (run.directory / zeroq.centring.FILE).exists()
    assert "centres" not in read_json(run.directory / "run.json")["stages"]


def test_ranges_are_those_of_centred_channels() -> None:
    prepared = prepare_once(loaded("linear_depthwise"), ASKED)
    images = Images(example_of("linear_depthwise", 32, seed=1), "distilled")
    centres = middles(prepared.folded, images.observed)
    (site,) = centres
    plain, centred = (fit_ranges(each, images)[site] for each in (prepared, prepared.centred(centres)))
    assert centred.high - centred.low < plain.high - plain.low
    inputs = example_of("linear_depthwise", 5, seed=3)
    with torch.inference_mode():
        expected = NETWORKS["linear_depthwise"]()(inputs)
        torch.testing.assert_close(prepared.centred(centres).folded.run(inputs), expected, rtol=1e-4, atol=1e-5)

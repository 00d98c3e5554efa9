"""The page and the pictures on it, from what a run directory holds."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import zeroq
from tests.networks import NETWORKS, example_of
from tests.runs import QUICK, shared_run
from zeroq.conclusion import page, pictures, to_pixels, write_report
from zeroq.errors import RunError
from zeroq.preprocessing import Preprocessing, apply_pixels
from zeroq.whole_files import read_json


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A run that a test may change."""
    return shared_run().save(tmp_path / "run")


@pytest.mark.parametrize("channels", ["RGB", "BGR", "L", None])
def test_pixels_come_back_from_inputs(channels: str | None) -> None:
    count = {"L": 1, None: 5}.get(channels, 3)
    preprocessing = Preprocessing(
        (4, 6), (0.4, 0.5, 0.6, 0.1, 0.2)[:count], (0.2, 0.3, 0.4, 1.0, 0.5)[:count], channels
    )
    pixels = np.random.default_rng(0).integers(0, 256, (3, 4, 6, count), dtype=np.uint8)
    assert (to_pixels(apply_pixels(pixels, preprocessing), preprocessing) == pixels).all()


def test_values_beyond_pixels_are_clipped() -> None:
    black_and_white = torch.tensor([-9.0, 9.0]).reshape(1, 1, 1, 2)
    assert to_pixels(black_and_white, Preprocessing((1, 2), (0.5,), (0.5,), "L")).ravel().tolist() == [0, 255]


def test_a_report_is_written_again_from_the_run_alone(copied: Path) -> None:
    (copied / "report.html").unlink()
    others = {path.name: path.read_bytes() for path in copied.iterdir()}
    assert write_report(copied) == copied / "report.html"
    text = (copied / "report.html").read_text()
    assert text == page(copied) and text.count("<img") == 8
    assert {name: (copied / name).read_bytes() for name in others} == others


def test_without_images_the_report_shows_none(copied: Path) -> None:
    (copied / "distilled.safetensors").unlink()
    assert pictures(copied, read_json(copied / "run.json")) is None
    write_report(copied)
    assert "<img" not in (copied / "report.html").read_text()


@pytest.mark.parametrize("name", ["result", "ranges", "sensitivity", "frontier"])
def test_a_run_that_is_not_whole_is_refused_and_its_report_kept(name: str, copied: Path) -> None:
    before = (copied / "report.html").read_bytes()
    (copied / f"{name}.json").unlink()
    with pytest.raises(RunError, match=rf"{name}\.json cannot be read \(No such file or directory\): quantize again\."):
        write_report(copied)
    (copied / f"{name}.json").write_text("{")
    with pytest.raises(RunError, match=rf"{name}\.json is damaged \(.*\): quantize again\."):
        write_report(copied)
    assert (copied / "report.html").read_bytes() == before


def test_a_run_of_a_gpu_is_reported_where_there_is_none(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    record = read_json(copied / "run.json")
    record["options"]["device"] = "cuda"
    (copied / "run.json").write_text(json.dumps(record))
    assert "cuda" in write_report(copied).read_text()


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    for directory in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(RunError) as caught:
            write_report(directory)
        assert str(caught.value) == f"{directory} is no run directory, as it holds no run.json: give what --out named."
    assert not list(tmp_path.iterdir())


def test_a_damaged_picture_file_is_named(copied: Path) -> None:
    shutil.copy(copied / "run.json", copied / "distilled.safetensors")
    with pytest.raises(RunError, match="distilled.safetensors"):
        write_report(copied)


def test_a_network_of_inputs_that_are_no_pictures_has_a_report(tmp_path: Path) -> None:
    preprocess = {"size": (8, 8), "mean": (0.5,) * 5, "std": (0.2,) * 5}
    run = zeroq.quantize(
        NETWORKS["five_channels"](), example_of("five_channels"), name="five", preprocess=preprocess, **QUICK
    )
    page = (run.save(tmp_path / "five") / "report.html").read_text()
    assert "run the file beside this page on your own inputs" in page

"""The paper's tables on a few pictures, with weights from a local server."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import paper
from benchmarks.paper_document import document
from benchmarks.published import CLASSIFIERS, DETECTOR_ROWS, RESNET18, RETINANET, ROWS
from tests.file_server import pytorchcv_server

SMALL = "resnet20_cifar10"  # in the place of a network that takes long
QUICK = "--images 8 --iterations 1 --threads 1".split()


def pictures(folder: Path, classes: int) -> Path:
    """One picture of noise for each class."""
    generator = np.random.default_rng(0)
    for number in range(classes):
        (folder / str(number)).mkdir(parents=True)
        noise = generator.integers(0, 256, (40, 40, 3), np.uint8)
        Image.fromarray(noise).save(folder / str(number) / "picture.png")
    return folder


def test_rows_are_measured_kept_and_printed_beside_the_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    provider = pytest.importorskip("pytorchcv.model_provider")
    monkeypatch.setitem(paper.MODELS, RESNET18, f"pytorchcv:{SMALL}")
    folder, out = pictures(tmp_path / "pictures", 10), tmp_path / "out"
    words = ["--imagenet", str(folder), "--out", str(out), "--networks", RESNET18]
    words += ["--settings", "W8A8;mixed at 4-bit size, A8", *QUICK]
    with pytorchcv_server(tmp_path, monkeypatch) as server:
        torch.manual_seed(0)
        server.offer(SMALL, provider.get_model(SMALL))
        assert paper.main(words) == 0
        shown = capsys.readouterr().out
        first = {file.name: file.read_bytes() for file in out.glob("*.json")}
        monkeypatch.setattr(paper, "measure", lambda *asked: pytest.fail("it was measured before"))
        assert paper.main(words) == 0
    assert set(first) == {f"{RESNET18}-{s}.json" for s in ("float", "W8A8", "mixed-at-4-bit-size-A8")}
    assert first == {file.name: file.read_bytes() for file in out.glob("*.json")}
    lines = (out / "paper.md").read_text().splitlines()
    assert all(line in shown for line in lines)
    ours = next(line for line in lines if line.startswith("| W8A8 | **ours** |"))
    assert "**" in ours.split("|")[3] and ours.split("|")[4].strip() == "–"
    assert "| W8A8 | ZeroQ, its README | 71.43 | 77.67 | 78.72 | 69.17 | 64.94 | 72.91 |" in lines


def test_a_network_whose_package_is_missing_is_said_to_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert paper.main(["--coco", str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    assert "torchvision, whose weights it has, is not installed" in (tmp_path / "out" / "paper.md").read_text()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "give --imagenet DIR, --coco DIR or both"),
        (["--imagenet", "nowhere"], "--imagenet nowhere is no folder"),
        (["--imagenet", ".", "--networks", "resnet19"], "--networks 'resnet19': choose from resnet18, "),
        (["--imagenet", ".", "--settings", "W1A1"], "--settings 'W1A1': choose from W8A8, "),
    ],
)
def test_what_cannot_be_is_refused(words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        paper.main(words)
    assert ended.value.code == 2 and sentence in capsys.readouterr().err


def test_every_published_row_is_in_the_table() -> None:
    results = {
        (RESNET18, "float"): {"accuracy": 0.71, "error": None},
        (RESNET18, "W4A4"): {"accuracy": 0.665, "error": None},
        (RETINANET, "W8A8"): {"accuracy": None, "error": "out of luck"},
    }
    text = document(results)
    for row in ROWS + DETECTOR_ROWS:
        assert f"| {row.setting} | {row.method} |" in text
        assert set(row.accuracy) <= {*CLASSIFIERS, RETINANET}
    assert "| W4A4 | ours, drop | +4.50 | – |" in text and f"- {RETINANET}, W8A8: out of luck" in text

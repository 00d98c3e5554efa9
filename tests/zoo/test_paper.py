"""The paper's rows of RetinaNet on two pictures: torchvision's network from weights to mAP, at its 800 pixels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import paper, retinanet_coco
from benchmarks.plausible import make_plausible
from benchmarks.published import RETINANET
from zeroq.preprocessing import imagenet

CATEGORIES = [number for number in range(91) if number not in retinanet_coco.UNUSED]


def coco(folder: Path) -> Path:
    """Two pictures of noise, with a box each."""
    generator = np.random.default_rng(0)
    names = ["one.png", "other.png"]
    for name in names:
        Image.fromarray(generator.integers(0, 256, (60, 80, 3), np.uint8)).save(folder / name)
    images = [{"id": index, "file_name": name, "width": 80, "height": 60} for index, name in enumerate(names)]
    boxes = [
        {"id": index + 1, "image_id": index, "category_id": 3, "bbox": [5, 5, 30, 20], "area": 600, "iscrowd": 0}
        for index in range(len(names))
    ]
    categories = [{"id": number, "name": str(number)} for number in CATEGORIES]
    found = {"images": images, "annotations": boxes, "categories": categories}
    (folder / "instances.json").write_text(json.dumps(found))
    return folder


def test_rows_of_the_detector_are_measured_and_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    whole: Any = retinanet_coco.detector(pretrained=False)
    wrapped = retinanet_coco.Wrapped(whole).eval()
    make_plausible(wrapped, imagenet((320, 320)), pictures=2)  # shares all tensors with the whole
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", lambda *asked, **further: whole.state_dict())
    monkeypatch.setattr(
        "torchvision.models._api.load_state_dict_from_url", lambda *asked, **further: whole.state_dict()
    )
    (tmp_path / "pictures").mkdir()
    words = ["--coco", str(coco(tmp_path / "pictures")), "--out", str(tmp_path / "out"), "--networks", RETINANET]
    assert paper.main([*words, "--settings", "W8A8", *"--images 4 --iterations 1 --threads 1".split()]) == 0
    shown = capsys.readouterr().out
    record = json.loads((tmp_path / "out" / f"{RETINANET}-W8A8.json").read_text())
    assert record["error"] is None and record["pictures"] == 2 and 0 <= record["accuracy"] <= 1
    assert record["average_bits"] == 8 and record["onnx_bytes"] < 40e6
    assert "| W8A8 | ZeroQ, the paper | 36.40 |" in shown

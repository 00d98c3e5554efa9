"""Detection: boxes on the pictures themselves, and COCO's evaluator."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from zeroq.divergence import Meaning
from zeroq.errors import DataError
from zeroq.evaluate.detection import AveragePrecision, DetectionData, open_detection, precision, to_picture
from zeroq.preprocessing import Preprocessing

LETTERBOX = Preprocessing((64, 64), (0.0,) * 3, (1.0,) * 3, "RGB", "letterbox")
SIZES = [(40, 80), (80, 40), (64, 64)]  # height, width


def annotations() -> dict[str, Any]:
    """Two boxes in each of three pictures; ids of categories and annotations as badly as they may be."""
    images = [
        {"id": 10 * index, "file_name": f"{index}.png", "width": width, "height": height}
        for index, (height, width) in enumerate(SIZES)
    ]
    boxes = [
        {
            "id": 2 * index + kind,
            "image_id": 10 * index,
            "category_id": (7, 3)[kind],
            "bbox": [5 + 20 * kind, 8, 15, 20],
        }
        for index in range(3)
        for kind in range(2)
    ]
    return {
        "images": images[::-1],
        "annotations": boxes,
        "categories": [{"id": 7, "name": "b"}, {"id": 3, "name": "a"}],
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for index, (height, width) in enumerate(SIZES):
        Image.fromarray(np.zeros((height, width, 3), np.uint8)).save(tmp_path / f"{index}.png")
    (tmp_path / "instances.json").write_text(json.dumps(annotations()))
    return tmp_path


def opened(folder: Path, preprocessing: Preprocessing = LETTERBOX) -> DetectionData:
    return open_detection(folder, preprocessing, Meaning("detection"), 0)


def test_a_box_comes_back_through_every_way_of_resizing() -> None:
    """A mark drawn into a picture, found in the input, is mapped back to where it was drawn."""
    from zeroq.preprocessing import apply_picture

    for resize in ("stretch", "letterbox", None, 120):
        for height, width in ((200, 400), (400, 200), (300, 300)):
            pixels = np.zeros((height, width, 3), np.uint8)
            x0, y0, x1, y1 = int(0.4 * width), int(0.45 * height), int(0.6 * width), int(0.55 * height)
            pixels[y0:y1, x0:x1] = 255
            preprocessing = Preprocessing((100, 80), (0.0,) * 3, (1.0,) * 3, "RGB", resize)
            seen = apply_picture(Image.fromarray(pixels), preprocessing)[0] > 0.5
            rows, columns = seen.any(dim=1).nonzero(), seen.any(dim=0).nonzero()
            box = torch.tensor(
                [[columns.min() / 80, rows.min() / 100, (columns.max() + 1) / 80, (rows.max() + 1) / 100]]
            )
            found = to_picture(box, (height, width), preprocessing)[0].tolist()
            assert found == pytest.approx([x0, y0, x1, y1], abs=3), (resize, height, width)


def test_boxes_end_at_the_edge_of_the_picture() -> None:
    found = to_picture(torch.tensor([[-0.5, 0.0, 1.5, 1.0]]), (32, 64), LETTERBOX)
    assert found.tolist() == [[0.0, 0.0, 64.0, 32.0]]


def truth_as_detections(data: DetectionData, identity: int, score: float = 0.9) -> Tensor:
    """The annotated boxes of a picture as a perfect detector gives them, in fractions of the input."""
    height, width = SIZES[identity // 10]
    side = max(height, width)
    left, top = (side - width) / 2, (side - height) / 2
    rows = []
    for box in data.annotations["annotations"]:
        if box["image_id"] == identity:
            x, y, w, h = box["bbox"]
            kind = data.categories.index(box["category_id"])
            rows.append([(x + left) / side, (y + top) / side, (x + w + left) / side, (y + h + top) / side, score, kind])
    return torch.tensor(rows)


def scored(data: DetectionData, answers: dict[int, Tensor]) -> AveragePrecision:
    """A detector that answers so."""
    current: list[int] = []
    score = AveragePrecision(data, lambda outputs: [answers.get(identity, torch.zeros(0, 6)) for identity in current])
    for inputs, truth in data.batches(2):
        current[:] = [picture.identity for picture in truth]
        score.add((inputs,), truth)
    return score


def test_a_perfect_detector_has_all(folder: Path) -> None:
    """Class i is the i-th category by ascending id, whatever the file's order; the annotation of id 0 counts."""
    data = opened(folder)
    assert data.categories == (3, 7) and data.identities == (0, 10, 20)
    score = scored(data, {identity: truth_as_detections(data, identity) for identity in (0, 10, 20)})
    assert score.metrics() == {"map": pytest.approx(1.0), "map50": pytest.approx(1.0)}


def test_half_of_the_boxes_is_half_of_the_recall(folder: Path) -> None:
    data = opened(folder)
    found = scored(data, {10: truth_as_detections(data, 10)}).metrics()
    assert found["map"] == pytest.approx(34 / 101)  # recall 1/3: of the recalls 0, 0.01, ... 1 the first 34
    shifted = truth_as_detections(data, 10)
    shifted[:, [0, 2]] -= 3 / 80  # 3 of 15 pixels: an overlap of 12 / 18
    found = scored(data, {10: shifted}).metrics()
    assert found["map50"] == pytest.approx(34 / 101) and found["map"] == pytest.approx(4 / 10 * 34 / 101)


def test_no_detection_at_all_is_nothing(folder: Path) -> None:
    assert scored(opened(folder), {}).metrics() == {"map": 0.0, "map50": 0.0}


def test_pictures_can_be_drawn_again(folder: Path) -> None:
    data = opened(folder)
    evaluator = scored(data, {0: truth_as_detections(data, 0)}).evaluator()
    whole = precision(evaluator)
    assert precision(evaluator, [0]) == {"map": pytest.approx(1.0), "map50": pytest.approx(1.0)}
    assert precision(evaluator, [1, 2, 1])["map"] == 0.0
    assert precision(evaluator, [0, 1, 2]) == whole == precision(evaluator)
    assert precision(evaluator, [0, 0, 1])["map"] == pytest.approx(67 / 101)


def refused(folder: Path, said: object) -> str:
    (folder / "instances.json").write_text(json.dumps(said) if not isinstance(said, str) else said)
    with pytest.raises(DataError) as caught:
        opened(folder)
    return str(caught.value)


def test_files_that_do_not_fit_are_refused(folder: Path) -> None:
    path, good = folder / "instances.json", annotations()
    assert refused(folder, "{").startswith(f"{path} is not in COCO's format (JSONDecodeError: ")
    for wrong in ({"image_id": 1, "bbox": []}, {"bbox": [1, 2, 3, 4]}):
        given = {"images": [], "categories": [], "annotations": [{"category_id": 1, **wrong}]}
        assert "is not in COCO's format" in refused(folder, given)
    assert refused(folder, {}) == f"{path} is not in COCO's format (KeyError: 'annotations'): correct it."
    assert refused(folder, good | {"images": []}) == f"{path} names no images: give at least one."
    assert refused(folder, good | {"categories": []}) == f"{path} names no categories: give at least one."
    (folder / "1.png").unlink()
    assert refused(folder, good) == (
        f"{path} names 1.png, which is not in {folder}: add the picture, or remove its entry."
    )
    path.unlink()
    with pytest.raises(DataError) as caught:
        opened(folder)
    assert str(caught.value) == (
        f"{folder} holds no instances.json: give a folder of pictures with COCO's annotations beside."
    )


def test_a_class_beyond_the_categories_is_refused(folder: Path) -> None:
    with pytest.raises(DataError) as caught:
        scored(opened(folder), {0: torch.tensor([[0.0, 0.0, 1.0, 1.0, 0.5, 2.0]])})
    assert str(caught.value) == (
        "decode gives class 2 and instances.json has 2 categories: class i is the i-th category by ascending id."
    )


def test_annotations_without_a_box_that_counts_are_refused(folder: Path) -> None:
    (folder / "instances.json").write_text(json.dumps(annotations() | {"annotations": []}))
    with pytest.raises(DataError) as caught:
        scored(opened(folder), {}).metrics()
    assert str(caught.value) == "instances.json has no box that counts: give at least one that marks no crowd."


def test_without_the_evaluator_the_sentence_says_what_to_install(folder: Path, monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "pycocotools.coco", None)
    with pytest.raises(DataError) as caught:
        AveragePrecision(opened(folder), None)
    assert str(caught.value) == (
        "pycocotools is not installed, and the evaluation of detections needs it: pip install 'zeroq-quant[detection]'."
    )

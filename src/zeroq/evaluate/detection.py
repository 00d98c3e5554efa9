"""Detection: boxes against COCO's annotations, by COCO's own evaluator."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zeroq.divergence import Decode, Meaning
from zeroq.divergence.detections import detections_of
from zeroq.errors import DataError
from zeroq.evaluate.pictures import picture_size, read_beside
from zeroq.preprocessing import Preprocessing, placed

ANNOTATIONS = "instances.json"
MOST_DETECTIONS = 100  # of a picture, the best ones


@dataclass(frozen=True)
class Picture:
    """An annotated picture: its id in the annotations and its (height, width)."""

    identity: int
    size: tuple[int, int]


@dataclass(frozen=True)
class DetectionData:
    """Pictures and COCO's annotations of them."""

    annotations: Mapping[str, Any]  # as the file has them, what may be missing filled in
    files: tuple[Path, ...]
    identities: tuple[int, ...]
    categories: tuple[int, ...]  # ascending: class i is the i-th
    preprocessing: Preprocessing

    def __len__(self) -> int:
        return len(self.files)

    def batches(self, batch: int) -> Iterator[tuple[Tensor, list[Picture]]]:
        """Inputs [n, C, H, W] and which pictures they are. Raises DataError that names a damaged file."""
        return read_beside(self.files, self.preprocessing, batch, self.picture)

    def picture(self, place: int) -> Picture:
        return Picture(self.identities[place], picture_size(self.files[place]))


def open_detection(folder: Path, preprocessing: Preprocessing, meaning: Meaning, classes: int) -> DetectionData:
    """A folder of pictures with instances.json. Raises DataError for anything else."""
    path = folder / ANNOTATIONS
    if not path.is_file():
        raise DataError(f"{folder} holds no {ANNOTATIONS}: give a folder of pictures with COCO's annotations beside.")
    try:
        annotations = filled(json.loads(path.read_text(encoding="utf-8")))
        images = sorted(annotations["images"], key=lambda image: image["id"])
        files = tuple(folder / image["file_name"] for image in images)
        categories = tuple(sorted(category["id"] for category in annotations["categories"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is not in COCO's format ({type(error).__name__}: {error}): correct it.") from error
    if not files or not categories:
        raise DataError(f"{path} names no {'categories' if files else 'images'}: give at least one.")
    for file in files:
        if not file.is_file():
            raise DataError(
                f"{path} names {file.name}, which is not in {folder}: add the picture, or remove its entry."
            )
    return DetectionData(annotations, files, tuple(image["id"] for image in images), categories, preprocessing)


def filled(annotations: Mapping[str, Any]) -> dict[str, Any]:
    """COCO's annotations with ids from 1 on, as its evaluator takes 0 for none, and areas and crowds said of all."""
    boxes = []
    for index, box in enumerate(annotations["annotations"], 1):
        _, _, width, height = box["bbox"]
        own = {"image_id": box["image_id"], "area": box.get("area", width * height), "iscrowd": box.get("iscrowd", 0)}
        boxes.append({**box, **own, "id": index})
    return {**annotations, "annotations": boxes}


def to_picture(boxes: Tensor, size: tuple[int, int], preprocessing: Preprocessing) -> Tensor:
    """Boxes [k, 4] in fractions of the network's input to pixels of a picture of (height, width), within it."""
    left, top, width, height = placed(size, preprocessing)
    input_height, input_width = preprocessing.size
    sides = torch.tensor([input_width, input_height] * 2)
    scale = torch.tensor([size[1] / width, size[0] / height] * 2)
    pixels = (boxes * sides - torch.tensor([left, top] * 2)) * scale
    return torch.minimum(pixels.clamp(min=0), torch.tensor([size[1], size[0]] * 2).to(pixels))


class AveragePrecision:
    """AP@[.5:.95] and AP@.5, at most 100 detections a picture."""

    def __init__(self, data: DetectionData, decode: Decode | None) -> None:
        self.data, self.decode = data, decode
        self.found: list[dict[str, Any]] = []
        imported()  # what is missing is said before anything is computed

    def add(self, outputs: Any, truth: Sequence[Picture]) -> None:
        """Raw outputs and which pictures they are of. Raises ModelError for a wrong decode."""
        for boxes, picture in zip(detections_of(self.decode, outputs), truth, strict=True):
            corners = to_picture(boxes[:, :4], picture.size, self.data.preprocessing).tolist()
            for (x0, y0, x1, y1), score, kind in zip(corners, boxes[:, 4].tolist(), boxes[:, 5].tolist(), strict=True):
                self.found.append({
                    "image_id": picture.identity, "category_id": self.category(int(kind)), "score": score,
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                })  # fmt: skip

    def category(self, kind: int) -> int:
        """The category of a class."""
        if not 0 <= kind < len(self.data.categories):
            raise DataError(
                f"decode gives class {kind} and {ANNOTATIONS} has {len(self.data.categories)} categories: class i is "
                "the i-th category by ascending id."
            )
        return self.data.categories[kind]

    def metrics(self) -> dict[str, float]:
        return precision(self.evaluator())

    def evaluator(self) -> Any:
        """COCO's evaluator, every picture matched."""
        annotated, evaluator_class = imported()
        with redirect_stdout(StringIO()):  # it prints its progress
            truth, found = annotated(), annotated()
            truth.dataset = dict(self.data.annotations)
            truth.createIndex()
            if self.found:
                found = truth.loadRes([dict(each) for each in self.found])
            else:
                found.dataset = {**truth.dataset, "annotations": []}
                found.createIndex()
            evaluator = evaluator_class(truth, found, "bbox")
            evaluator.params.maxDets = [MOST_DETECTIONS]
            evaluator.params.areaRng, evaluator.params.areaRngLbl = [[0, 1e10]], ["all"]
            evaluator.evaluate()
        return evaluator


def precision(evaluator: Any, pictures: Sequence[int] | None = None) -> dict[str, float]:
    """`map` and `map50` of an evaluator that has matched its pictures.

    pictures: places in the order of their ids, some perhaps several times; by default all. Categories without a box in
    them do not count. Raises DataError where no picture has a box.
    """
    count = len(evaluator.params.imgIds)
    chosen = range(count) if pictures is None else pictures
    kept, ids = evaluator.evalImgs, evaluator.params.imgIds
    rows = [kept[first : first + count] for first in range(0, len(kept), count)]
    try:
        evaluator.evalImgs = [row[place] for row in rows for place in chosen]
        evaluator.params.imgIds = evaluator._paramsEval.imgIds = list(range(len(chosen)))
        with redirect_stdout(StringIO()):
            evaluator.accumulate()
    finally:
        evaluator.evalImgs, evaluator.params.imgIds, evaluator._paramsEval.imgIds = kept, ids, ids
    values = evaluator.eval["precision"][:, :, :, 0, 0]  # [overlaps, recalls, categories], -1 where there is no box
    if not (values > -1).any():
        raise DataError(f"{ANNOTATIONS} has no box that counts: give at least one that marks no crowd.")
    return {"map": float(np.mean(values[values > -1])), "map50": float(np.mean(values[0][values[0] > -1]))}


def imported() -> tuple[Any, Any]:
    """COCO's classes of annotations and of evaluation. Raises DataError where they are not installed."""
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError as error:
        raise DataError(
            "pycocotools is not installed, and the evaluation of detections needs it: "
            "pip install 'zeroq-quant[detection]'."
        ) from error
    return COCO, COCOeval

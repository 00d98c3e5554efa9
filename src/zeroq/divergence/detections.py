"""Detections of two networks: which are the same."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from zeroq.divergence.meaning import Decode, on_cpu
from zeroq.errors import ModelError

LEAST_SCORE, LEAST_OVERLAP = 0.3, 0.5
COLUMNS = 6  # x0, y0, x1, y1, score, class


def detections_of(decode: Decode | None, outputs: Any) -> list[Tensor]:
    """What `decode` makes of outputs: for each image float32 [k, 6]. Raises ModelError for anything else."""
    if decode is None:
        raise ModelError(
            "TASK is detection and no decode(outputs) says what the boxes are: write it beside the network's function, "
            "or give decode= in Python."
        )
    images = len(pytree.tree_leaves(outputs)[0])
    with torch.inference_mode():
        found = decode(on_cpu(outputs))
    if not isinstance(found, list | tuple) or len(found) != images:
        what = f"{len(found)} values" if isinstance(found, list | tuple) else f"a {type(found).__name__}"
        raise ModelError(f"decode gives {what} for {images} images: give a list with one tensor [k, 6] for each image.")
    for boxes in found:
        if not isinstance(boxes, Tensor) or boxes.dim() != 2 or boxes.shape[1] != COLUMNS:
            what = str(list(boxes.shape)) if isinstance(boxes, Tensor) else f"a {type(boxes).__name__}"
            raise ModelError(f"decode gives {what} for an image: give a tensor [k, 6] of x0, y0, x1, y1, score, class.")
        if not torch.isfinite(boxes).all():
            raise ModelError("decode gives boxes that are NaN or infinite: clamp what overflows there.")
    return [boxes.float() for boxes in found]


def same_detections(reference: Tensor, found: Tensor) -> tuple[int, int, int]:
    """Pairs, detections of the reference, detections found, of one image; only scores from 0.3 on count.

    Best score first, each detection is paired with the reference's free one of the same class with which it overlaps
    most, if their intersection over union is at least 0.5. [k, 6] and [l, 6].
    """
    reference, found = (each[each[:, 4] >= LEAST_SCORE] for each in (reference, found))
    found = found[found[:, 4].argsort(descending=True, stable=True)]
    overlaps = intersection_over_union(found[:, :4], reference[:, :4])
    overlaps[found[:, None, 5] != reference[None, :, 5]] = 0
    pairs = 0
    for row in overlaps:
        if len(row) and float(row.max()) >= LEAST_OVERLAP:
            pairs += 1
            overlaps[:, int(row.argmax())] = 0
    return pairs, len(reference), len(found)


def intersection_over_union(first: Tensor, second: Tensor) -> Tensor:
    """Of boxes [k, 4] and [l, 4], float [k, l]; empty boxes overlap with nothing."""
    near = torch.maximum(first[:, None, :2], second[None, :, :2])
    far = torch.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = (far - near).clamp(min=0).prod(dim=2)
    one, other = ((boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(dim=1) for boxes in (first, second))
    union = one[:, None] + other[None, :] - shared
    return torch.where(union > 0, shared / union, torch.zeros_like(union))


class DetectionAgreement:
    """F1 of detections against the reference's: 2 pairs / (reference's + found); 1 where neither has any."""

    def __init__(self, decode: Decode | None) -> None:
        self.decode = decode
        self.counts = torch.zeros(3, dtype=torch.int64)  # see same_detections

    def add(self, reference: Any, outputs: Any) -> None:
        """One batch of outputs, not yet decoded."""
        expected, found = detections_of(self.decode, reference), detections_of(self.decode, outputs)
        for pair in zip(expected, found, strict=True):
            self.counts += torch.tensor(same_detections(*pair))

    def value(self) -> float:
        pairs, expected, found = self.counts.tolist()
        return 2 * pairs / (expected + found) if expected + found else 1.0

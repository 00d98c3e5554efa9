"""The pictures of each network: a half to choose on, a half to confirm on, and what may be fitted on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.rows import DISTILLED, FAMILIES, REAL, Row
from zeroq.accuracy import classes_of, in_inference
from zeroq.evaluate import LabelledData, open_data
from zeroq.models import LoadedModel

SELECTION, CONFIRMATION = "selection", "confirmation"
BATCH = 32
FITTED = 64  # random pictures, as many as real ones
Predict = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Half:
    """Labelled pictures in a network's preprocessing."""

    role: str  # SELECTION or CONFIRMATION
    name: str
    data: LabelledData


def halves(network: str, model: LoadedModel, data: Path) -> list[Half]:
    """Two sources for ImageNet; even and odd places of one file for CIFAR."""
    family, classes = FAMILIES[network], classes_of(model)
    if family == "imagenet":
        names = {SELECTION: "imagenet_val_a", CONFIRMATION: "imagenet_like_b"}
        return [Half(role, name, open_data(data / name, model.picture(), classes)) for role, name in names.items()]
    with np.load(data / f"{family}_test_a.npz") as arrays:
        return even_and_odd(f"{family}_test_a", (arrays["images"], arrays["labels"]), model, classes)


def even_and_odd(
    name: str, arrays: tuple[NDArray[np.uint8], NDArray[np.int64]], model: LoadedModel, classes: int
) -> list[Half]:
    """Halves of arrays by their places."""
    pixels, labels = arrays
    found = []
    for first, (role, word) in enumerate({SELECTION: "even", CONFIRMATION: "odd"}.items()):
        data = open_data((pixels[first::2], labels[first::2]), model.picture(), classes)
        found.append(Half(role, f"{name}, {word} places", data))
    return found


def calibration(row: Row, model: LoadedModel, data: Path, folder: Path) -> Path | None:
    """What --calibration names: None for distilled images, real pictures, or random pixels written to the folder."""
    if row.images == DISTILLED:
        return None
    family = FAMILIES[row.network]
    if row.images == REAL:
        return data / ("imagenet_train_64" if family == "imagenet" else f"{family}_other_64.npz")
    shape = (FITTED, *model.picture().size, model.input_shape[0])
    path = folder / "random.npz"
    np.savez(path, images=np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))
    return path


def float_scores(network: str, model: LoadedModel, half: Half, cache: Path) -> Tensor:
    """Scores [N, K] of the network in floating point, computed once for its weights and these pictures."""
    identity = json.dumps([model.weights_sha256, model.picture().to_dict(), half.name, half.data.labels.tolist()])
    path = cache / f"{network}-{half.role}-{hashlib.sha256(identity.encode()).hexdigest()[:16]}.npz"
    if not path.is_file():
        found = scores(in_inference(model.module), half.data)
        cache.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}")  # savez adds .npz to any other ending
        np.savez(partial, scores=found.numpy())
        partial.replace(path)
    with np.load(path) as arrays:
        return torch.from_numpy(arrays["scores"])


def scores(predict: Predict, data: LabelledData, places: NDArray[np.intp] | None = None) -> Tensor:
    """Outputs [N, K] for all pictures, or for those at the given places, ascending."""
    return torch.cat([predict(inputs) for inputs in batches(data, places)])


def spread(data: LabelledData, most: int) -> NDArray[np.intp]:
    """Places of at most so many pictures, evenly spread: files are often in the order of their classes."""
    return np.linspace(0, len(data) - 1, min(most, len(data))).round().astype(np.intp)


def batches(data: LabelledData, places: NDArray[np.intp] | None) -> Iterator[Tensor]:
    first = 0
    for inputs, _ in data.batches(BATCH):
        if places is not None:
            inside = places[(places >= first) & (places < first + len(inputs))] - first
            chosen = inputs[torch.from_numpy(inside)]
        else:
            chosen = inputs
        first += len(inputs)
        if len(chosen):
            yield chosen

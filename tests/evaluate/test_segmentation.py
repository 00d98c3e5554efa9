"""Segmentation: one confusion matrix over all pixels that count."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from zeroq.divergence import Meaning
from zeroq.errors import DataError, NumericalError
from zeroq.evaluate.segmentation import (
    Overlap,
    SegmentationData,
    Truth,
    classes_at,
    confusion,
    open_segmentation,
    overlap,
    read_label,
)
from zeroq.preprocessing import Preprocessing

STRETCH = Preprocessing((4, 6), (0.0,) * 3, (1.0,) * 3, "RGB", "stretch")
MEANING = Meaning("segmentation", ignore=9)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three pictures of 6 x 4 with labels of three classes, some pixels void."""
    generator = np.random.default_rng(0)
    for part in ("images/town", "labels/town"):
        (tmp_path / part).mkdir(parents=True)
    for index in range(3):
        pixels = generator.integers(0, 256, (4, 6, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"images/town/{index}.jpg")
        label = generator.choice(np.array([0, 1, 2, 9], np.uint8), (4, 6))
        Image.fromarray(label).save(tmp_path / f"labels/town/{index}.png")
    return tmp_path


def opened(folder: Path, meaning: Meaning = MEANING) -> SegmentationData:
    return open_segmentation(folder, STRETCH, meaning, 3)


def test_pictures_come_with_their_labels(folder: Path) -> None:
    data = opened(folder)
    assert len(data) == 3
    batches = list(data.batches(2))
    assert [len(inputs) for inputs, _ in batches] == [2, 1]
    truths = [truth for _, part in batches for truth in part]
    for index, truth in enumerate(truths):
        expected = np.asarray(Image.open(folder / f"labels/town/{index}.png"))
        assert (truth.label.numpy() == expected).all() and truth.picture == (4, 6)


def test_figures_equal_a_count_pixel_by_pixel(folder: Path) -> None:
    data = opened(folder)
    score = Overlap(data, 9)
    maps = torch.randn(3, 3, 4, 6)
    for first, (inputs, truth) in zip((0, 2), data.batches(2), strict=True):
        score.add(maps[first : first + len(inputs)], truth)
    found = maps.argmax(dim=1)
    label = torch.stack([read_label(path) for path in data.labels])
    counted = label != 9
    ratios = []
    for kind in range(3):
        both = ((found == kind) & (label == kind) & counted).sum()
        either = (((found == kind) | (label == kind)) & counted).sum()
        ratios.append(float(both / either))
    right = float((found == label)[counted].double().mean())
    assert score.metrics() == {"miou": pytest.approx(np.mean(ratios)), "pixel_accuracy": pytest.approx(right)}


def test_only_classes_present_in_the_labels_are_averaged() -> None:
    label, found = torch.tensor([[0, 0, 1, 1]]), torch.tensor([[0, 0, 1, 2]])
    assert overlap(confusion(found, label, 4, None)) == {"miou": (1 + 0.5) / 2, "pixel_accuracy": 0.75}


def test_labels_that_never_count_are_refused() -> None:
    label = torch.full((2, 2), 3)
    with pytest.raises(DataError) as caught:
        overlap(confusion(torch.zeros_like(label), label, 3, 3))
    assert str(caught.value) == (
        "Every pixel of the labels has the class of IGNORE: give labels with classes that count."
    )


def one_hot(classes: Tensor) -> Tensor:
    """Scores [K, h, w] that say these classes."""
    return functional.one_hot(classes, 3).movedim(-1, 0).float()


def test_scores_are_resized_to_the_label() -> None:
    logits = torch.randn(3, 2, 3)
    label = torch.zeros(8, 12, dtype=torch.int64)
    found, same = classes_at(logits, Truth(label, (8, 12)), STRETCH)
    expected = functional.interpolate(logits[None], (8, 12), mode="bilinear", align_corners=False)[0].argmax(0)
    assert (found == expected).all() and same.shape == (8, 12)


def test_what_a_letterbox_adds_is_cut_off() -> None:
    box = Preprocessing((8, 8), (0.0,) * 3, (1.0,) * 3, "RGB", "letterbox")
    inner = torch.tensor([[0, 0, 0, 0, 1, 1, 1, 1]] * 4)
    classes = torch.full((8, 8), 2)
    classes[2:6] = inner  # a picture of 4 x 8 stands in the middle
    found, label = classes_at(one_hot(classes), Truth(inner, (4, 8)), box)
    assert (found == label).all() and label.shape == (4, 8)


def test_of_what_a_crop_removes_the_label_is_left_out() -> None:
    crop = Preprocessing((4, 4), (0.0,) * 3, (1.0,) * 3, "RGB")
    label = torch.tensor([[2, 2, 0, 0, 1, 1, 2, 2]] * 4)
    found, kept = classes_at(one_hot(label[:, 2:6]), Truth(label, (4, 8)), crop)
    assert (kept == label[:, 2:6]).all() and (found == kept).all()


def test_of_a_label_too_coarse_to_be_seen_nothing_counts() -> None:
    crop = Preprocessing((4, 4), (0.0,) * 3, (1.0,) * 3, "RGB")
    found, kept = classes_at(torch.zeros(3, 4, 4), Truth(torch.zeros(2, 8, dtype=torch.int64), (64, 8)), crop)
    assert found.numel() == kept.numel() == 0


def test_indices_are_read_from_a_palette_and_from_16_bits(tmp_path: Path) -> None:
    indices = np.arange(12, dtype=np.uint8).reshape(3, 4)
    palette = Image.fromarray(indices, "P")
    palette.putpalette([7 * value % 256 for value in range(768)])
    palette.save(tmp_path / "palette.png")
    Image.fromarray(indices.astype(np.uint16)).save(tmp_path / "wide.png")
    for name in ("palette.png", "wide.png"):
        assert (read_label(tmp_path / name).numpy() == indices).all()


def refused(folder: Path, meaning: Meaning = MEANING) -> str:
    with pytest.raises(DataError) as caught:
        list(opened(folder, meaning).batches(2))
    return str(caught.value)


def test_folders_that_do_not_fit_are_refused(folder: Path, tmp_path: Path) -> None:
    label = folder / "labels/town/1.png"
    Image.new("RGB", (6, 4)).save(label)
    assert refused(folder) == f"{label} has pixels of kind 'RGB': save the class index of each pixel as one number."
    label.write_bytes(b"no picture")
    assert refused(folder).startswith(f"{label} is damaged or cannot be read")
    label.unlink()
    assert refused(folder) == f"{folder / 'images/town/1.jpg'} has no label: {label} is not there."
    for picture in (folder / "images/town").iterdir():
        picture.unlink()
    assert refused(folder) == f"There are no pictures in {folder / 'images'}: give at least one."
    empty = tmp_path / "empty"
    empty.mkdir()
    assert refused(empty) == f"{empty} holds no folder 'images': put pictures into images and labels into labels."


def test_a_label_beyond_the_classes_is_refused(folder: Path) -> None:
    assert refused(folder, Meaning("segmentation")).endswith(
        ".png has a pixel of class 9 and the network 3 classes: correct it, or let IGNORE name the label that does not "
        "count."
    )


def test_outputs_that_do_not_fit_are_refused(folder: Path) -> None:
    data = opened(folder)
    _, truth = next(data.batches(2))
    with pytest.raises(DataError) as caught:
        Overlap(data, 9).add(torch.zeros(2, 4, 4, 6), truth)
    assert str(caught.value) == ("The network gives [2, 4, 4, 6] for 2 images: segmentation needs scores [2, 3, H, W].")
    with pytest.raises(NumericalError, match="^The network gives scores that are NaN or infinite"):
        Overlap(data, 9).add(torch.full((2, 3, 4, 6), torch.nan), truth)

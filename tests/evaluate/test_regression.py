"""Regression: numbers to be met."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from zeroq.divergence import Meaning
from zeroq.errors import DataError
from zeroq.evaluate.regression import RegressionData, TargetErrors, open_regression
from zeroq.preprocessing import Preprocessing

GREY = Preprocessing((4, 4), (0.0,), (1.0,), "L")
IMAGES = np.random.default_rng(0).integers(0, 256, (7, 4, 4, 1), dtype=np.uint8)
TARGETS = np.random.default_rng(1).normal(size=(7, 3))


def opened(folder: Path, **arrays: Any) -> RegressionData:
    np.savez(folder / "data.npz", **{"images": IMAGES, "targets": TARGETS, **arrays})
    return open_regression(folder / "data.npz", GREY, Meaning("regression"), 0)


def test_images_come_with_their_targets(tmp_path: Path) -> None:
    data = opened(tmp_path)
    batches = list(data.batches(3))
    assert len(data) == 7 and [len(inputs) for inputs, _ in batches] == [3, 3, 1]
    assert torch.cat([targets for _, targets in batches]).numpy() == pytest.approx(TARGETS.astype(np.float32))
    assert torch.cat([inputs for inputs, _ in batches])[4, 0, 1, 2] == pytest.approx(IMAGES[4, 1, 2, 0] / 255)


def test_nmse_is_the_error_over_the_variance_of_the_targets() -> None:
    found = TARGETS + np.random.default_rng(2).normal(size=(7, 3))
    score = TargetErrors()
    for rows in (slice(0, 4), slice(4, 7)):
        score.add(torch.from_numpy(found[rows]), torch.from_numpy(TARGETS[rows]))
    expected = (((found - TARGETS) ** 2).mean(0) / TARGETS.var(0)).mean()
    assert score.metrics() == {"nmse": pytest.approx(expected)}
    mean = TargetErrors()
    mean.add(torch.from_numpy(np.tile(TARGETS.mean(0), (7, 1))), torch.from_numpy(TARGETS))
    assert mean.metrics() == {"nmse": pytest.approx(1.0)}  # always answering with the mean


def test_one_number_for_each_image_may_lack_its_axis() -> None:
    score = TargetErrors()
    score.add(torch.tensor([[1.0], [3.0]]), torch.tensor([1.0, 2.0]))
    assert score.metrics() == {"nmse": pytest.approx(0.5 / 0.25)}


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({"targets": TARGETS[:5]}, "7 images and 5 targets in {}: give one target for each image."),
        ({"targets": np.array(["a"] * 7)}, "The targets in {} are <U1 [7]: give numbers [N, ...]."),
        ({"images": IMAGES[:0], "targets": TARGETS[:0]}, "There are no images in {}: give at least one."),
        ({"images": IMAGES[..., 0]}, "The images in {} are uint8 [7, 4, 4]: give uint8 [N, H, W, C]."),
        ({"targets": TARGETS * np.nan}, "The targets in {} are NaN or infinite: correct or remove them."),
    ],
)
def test_arrays_that_do_not_fit_are_refused(arrays: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        list(opened(tmp_path, **arrays).batches(4))
    assert str(caught.value) == sentence.format(tmp_path / "data.npz")


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        open_regression(tmp_path, GREY, Meaning("regression"), 0)
    assert str(caught.value) == f"{tmp_path} is no npz file: regression needs one that holds 'images' and 'targets'."
    np.savez(tmp_path / "labels.npz", images=IMAGES, labels=TARGETS)
    with pytest.raises(DataError, match="it must hold 'targets'"):
        open_regression(tmp_path / "labels.npz", GREY, Meaning("regression"), 0)


def test_outputs_that_do_not_fit_are_refused() -> None:
    with pytest.raises(DataError) as caught:
        TargetErrors().add(torch.zeros(2, 4), torch.zeros(2, 3))
    assert str(caught.value) == (
        "The network gives [2, 4] and the targets are [2, 3]: give targets of the shape of the output."
    )
    with pytest.raises(DataError, match="^The network gives 2 outputs: targets can be held against one only.$"):
        TargetErrors().add((torch.zeros(2, 3), torch.zeros(2, 3)), torch.zeros(2, 3))


@pytest.mark.parametrize("targets", [torch.tensor([[1.0, 2.0]]), torch.full((5, 2), 0.1)], ids=["one", "alike"])
def test_targets_that_do_not_differ_are_refused(targets: torch.Tensor) -> None:
    errors = TargetErrors()
    errors.add(targets + 0.5, targets)
    with pytest.raises(DataError, match="^The targets are all alike, and nmse is the error over their variance"):
        errors.metrics()

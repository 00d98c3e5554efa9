"""The digits and their split."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from zeroq.errors import DataError
from zeroq.models.digits import PIXEL_DEVIATION, PIXEL_MEAN, load_test_split, load_training_split

pytest.importorskip("sklearn", reason="scikit-learn holds the digits")


def test_shapes_types_and_range_of_the_splits() -> None:
    for load, count in ((load_training_split, 1201), (load_test_split, 596)):
        images, labels = load()
        assert images.shape == (count, 8, 8, 1) and images.dtype == np.uint8
        assert labels.shape == (count,) and labels.dtype == np.int64
        assert images.min() == 0 and images.max() == 255
        assert np.bincount(labels, minlength=10).min() > count // 11


def test_pixels_are_rounded_from_sixteenths() -> None:
    images, _ = load_test_split()
    assert set(np.unique(images)) == {round(255 * value / 16) for value in range(17)}


def test_the_splits_are_the_whole_and_share_nothing() -> None:
    from sklearn.datasets import load_digits

    values, labels = load_digits(return_X_y=True)
    training, test = load_training_split(), load_test_split()
    for label in range(10):
        rows = np.round(255 * values[labels == label] / 16).astype(np.uint8).reshape(-1, 8, 8, 1)
        held = len(rows) // 3
        assert np.array_equal(training[0][training[1] == label], rows[:-held])
        assert np.array_equal(test[0][test[1] == label], rows[-held:])


def test_the_constants_are_those_of_the_training_split() -> None:
    pixels = load_training_split()[0] / 255
    assert round(pixels.mean(), 4) == PIXEL_MEAN
    assert round(pixels.std(), 4) == PIXEL_DEVIATION


def test_without_scikit_learn_a_sentence_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(DataError) as caught:
        load_test_split()
    assert str(caught.value) == (
        "The digits data need scikit-learn, which is not installed: pip install 'zeroq-quant[demo]'."
    )

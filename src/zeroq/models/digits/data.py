"""scikit-learn's handwritten digits, split once and for all, as pictures of 8 x 8 pixels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from zeroq.errors import DataError

Split = tuple[NDArray[np.uint8], NDArray[np.int64]]

LARGEST_VALUE = 16  # scikit-learn's pixels are 0 to 16


def load_training_split() -> Split:
    """The first two thirds of every class: images uint8 [1201, 8, 8, 1], labels int64 [1201]."""
    images, labels = _load_all()
    return images[~_held_out(labels)], labels[~_held_out(labels)]


def load_test_split() -> Split:
    """The last third of every class, seen neither by training nor by quantization.

    Images uint8 [596, 8, 8, 1], labels int64 [596]. The data set is ordered by session of writing, so most of these
    digits come from hands that the training split does not hold. Raises DataError where scikit-learn is missing.
    """
    images, labels = _load_all()
    return images[_held_out(labels)], labels[_held_out(labels)]


def _held_out(labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """True for the last third of every class, in the data set's own order, [N]."""
    held_out = np.zeros(len(labels), dtype=np.bool_)
    for label in np.unique(labels):
        of_class = np.flatnonzero(labels == label)
        held_out[of_class[len(of_class) - len(of_class) // 3 :]] = True
    return held_out


def _load_all() -> Split:
    """uint8 = round(255 x value / 16)."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise DataError(
            "The digits data need scikit-learn, which is not installed: pip install 'zeroq-quant[demo]'."
        ) from error
    values, labels = load_digits(return_X_y=True)
    images = np.round(255 * values / LARGEST_VALUE).astype(np.uint8)
    return images.reshape(-1, 8, 8, 1), labels.astype(np.int64)

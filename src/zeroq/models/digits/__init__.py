"""The embedded default: a small residual network for handwritten digits, which needs no download."""

from zeroq.models.digits.data import load_test_split, load_training_split
from zeroq.models.digits.model import PIXEL_DEVIATION, PIXEL_MEAN, PREPROCESSING, digits

__all__ = ["PIXEL_DEVIATION", "PIXEL_MEAN", "PREPROCESSING", "digits", "load_test_split", "load_training_split"]

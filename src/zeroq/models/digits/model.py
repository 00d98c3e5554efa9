"""The embedded default: its weights, how its pictures become its input, and what its pixels are like."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from zeroq.models.digits.network import DigitsNetwork
from zeroq.models.weights import load_weights
from zeroq.preprocessing import Preprocessing

WEIGHTS = Path(__file__).with_name("weights.safetensors")

# Mean and deviation of pixel / 255 over the training split, which is all that the quantization may know of the data.
PIXEL_MEAN, PIXEL_DEVIATION = 0.3065, 0.3755
PREPROCESSING = Preprocessing(size=(8, 8), mean=(PIXEL_MEAN,), std=(PIXEL_DEVIATION,), channels="L")


def digits(*, trained: bool = True) -> nn.Module:
    """The network in eval mode, with the weights of the package unless `trained` is False."""
    network = DigitsNetwork().eval()
    if trained:
        load_weights(network, WEIGHTS)
    return network

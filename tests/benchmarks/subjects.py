"""A subject of the speed benchmarks that takes no time."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.nearest import rounded_to_nearest
from benchmarks.speed_subject import WIDTHS, Subject
from tests.networks import block, classifier
from zeroq.distillation import natural_statistic
from zeroq.graph import capture, fold
from zeroq.preprocessing import imagenet

PREPROCESSING = imagenet((8, 8))


def tiny(real: Tensor | None = None) -> Subject:
    """Two convolutions, their BatchNorms, and a linear layer, for pictures of 3 x 8 x 8."""
    torch.manual_seed(0)
    network = capture(classifier(block(3, 4), block(4, 8)).eval(), torch.zeros(2, *PREPROCESSING.input_shape))
    folded = fold(network)
    return Subject(network, folded, natural_statistic(PREPROCESSING), real, rounded_to_nearest(folded, WIDTHS))

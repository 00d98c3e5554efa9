"""A detector from capture to file: frozen BatchNorms, a pyramid, heads whose weights run on five levels."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import Tensor

from benchmarks.plausible import make_plausible
from tests.quantized import Stages, quantize
from tests.retinanet import ANCHORS, LEVELS, RetinaNet, anchors, decode, retinanet
from zeroq.deploy import Verification, verify
from zeroq.distillation import distill, natural_statistic
from zeroq.graph import Network, capture, fold
from zeroq.preprocessing import imagenet

SIDE = 128
PREPROCESSING = imagenet((SIDE, SIDE))
CLASSES = 4
HEAD_LAYERS = 10


def small() -> RetinaNet:
    """Of the whole structure, with few channels."""
    torch.manual_seed(0)
    module = retinanet((1, 1, 1, 1), width=8, pyramid=16, classes=CLASSES)
    make_plausible(module, PREPROCESSING, pictures=4)
    return module


@cache
def distilled() -> tuple[Network, Tensor]:
    network = capture(small(), torch.randn(2, 3, SIDE, SIDE))
    return network, distill(network, natural_statistic(PREPROCESSING), count=8, iterations=3)


@cache
def quantized() -> tuple[Stages, Verification]:
    """In mixed widths, on images that were distilled from its frozen BatchNorms."""
    stages = quantize(small(), distilled()[1], (8, 4, 2), 8)
    return stages, verify(stages.export(), stages.quantized, distilled()[1][:4], threads=1)


def test_the_whole_network_is_known_layer_by_layer() -> None:
    network = capture(retinanet(), torch.randn(2, 3, SIDE, SIDE))
    folded = fold(network)
    assert (len(network.layers), len(network.norms), folded.norms, folded.not_quantized) == (71, 53, (), ())
    assert all(norm.layer is not None for norm in network.norms)
    heads = [layer for layer in folded.layers if layer.name.startswith("head.")]
    assert len(heads) == HEAD_LAYERS and all(len(layer.sites) == LEVELS for layer in heads)
    assert sum(layer.parameters for layer in folded.layers) == 34_010_048


def test_images_are_distilled_from_frozen_norms() -> None:
    network, images = distilled()
    assert len(network.norms) == 17 and images.isfinite().all()
    start = distill(network, natural_statistic(PREPROCESSING), count=8, iterations=0)
    assert not torch.equal(start, images)


def test_every_layer_runs_in_integers_on_every_level() -> None:
    stages, verification = quantized()
    sites = sum(len(layer.sites) for layer in stages.folded.layers)
    assert verification.integer_nodes["QLinearConv"] == sites
    assert all(f"{layer.weight}_integers" in verification.integer_weights for layer in stages.folded.layers)
    assert set(verification.float_nodes) <= {"Shape", "Gather", "Concat"}  # arithmetic of shapes


def test_the_file_equals_its_simulation() -> None:
    verification = quantized()[1]
    assert (verification.largest_steps, verification.share_over_one_step, verification.agreement) == (0, 0.0, 1.0)


def test_a_head_has_one_weight_and_each_level_its_own_range() -> None:
    stages = quantized()[0]
    names = list(stages.quantized.tensors())
    for layer in stages.folded.layers:
        if layer.name.startswith("head."):
            assert names.count(f"{layer.weight}_integers") == 1
    first = stages.folded.layer("head.classification_head.conv.0.0")
    assert len({stages.folded.node(site).args[0] for site in first.sites}) == LEVELS


def test_outputs_are_near_those_in_floating_point() -> None:
    images = distilled()[1][-2:]
    stages = quantize(small(), distilled()[1], 8, 8)
    with torch.inference_mode():
        for expected, found in zip(small()(images), stages.quantized(images), strict=True):
            assert found.shape == expected.shape and found.shape[1] % ANCHORS == 0
            error = (found - expected).square().mean() / expected.var()
            assert error < 0.05


@pytest.mark.parametrize("side", [96, 160])
def test_any_number_of_images_and_a_side_that_halves_unevenly(side: int) -> None:
    module = small()
    network = fold(capture(module, torch.randn(1, 3, side, side)))
    images = torch.randn(3, 3, side, side)
    with torch.inference_mode():
        for expected, found in zip(module(images), network.run(images), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_boxes_are_those_of_the_anchors_and_suppressed_within_a_class() -> None:
    around = anchors(SIDE)
    scores, changes = torch.full((1, len(around), CLASSES), -20.0), torch.zeros(1, len(around), 4)
    assert small()(torch.zeros(1, 3, SIDE, SIDE))[0].shape[1] == len(around)
    inside = ((around[:, :2] - around[:, 2:] / 2 >= 0) & (around[:, :2] + around[:, 2:] / 2 <= SIDE)).all(1)
    first = int(inside.nonzero()[0])
    scores[0, first, 2], scores[0, first + 1, 2], scores[0, first + 1, 1] = 3.0, 2.0, -20.0
    (found,) = decode((scores, changes), SIDE)
    x, y, width, height = (around[first] / SIDE).tolist()
    expected = [x - width / 2, y - height / 2, x + width / 2, y + height / 2, torch.tensor(3.0).sigmoid().item(), 2.0]
    assert len(found) == 1
    torch.testing.assert_close(found[0], torch.tensor(expected))

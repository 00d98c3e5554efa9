"""torchvision's own RetinaNet: backbone and heads captured, decoding outside; its twin has the same keys."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from benchmarks import retinanet_coco
from benchmarks.plausible import make_plausible
from benchmarks.retinanet_coco import Wrapped, detector
from tests.quantized import quantize
from tests.retinanet import retinanet
from zeroq.deploy import verify
from zeroq.distillation import distill, natural_statistic
from zeroq.graph import capture, fold
from zeroq.preprocessing import Preprocessing, imagenet

SIDE = 320


@pytest.fixture(scope="module")
def wrapped() -> nn.Module:
    torch.manual_seed(0)
    module = Wrapped(detector(pretrained=False)).eval()
    return make_plausible(module, imagenet((SIDE, SIDE)), pictures=2)


def test_the_twin_is_torchvisions_network(wrapped: nn.Module) -> None:
    twin = retinanet()
    keys = [name for name in wrapped.state_dict() if not name.endswith("num_batches_tracked")]
    assert sorted(twin.state_dict()) == sorted(keys)
    twin.load_state_dict(wrapped.state_dict(), strict=False)
    images = torch.randn(1, 3, SIDE, SIDE)
    with torch.inference_mode():
        for expected, found in zip(wrapped(images), twin(images), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_every_layer_is_known_and_every_frozen_norm_folded(wrapped: nn.Module) -> None:
    network = capture(wrapped, torch.randn(2, 3, SIDE, SIDE))
    folded = fold(network)
    assert (len(network.layers), len(network.norms), folded.norms, folded.not_quantized) == (71, 53, (), ())


def test_the_file_equals_its_simulation(wrapped: nn.Module) -> None:
    network = capture(wrapped, torch.randn(2, 3, SIDE, SIDE))
    images = distill(network, natural_statistic(imagenet((SIDE, SIDE))), count=2, iterations=1)
    stages = quantize(wrapped, images, (8, 4), 8, method="nearest")
    found = verify(stages.export(), stages.quantized, images, threads=1)
    assert found.largest_steps <= 1 and found.agreement > 0.99
    assert all(f"{layer.weight}_integers" in found.integer_weights for layer in stages.folded.layers)


def test_boxes_are_those_of_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a picture that needs no resizing, against torchvision's own decoding and suppression."""
    torch.manual_seed(0)
    whole: Any = detector(pretrained=False)
    nn.init.normal_(whole.head.classification_head.cls_logits.bias, -2.0, 1.0)
    monkeypatch.setattr(retinanet_coco, "SIDE", SIDE)
    whole.transform.min_size, whole.transform.max_size = (SIDE,), SIDE
    preprocessing = Preprocessing.from_dict(retinanet_coco.PREPROCESS)
    picture = torch.rand(3, SIDE, SIDE)
    mean, deviation = (torch.tensor(each)[:, None, None] for each in (preprocessing.mean, preprocessing.std))
    with torch.inference_mode():
        expected = whole([picture])[0]
        (found,) = retinanet_coco.decode(Wrapped(whole)(((picture - mean) / deviation)[None]))
    used = [number for number in range(91) if number not in retinanet_coco.UNUSED]
    named = {(used[int(row[5])], round(float(row[4]), 4)) for row in found}
    theirs = {
        (int(label), round(float(score), 4))
        for label, score in zip(expected["labels"], expected["scores"], strict=True)
        if int(label) in used
    }
    assert len(named) > 10 and len(named & theirs) >= 0.7 * min(len(named), len(theirs))

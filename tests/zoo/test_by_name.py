"""Networks of torchvision and timm by name: captured whole, and from weights to a file that equals its simulation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.plausible import make_plausible
from zeroq.graph import capture, fold
from zeroq.models import LoadedModel, load_model
from zeroq.models.zoo import find_in_zoo
from zeroq.options import Options
from zeroq.pipeline import quantize_model

# Name -> layers, BatchNorms that no layer can take in.
CAPTURED = {
    "torchvision:resnet18": (21, 0),
    "torchvision:efficientnet_b0": (82, 0),
    "torchvision:mobilenet_v3_small": (54, 0),
    "torchvision:regnet_y_400mf": (86, 0),
    "torchvision:densenet121": (121, 62),
    "torchvision:shufflenet_v2_x1_0": (57, 0),
    "torchvision:inception_v3": (95, 0),
    "torchvision:convnext_tiny": (59, 0),
    "torchvision:vit_b_16": (50, 0),
    "torchvision:swin_t": (53, 0),
    "torchvision:swin_v2_t": (53, 0),
    "timm:efficientnet_b0": (82, 0),
    "timm:mobilenetv3_small_100": (54, 0),
    "timm:regnety_002": (71, 0),
    "timm:densenet121": (121, 62),
    "timm:convnext_atto": (41, 0),
    "timm:vit_tiny_patch16_224": (50, 0),
    "timm:deit_tiny_patch16_224": (50, 0),
    "timm:swin_tiny_patch4_window7_224": (53, 0),
}
# Name -> side of the input; share of the multiply-accumulates that must run in integers.
QUANTIZED = {
    "torchvision:mobilenet_v3_small": (64, 1.0),
    "torchvision:efficientnet_b0": (64, 1.0),
    "torchvision:regnet_y_400mf": (64, 1.0),
    "torchvision:densenet121": (64, 1.0),
    "timm:convnext_atto": (64, 1.0),
    "timm:vit_tiny_patch16_224": (224, 1.0),
    "timm:deit_tiny_patch16_224": (224, 1.0),
    "timm:swin_tiny_patch4_window7_224": (224, 1.0),
}


def with_weights(name: str, side: int | None, folder: Path) -> LoadedModel:
    """A network by its name, with weights from a file: none are downloaded."""
    torch.manual_seed(0)
    found = find_in_zoo(*name.split(":"), pretrained=False)
    assert found.preprocessing is not None
    if side is not None:
        make_plausible(found.module, found.preprocessing, pictures=4)
    torch.save(found.module.state_dict(), folder / "weights.pt")
    shape = None if side in (None, found.preprocessing.size[0]) else (3, side, side)
    return load_model(name, weights=folder / "weights.pt", input_shape=shape)


@pytest.mark.parametrize("name", CAPTURED)
def test_captured_whole(name: str, tmp_path: Path) -> None:
    model = with_weights(name, None, tmp_path)
    network = capture(model.module, torch.randn(2, *model.input_shape))  # refuses a graph that answers otherwise
    folded = fold(network)
    assert (len(folded.layers), len(folded.norms)) == CAPTURED[name]
    assert model.warnings == () and model.preprocessing.mean is not None


@pytest.mark.parametrize("name", QUANTIZED)
def test_from_weights_to_a_file_that_equals_its_simulation(name: str, tmp_path: Path) -> None:
    side, share = QUANTIZED[name]
    model = with_weights(name, side, tmp_path)
    options: dict[str, Any] = {"images": 8, "iterations": 1, "threads": 1, "effort": "fast"}
    result = quantize_model(model, Options.of(**options), tmp_path / "run").result
    assert result["verification"]["largest_steps"] <= 1 and result["verification"]["agreement"] >= 0.5
    assert result["integer_share"] >= share
    assert result["onnx_bytes"] < 0.5 * result["float_bytes"]

"""Image classifiers of transformers as a user's file, from a configuration: no weights are downloaded."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from zeroq.models import load_model
from zeroq.options import Options
from zeroq.pipeline import quantize_model

PREFACE = """
import torch
import transformers
from torch import nn

PREPROCESS = dict(size=(32, 32), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), channels="RGB")
TASK = "classification"


class Scores(nn.Module):
    def __init__(self, classifier):
        super().__init__()
        self.classifier = classifier

    def forward(self, images):
        return self.classifier(pixel_values=images).logits


def network():
    torch.manual_seed(0)
    return Scores(transformers.%s)
"""
NETWORKS = {
    "vit": "ViTForImageClassification(transformers.ViTConfig(hidden_size=32, num_hidden_layers=2, "
    "num_attention_heads=2, intermediate_size=64, image_size=32, patch_size=8, num_labels=5))",
    "deit": "DeiTForImageClassification(transformers.DeiTConfig(hidden_size=32, num_hidden_layers=2, "
    "num_attention_heads=2, intermediate_size=64, image_size=32, patch_size=8, num_labels=5))",
    "swin": "SwinForImageClassification(transformers.SwinConfig(embed_dim=16, depths=[2, 2], num_heads=[1, 2], "
    "window_size=4, image_size=32, patch_size=2, num_labels=5))",
    "convnext": "ConvNextForImageClassification(transformers.ConvNextConfig(hidden_sizes=[8, 16, 16, 32], "
    "depths=[1, 1, 2, 1], num_labels=5))",
    "resnet": "ResNetForImageClassification(transformers.ResNetConfig(embedding_size=16, hidden_sizes=[16, 32], "
    "depths=[1, 1], num_labels=5))",
    "mobilenet_v2": "MobileNetV2ForImageClassification(transformers.MobileNetV2Config(depth_multiplier=0.25, "
    "num_labels=5))",
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_classifier_in_a_users_file(name: str, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(PREFACE % NETWORKS[name])
    model = load_model(f"{tmp_path / 'own.py'}:network")
    options = Options.of(images=8, iterations=1, threads=1, effort="fast")
    run = quantize_model(model, options, tmp_path / "run")
    verification = run.result["verification"]
    assert verification["largest_steps"] <= 1 and verification["agreement"] >= 0.5
    assert run.result["layers"] and run.result["integer_share"] == 1.0
    images = torch.randn(3, *model.input_shape)
    with torch.inference_mode():
        assert run.model(images).shape == model.module(images).shape == (3, 5)

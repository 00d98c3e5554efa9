"""Networks without BatchNorm through all stages: what their images and ranges come from, and that it is said."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from tests.networks import NETWORKS, block, example_of, settle
from tests.runs import QUICK, quick_run
from zeroq.models.resolve import from_module
from zeroq.options import Options
from zeroq.pipeline import Run, quantize
from zeroq.preparation import prepare
from zeroq.whole_files import read_json

NOISE = "ranges come from noise of natural spectrum and from the norms of the weights"


class Headed(nn.Module):
    """A backbone with BatchNorm, a pyramid and two heads without."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone, self.lateral = block(3, 8), nn.Conv2d(8, 6, 1)
        self.boxes, self.classes = nn.Conv2d(6, 4, 3), nn.Conv2d(6, 5, 3)

    def forward(self, images: Tensor) -> Tensor:
        joined = self.lateral(self.backbone(images))
        return torch.cat([self.boxes(joined), self.classes(joined)], 1).mean((2, 3))


class Hybrid(nn.Module):
    """Convolution and BatchNorm before attention."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.rest = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)), NETWORKS["attention"]()

    def forward(self, images: Tensor) -> Tensor:
        return self.rest(self.stem(images))


@cache
def run_of(name: str) -> Run:
    """A run that many tests look at; none may change it."""
    return quick_run(name, images=16, iterations=8)


def sources(run: Run) -> set[str]:
    return {each["source"] for each in read_json(run.directory / "ranges.json")["quantizers"].values()}


@pytest.mark.parametrize(("name", "source"), [("attention", "distilled"), ("norm_free", "neither")])
def test_the_file_answers_as_the_network_does(name: str, source: str) -> None:
    run, images = run_of(name), example_of(name, 32, seed=3)
    session = onnxruntime.InferenceSession(run.directory / "model.onnx", providers=["CPUExecutionProvider"])
    with torch.inference_mode():
        expected, simulated = NETWORKS[name]()(images).numpy(), run.model(images).numpy()
    found = session.run(None, {session.get_inputs()[0].name: images.numpy()})[0]
    assert np.corrcoef(expected.ravel(), found.ravel())[0, 1] > 0.99
    assert np.abs(simulated - found).max() <= 0.05 * np.abs(expected).max()
    assert sources(run) == {source}
    layers = {"attention": "patches qkv mix mlp.0 mlp.2 head", "norm_free": "stem one other last"}[name]
    assert " ".join(layer["name"] for layer in run.result["layers"]) == layers
    assert run.result["verification"]["agreement"] == 1


def test_the_page_says_what_images_and_ranges_come_from() -> None:
    noise, distilled = ((run_of(name).directory / "report.html").read_text() for name in ("norm_free", "attention"))
    assert "fitted to noise with the spectrum of natural pictures" in noise and "distilled images" not in noise
    assert "noise of natural spectrum, norms of weights" in noise
    assert "fitted to images distilled from the network itself" in distilled and "its attention" in distilled


def warnings_of(module: nn.Module, **options: Any) -> list[str]:
    return list(prepare(from_module(module, torch.randn(2, 3, 8, 8), name="it"), Options.of(**options)).warnings)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (NETWORKS["norm_free"], NOISE),
        (NETWORKS["attention"], r"half of the images are made for what its attention \(1 product with a softmax\)"),
        (Hybrid, r"BatchNorms and attention \(1 product with a softmax\): images match the BatchNorms' statistics al"),
        (Headed, r"No BatchNorm knows the outputs of 3 of the quantized layers \(lateral, boxes, classes\)"),
    ],
    ids=["neither", "attention", "both", "heads"],
)  # fmt: skip
def test_a_warning_says_what_images_are_made_for(make: Callable[[], nn.Module], said: str) -> None:
    module = settle(make(), (16, 3, 8, 8))
    assert len([text for text in warnings_of(module) if re.search(said, text)]) == 1


def test_a_plain_network_and_own_pictures_have_no_such_warning(tmp_path: Any) -> None:
    np.savez(tmp_path / "some.npz", images=np.zeros((8, 8, 8, 3), np.uint8))
    other = re.compile("[Nn]o BatchNorm|attention|noise")
    assert not [text for text in warnings_of(NETWORKS["residual"]()) if other.search(text)]
    for name in ("norm_free", "attention"):
        found = warnings_of(NETWORKS[name](), calibration=str(tmp_path / "some.npz"))
        assert not [text for text in found if other.search(text)]


def test_without_steps_no_image_is_distilled() -> None:
    run = quick_run("residual", images=8, iterations=0)
    assert sources(run) == {"neither"}


def test_a_head_without_batch_norm_is_quantized_from_the_statistics_around_it() -> None:
    module = settle(Headed(), (32, 3, 8, 8))
    run = quantize(module, torch.randn(2, 3, 8, 8), **QUICK | {"images": 16, "iterations": 20})
    assert {layer["name"] for layer in run.result["layers"]} == {"backbone.0", "lateral", "boxes", "classes"}
    images = torch.randn(16, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        expected, found = (network(images).numpy().ravel() for network in (module, run.model))
    assert np.corrcoef(expected, found)[0, 1] > 0.98
    assert sources(run) <= {"distilled", "batchnorm"}

"""Tensors of the user's with names that zeroq gives to its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
from torch import Tensor, fx, nn

from tests.runs import QUICK
from zeroq.errors import CaptureError
from zeroq.graph import capture
from zeroq.graph.names import is_ours, keep_apart
from zeroq.pipeline import quantize

# Of a linear layer's further tensor, and of the network's.
OF_A_LAYER = ["weight_scale", "weight_integers", "bias_scale", "bias_integers", "bias_values", "folded_bias"]
OF_THE_NETWORK = ["activations", "c0", "zeros8", "zero_point_0", "shape_", "lower_limit"]


class Scaled(nn.Linear):
    """A layer whose outputs have a factor each."""

    def __init__(self, name: str, gain: Tensor) -> None:
        super().__init__(8, 8)
        self.name = name
        self.register_buffer(name, gain)

    def forward(self, values: Tensor) -> Tensor:
        return super().forward(values) * getattr(self, self.name)


class Named(nn.Module):
    def __init__(self, of_layer: str, own: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.layer = Scaled(of_layer, torch.rand(8) + 0.5)
        self.last, self.own = nn.Linear(8, 3), own
        self.register_buffer(own, torch.rand(8) + 0.5)

    def forward(self, images: Tensor) -> Tensor:
        values = self.norm(self.first(images)).relu().mean((2, 3))
        return self.last(self.layer(values).relu() * getattr(self, self.own))


def answers(module: nn.Module, out: Path) -> tuple[Tensor, Any]:
    """Of the quantized network, and of its file."""
    run = quantize(module, torch.randn(2, 3, 8, 8), out=out, **QUICK)
    images = torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    session = onnxruntime.InferenceSession(run.directory / "model.onnx")
    with torch.inference_mode():
        return run.model(images), session.run(None, {session.get_inputs()[0].name: images.numpy()})[0]


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tensor, Any]:
    return answers(Named("gain", "factor"), tmp_path_factory.mktemp("plain") / "run")


@pytest.mark.parametrize(
    ("of_layer", "own"),
    [*((name, "factor") for name in OF_A_LAYER), *(("gain", name) for name in OF_THE_NETWORK)],
)
def test_names_change_nothing(of_layer: str, own: str, expected: tuple[Tensor, Any], tmp_path: Path) -> None:
    simulated, by_file = answers(Named(of_layer, own), tmp_path / "run")
    assert torch.equal(simulated, expected[0])
    assert (by_file == expected[1]).all()


def test_names_that_are_not_ours_stay() -> None:
    names = ("logit_scale", "layer.weight", "layer.scale", "a.c0", "shape.weight", "activations.0.weight")
    tensors = {name: torch.zeros(1) for name in names}
    assert not any(is_ours(name, tensors) for name in tensors)
    before = dict(tensors)
    keep_apart(fx.Graph(), tensors)
    assert tensors == before


def test_another_name_is_taken_by_nothing_else() -> None:
    tensors = {name: torch.zeros(1) for name in ("weight", "weight_scale", "weight_scale_")}
    keep_apart(fx.Graph(), tensors)
    assert list(tensors) == ["weight", "weight_scale_", "weight_scale__"]


@pytest.mark.parametrize("name", ["meta", "graph", "code", "recompile"])
def test_a_part_called_as_a_part_of_torch_s_graphs_is_refused(name: str) -> None:
    module = nn.Sequential()
    module.add_module(name, nn.Linear(4, 3))
    with pytest.raises(CaptureError, match=f"^The network has a part of the name '{name}', which torch.export keeps"):
        capture(module, torch.randn(2, 4))


class GivenOutput(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 1)

    def forward(self, output: Tensor) -> Tensor:
        return self.layer(output).relu()


def test_an_input_may_be_called_output(tmp_path: Path) -> None:
    module, images = GivenOutput().eval(), torch.randn(2, 3, 4, 4)
    torch.testing.assert_close(capture(module, images).run(images), module(images))
    run = quantize(module, images, out=tmp_path / "run", **QUICK)
    session = onnxruntime.InferenceSession(run.directory / "model.onnx")
    given = {session.get_inputs()[0].name: images.numpy()}
    assert session.run(None, given)[0].shape == (2, 4, 4, 4)

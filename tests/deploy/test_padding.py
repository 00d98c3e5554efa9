"""Zero padding: the convolution's own where one reads it, of integers elsewhere; other padding is left alone."""

from __future__ import annotations

import pytest
import torch
from onnx import ModelProto
from torch import Tensor, nn
from torch.nn import functional

from tests.quantized import quantize
from zeroq.deploy import verify


class Padded(nn.Module):
    """A convolution, padding, another convolution, and what else reads the padded value."""

    def __init__(self, pads: tuple[int, ...], mode: str = "constant", value: float = 0.0, shared: bool = False) -> None:
        super().__init__()
        self.stem, self.layer = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, padding=1)
        self.pads, self.mode, self.value, self.shared = pads, mode, value, shared

    def forward(self, images: Tensor) -> Tensor:
        padded = functional.pad(self.stem(images), self.pads, self.mode, self.value)
        after = self.layer(padded)
        return after + padded[..., : after.shape[-1]] if self.shared else after


def exported(module: nn.Module, bits: int = 8) -> tuple[ModelProto, dict[str, int]]:
    """The file, after it has been verified, and what it computes in floating point."""
    images = torch.randn(8, 3, 6, 6)
    stages = quantize(module.eval(), images, 8, bits)
    model = stages.export()
    verification = verify(model, stages.quantized, images, threads=1)
    assert verification.largest_steps <= 1
    assert verification.integer_nodes["QLinearConv"] == 2
    return model, dict(verification.float_nodes)


def pads_of_layers(model: ModelProto) -> list[list[int]]:
    """The padding of each convolution in the file."""
    found = [node for node in model.graph.node if node.op_type == "Conv"]
    return [next((list(each.ints) for each in node.attribute if each.name == "pads"), []) for node in found]


def operators(model: ModelProto) -> set[str]:
    return {node.op_type for node in model.graph.node}


def test_zero_padding_on_some_sides_becomes_the_convolutions() -> None:
    model, floating = exported(Padded((0, 1, 2, 0)))
    assert pads_of_layers(model) == [[], [3, 1, 1, 2]]
    assert "Pad" not in operators(model) and not floating


def test_padding_that_others_read_as_well_is_of_integers() -> None:
    model, floating = exported(Padded((0, 1, 0, 0), shared=True))
    assert pads_of_layers(model) == [[], [1, 1, 1, 2]]
    assert "Pad" in operators(model) and floating == {"Add": 1}  # that gives the output


def test_padding_of_channels_is_of_integers() -> None:
    class Channels(Padded):
        """Shortcut of a small ResNet: new channels of zeros."""

        def forward(self, images: Tensor) -> Tensor:
            stem = functional.relu(self.stem(images))
            return functional.pad(stem, (0, 0, 0, 0, 2, 2))[:, 2:6] + self.layer(stem)

    model, floating = exported(Channels(()))
    assert "Pad" in operators(model) and floating == {"Add": 1}  # that gives the output


def test_padding_before_inputs_of_fewer_bits_is_of_integers() -> None:
    model, floating = exported(Padded((0, 1, 0, 1), shared=True), bits=4)
    assert "Pad" in operators(model) and floating == {"Add": 1}  # that gives the output


@pytest.mark.parametrize("mode", ["reflect", "replicate", "constant"])
def test_padding_with_anything_but_zeros_stays_what_it_is(mode: str) -> None:
    model, floating = exported(Padded((1, 1, 1, 0), mode, 1.0 if mode == "constant" else 0.0))
    assert pads_of_layers(model) == [[], [1, 1, 1, 1]]
    assert floating == {"Pad": 1}


def test_cropping_is_not_padding() -> None:
    model, _ = exported(Padded((-1, 0, 0, -1)))
    assert pads_of_layers(model) == [[], [1, 1, 1, 1]]

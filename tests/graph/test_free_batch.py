"""Where Python code takes the number of images for a plain number it is free again, unless it does more than count."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy
import pytest
import torch
from torch import Tensor, nn

from zeroq.errors import CaptureError
from zeroq.graph import capture

IMAGES = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))

Step = Callable[[Tensor], Tensor]


class Stepped(nn.Module):
    """A layer and what its values go through."""

    def __init__(self, step: Step) -> None:
        super().__init__()
        self.layer, self.step = nn.Conv2d(3, 4, 1), step

    def forward(self, images: Tensor) -> Tensor:
        return self.step(self.layer(images))


def asserted(x: Tensor) -> Tensor:
    assert x.shape[0] <= 64, "too many"
    return x.relu()


def averaged(x: Tensor) -> Tensor:
    number = float(x.shape[0])
    return x * (number / number)


COUNTED: dict[str, Step] = {
    "len": lambda x: x.reshape(len(x), -1),
    "quotient": lambda x: x.reshape(-1, 16).relu().view(int(x.numel() / (4 * 8 * 8)), -1),
    "numpy": lambda x: x.reshape(int(numpy.prod(x.shape[:2])), -1).relu().reshape(x.shape),
    "rounded": lambda x: x.reshape(round(x.shape[0] * 4.0), -1).relu().reshape(math.floor(len(x) * 1.0), -1),
    "asserted": asserted,
    "averaged": averaged,
    "zeros": lambda x: x.new_zeros(torch.Size([len(x), 4])) + x.mean((2, 3)),
    "expanded": lambda x: torch.cat([torch.ones(1, 1, 8, 8).expand(len(x), -1, -1, -1), x], 1),
    "repeated": lambda x: torch.ones(1, 4).repeat(len(x), 1) * x.mean((2, 3)),
    "in_order": lambda x: x[torch.arange(len(x))],
}


@pytest.mark.parametrize("name", COUNTED)
def test_what_counts_images_holds_for_any_number(name: str) -> None:
    module = Stepped(COUNTED[name])
    network = capture(module, IMAGES)
    for count in (1, 2, 5):
        images = torch.randn(count, 3, 8, 8)
        with torch.inference_mode():
            torch.testing.assert_close(network.run(images), module(images))
    assert [layer.name for layer in network.layers] == ["layer"]


def test_modules_and_lines_are_still_known() -> None:
    network = capture(Stepped(COUNTED["len"]), IMAGES)
    layer, step = (node.meta for node in network.graph.nodes if node.op == "call_function")
    assert layer["module"] == "layer" and "self.step(self.layer(images))" in layer["place"]
    assert __file__ in step["place"]


@pytest.mark.parametrize(
    "step",
    [
        lambda x: x.reshape(2, -1),
        lambda x: torch.cat([x[: len(x) // 2], x[len(x) // 2 :]]) * len(x),
        lambda x: torch.stack([each.relu() for each in x]),
        lambda x: x + torch.tensor([float(len(x))]),
    ],
)
def test_what_is_made_for_one_number_of_images_is_refused(step: Step) -> None:
    with pytest.raises(CaptureError, match="fixes the number of images|depends on the other images"):
        capture(Stepped(step), IMAGES)

"""Stored vectors behind a layer become its bias, and nothing else does."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from zeroq.graph import Network, capture

IMAGES = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))


class Added(nn.Module):
    """A convolution or a linear layer, and a stored tensor behind it."""

    def __init__(self, layer: nn.Module, *shape: int, twice: bool = False) -> None:
        super().__init__()
        self.layer, self.stored, self.twice = layer, nn.Parameter(torch.randn(shape)), twice

    def forward(self, images: Tensor) -> Tensor:
        value = self.layer(images)
        return torch.relu(value + self.stored) + (value if self.twice else 0)


def captured(module: nn.Module) -> Network:
    """The graph, equal to the module."""
    torch.manual_seed(0)
    network = capture(module, IMAGES)
    with torch.inference_mode():
        torch.testing.assert_close(network.run(IMAGES), module(IMAGES))
    return network


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(1, 8, 1, 1), (8, 1, 1), (1,), (1, 1, 1, 1)])
def test_behind_a_convolution(shape: tuple[int, ...], bias: bool) -> None:
    network = captured(Added(nn.Conv2d(3, 8, 3, bias=bias), *shape))
    assert network.not_quantized == () and network.layers[0].bias is not None


@pytest.mark.parametrize("shape", [(8,), (1, 8), (1, 1, 1, 8), (1,)])
def test_behind_a_linear_layer(shape: tuple[int, ...]) -> None:
    network = captured(Added(nn.Linear(4, 8, bias=False), *shape))
    assert network.not_quantized == () and network.layers[0].bias is not None


@pytest.mark.parametrize(
    "module",
    [
        Added(nn.Conv2d(3, 8, 1), 8, 4, 4),  # another number at every place
        Added(nn.Conv2d(3, 8, 1), 4),  # along the width
        nn.Sequential(Added(nn.Conv2d(3, 8, 1), 1, 1, 8, 1, 1), nn.Flatten(0, 1)),  # of one axis more
        Added(nn.Conv2d(3, 8, 1), 8, 1, 1, twice=True),  # the value without it is read as well
    ],
)
def test_what_is_no_bias_stays(module: nn.Module) -> None:
    assert [name.rpartition(".")[2] for name, _ in captured(module).not_quantized] == ["stored"]


@pytest.mark.parametrize("kind", [torch.int64, torch.bool, torch.float64])
def test_numbers_of_another_type_stay(kind: torch.dtype) -> None:
    module = Added(nn.Linear(4, 8, bias=False), 8)
    module.stored = nn.Parameter(torch.arange(8).to(kind), requires_grad=False)
    assert [name.rpartition(".")[2] for name, _ in captured(module).not_quantized] == ["stored"]

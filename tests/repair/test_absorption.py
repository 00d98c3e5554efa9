"""Biases that move on, exactly where nothing lies below them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from zeroq.graph import Network, capture, fold
from zeroq.graph.normal import Normal, normal_values
from zeroq.repair import absorb_high_biases


def network_of(*behind: nn.Module) -> tuple[Network, dict[str, Normal]]:
    """A convolution whose first two channels have means of 10 and 1 at deviations of 1 and 0.2, the others of 0."""
    norm = nn.BatchNorm2d(4)
    module = nn.Sequential(nn.Conv2d(3, 4, 1), norm, nn.ReLU(), *behind).eval()
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.0, -0.2, 1.0, 0.5]))
        norm.bias.copy_(torch.tensor([10.0, 1.0, 0.0, -2.0]))
    captured = capture(module, torch.randn(2, 3, 6, 6))
    return fold(captured), normal_values(captured)


@pytest.mark.parametrize(
    "behind",
    [
        (nn.Conv2d(4, 5, 3),),
        (nn.Conv2d(4, 4, 3, groups=4),),
        (nn.Conv2d(4, 6, 1, groups=2),),
        (nn.Flatten(), nn.Linear(4 * 36, 5)),
    ],
)
def test_what_lies_above_is_kept_exactly(behind: tuple[nn.Module, ...]) -> None:
    network, normals = network_of(*behind)
    changed, moved = absorb_high_biases(network, normals)
    (site,) = normals
    surplus = (network.tensors["0.folded_bias"] - changed.tensors["0.folded_bias"]).double()
    torch.testing.assert_close(surplus, torch.tensor([7.0, 0.4, 0.0, 0.0]).double(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(moved[site].mean, normals[site].mean - surplus, rtol=1e-5, atol=1e-5)
    images = 0.1 * torch.randn(8, 3, 6, 6)
    with torch.inference_mode():
        torch.testing.assert_close(changed.run(images), network.run(images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "behind",
    [
        (nn.Conv2d(4, 5, 3, padding=1),),
        (nn.Conv2d(4, 5, 1, bias=False),),
        (nn.AvgPool2d(3, 1, 1), nn.Conv2d(4, 5, 1)),
    ],
)
def test_a_layer_that_pads_or_has_no_bias_takes_none(behind: tuple[nn.Module, ...]) -> None:
    network, normals = network_of(*behind)
    changed, moved = absorb_high_biases(network, normals)
    assert all(torch.equal(changed.tensors[name], value) for name, value in network.tensors.items())
    assert moved == normals

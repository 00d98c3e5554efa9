"""Corrected biases keep what a layer gives on average."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.networks import NETWORKS, example_of
from zeroq.graph import capture, fold
from zeroq.graph.normal import Normal, normal_values
from zeroq.numbers.values import IntegerWeight
from zeroq.repair import correct_biases, expected_values
from zeroq.rounding import round_weight


@pytest.mark.parametrize(
    "layer",
    [nn.Conv2d(4, 6, 3), nn.Conv2d(4, 8, 3, groups=2, bias=False), nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 5, 1)],
)
def test_the_mean_of_every_channel_is_kept_for_inputs_of_the_expected_means(layer: nn.Conv2d) -> None:
    captured = capture(nn.Sequential(layer).eval(), torch.randn(2, 4, 6, 6))
    network = fold(captured)
    means = torch.tensor([0.5, -1.0, 3.0, 0.0])
    expected = expected_values(network, {network.inputs[0]: Normal(means.double(), torch.ones(4).double())})
    rounded = round_weight(layer.weight.detach(), 2, None, groups=layer.groups, method="nearest")
    corrected = correct_biases(network, {"0": rounded}, expected)["0"]
    images = means[None, :, None, None].expand(1, 4, 6, 6)
    with torch.inference_mode():
        wanted = layer(images)
        assert corrected.bias is not None
        found = nn.functional.conv2d(images, corrected.dequantized(), corrected.bias, groups=layer.groups)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    assert torch.equal(corrected.integers, rounded.integers)


def test_behind_a_relu_means_are_those_of_what_it_leaves() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1)).eval()
    with torch.no_grad():
        module[1].bias.fill_(0.0)  # type: ignore[operator,union-attr]
    captured = capture(module, torch.randn(2, 3, 6, 6))
    network = fold(captured)
    weight = network.tensors["3.weight"]
    rounded = IntegerWeight(torch.ones(2, 4, 1, 1, dtype=torch.int8), torch.ones(2), 4, "nearest")
    corrected = correct_biases(network, {"3": rounded}, expected_values(network, normal_values(captured)))["3"]
    moved = (1 - weight).sum((1, 2, 3)) * (2 * torch.pi) ** -0.5  # E max(x, 0) of standard normal numbers
    torch.testing.assert_close(corrected.bias, (network.tensors["3.bias"] - moved).detach(), rtol=1e-4, atol=1e-5)


def test_layers_of_several_sites_or_unknown_inputs_are_left() -> None:
    for name in ("shared_head", "no_norm"):
        captured = capture(NETWORKS[name](), example_of(name))
        network = fold(captured)
        weights = {
            layer.name: round_weight(network.tensors[layer.weight], 4, None, groups=layer.groups, method="squant")
            for layer in network.layers
        }
        corrected = correct_biases(network, weights, expected_values(network, normal_values(captured)))
        several = {layer.name for layer in network.layers if len(layer.sites) > 1 or name == "no_norm"}
        assert several and all(corrected[layer] is weights[layer] for layer in several)

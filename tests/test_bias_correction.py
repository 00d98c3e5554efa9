"""Corrected biases give every layer's channels the mean that they have in floating point."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from zeroq.bias_correction import correct_biases, site_means
from zeroq.graph import Network, capture


class Chain(nn.Module):
    """A convolution, a depthwise one without bias, a linear layer on tokens and one on vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 4, 3), nn.Conv2d(4, 4, 3, groups=4, bias=False)
        self.tokens, self.head = nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.second(functional.relu(self.first(x))))
        return self.head(functional.relu(self.tokens(x.flatten(2).transpose(1, 2))).mean(1))


def coarse(network: Network) -> Network:
    """Every weight rounded to halves."""
    return network.with_tensors(
        {layer.weight: torch.round(network.tensors[layer.weight] * 4) / 4 for layer in network.layers}
    )


def test_every_mean_is_that_of_the_float_network() -> None:
    torch.manual_seed(0)
    images = torch.rand(11, 2, 9, 9)
    network = capture(Chain(), images[:2])
    quantized, names = coarse(network), tuple(layer.name for layer in network.layers)
    corrected = correct_biases(network, quantized.graph, quantized.tensors, names, images)
    assert set(corrected) == set(names)
    sites = {layer.name: layer.sites[0] for layer in network.layers}
    wanted, before = (site_means(each, set(sites.values()), images) for each in (network, quantized))

    class Corrected(Chain):
        """The same with coarse weights and corrected biases, by PyTorch alone."""

    module = Corrected()
    module.second = nn.Conv2d(4, 4, 3, groups=4)
    for layer in network.layers:
        own = module.get_submodule(layer.name)
        own.weight.data.copy_(quantized.tensors[layer.weight])
        own.bias.data.copy_(corrected[layer.name])
    found: dict[str, Tensor] = {}
    for name in names:
        module.get_submodule(name).register_forward_hook(
            lambda layer, inputs, output, name=name: found.update({name: output.detach()})
        )
    module(images)
    for name, site in sites.items():
        axes = (0, 2, 3) if found[name].dim() == 4 else tuple(range(found[name].dim() - 1))
        torch.testing.assert_close(found[name].mean(axes).double(), wanted[site], rtol=1e-4, atol=1e-5)
        assert not torch.allclose(before[site], wanted[site], atol=1e-3)


def test_only_the_layers_asked_for_are_corrected() -> None:
    images = torch.rand(4, 2, 9, 9)
    network = capture(Chain(), images[:2])
    assert set(correct_biases(network, network.graph, network.tensors, ("tokens",), images)) == {"tokens"}


def test_exact_weights_keep_their_biases() -> None:
    images = torch.rand(4, 2, 9, 9)
    network = capture(Chain(), images[:2])
    same = correct_biases(network, network.graph, network.tensors, ("first",), images)
    torch.testing.assert_close(same["first"], network.tensors["first.bias"])

"""Channels of successive layers brought to one range of weights, without changing what the network gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from zeroq.graph.network import Layer, Network
from zeroq.graph.normal import Normal
from zeroq.repair.links import Link, links

ROUNDS = 100  # at most; chains that share layers converge within some 20
SETTLED = 1e-3  # a round whose factors are all so near to 1 is the last
DEAD = 1e-4  # of a layer's largest weight: channels that stay below are left alone, as their biases would explode


def equalize(network: Network, normals: Mapping[str, Normal]) -> tuple[Network, dict[str, Normal]]:
    """Scale each channel between two layers so that the weights on both sides reach equally far (DFQ, arXiv:1906.04721,
    section 4.1): W1 and b1 of channel i divided by s_i and W2 multiplied, s_i = sqrt(r1_i r2_i) / r2_i.

    r: the largest magnitude among the weights that give a channel, or that read it. Depthwise layers between the two
    stand in the same chain, and all ranges of a channel become their geometric mean. Chains that share layers are
    equalized in turn until nothing changes.
    Only where the function between is one that positive factors pass: identity, ReLU, LeakyReLU, PReLU, pooling, zero
    padding, resizing, reshaping that keeps channels together. ReLU6 is none: its ceiling would have to be one for each
    channel, which no integer kernel knows. Layers beside a residual sum, concatenations or several readers are left.

    network: folded.  normals: of its values, from `normal_values`; may be empty.
    Gives the network, and the normals of what it has become.
    """
    chains = chains_of(links(network))
    layers = {layer.name: layer for chain in chains for layer in chain.layers}
    weights = {name: network.tensors[layer.weight].detach().double() for name, layer in layers.items()}
    factors = {
        layer.sites[0]: torch.ones(layer.shape[0], dtype=torch.float64)
        for chain in chains for layer in chain.layers[:-1]
    }  # fmt: skip
    for _ in range(ROUNDS):
        largest = max((equalize_chain(chain, weights, factors) for chain in chains), default=1.0)
        if largest < 1 + SETTLED:
            break
    changed = {layers[name].weight: weight for name, weight in weights.items()}
    for layer in layers.values():
        if layer.bias is not None and layer.sites[0] in factors:
            changed[layer.bias] = network.tensors[layer.bias].detach().double() * factors[layer.sites[0]]
    return network.with_tensors({
        name: value.to(network.tensors[name].dtype) for name, value in changed.items()
    }), {name: scaled(normal, factors.get(name)) for name, normal in normals.items()}  # fmt: skip


def scaled(normal: Normal, factor: Tensor | None) -> Normal:
    """Of channels that were multiplied by positive factors, None where they were not."""
    return normal if factor is None else Normal(normal.mean * factor, normal.deviation * factor)


@dataclass(frozen=True)
class Chain:
    """Layers that share their channels: one that gives them, depthwise ones, and one that reads them."""

    layers: tuple[Layer, ...]
    repeated: int  # inputs of the last layer that each channel becomes


def chains_of(pairs: Sequence[Link]) -> tuple[Chain, ...]:
    """Every link in one chain."""
    following = {link.first.name: link for link in pairs}
    inner = {link.second.name for link in pairs if is_one_to_one(link.second) and link.second.name in following}
    found = []
    for link in pairs:
        if link.first.name in inner:
            continue
        layers = [link.first, link.second]
        while layers[-1].name in inner:
            link = following[layers[-1].name]
            layers.append(link.second)
        found.append(Chain(tuple(layers), link.repeated))
    return tuple(found)


def is_one_to_one(layer: Layer) -> bool:
    """Whether a layer is depthwise, one filter for each channel."""
    return layer.depthwise and layer.groups == layer.shape[0]


def equalize_chain(chain: Chain, weights: dict[str, Tensor], factors: dict[str, Tensor]) -> float:
    """Bring a chain's ranges together, in place; how far from 1 the largest factor was."""
    *giving, reading = chain.layers
    ranges = torch.stack([
        *(weights[layer.name].abs().flatten(1).amax(1) for layer in giving),
        by_input(weights[reading.name], reading).abs().amax((0, 2)).reshape(-1, chain.repeated).amax(1),
    ])  # fmt: skip
    alive = (ranges > DEAD * ranges.amax(1, keepdim=True)).all(0)
    multipliers = torch.where(alive, ranges.log().mean(0).exp() / ranges, 1.0)  # of each layer's weights
    passed = torch.ones_like(multipliers[0])
    for layer, multiplier in zip(giving, multipliers, strict=False):
        passed = passed * multiplier
        weights[layer.name] = weights[layer.name] * multiplier.reshape(-1, *[1] * (len(layer.shape) - 1))
        factors[layer.sites[0]] = factors[layer.sites[0]] * passed
    weights[reading.name] = with_inputs_scaled(
        weights[reading.name], multipliers[-1].repeat_interleave(chain.repeated), reading
    )
    return float(torch.maximum(multipliers, 1 / multipliers).amax())


def by_input(weight: Tensor, layer: Layer) -> Tensor:
    """[out, in / groups, *kernel] -> [filters of a group, input channels of all groups, positions]."""
    split = weight.unflatten(0, (layer.groups, -1)).transpose(0, 1)  # [out / groups, groups, in / groups, *kernel]
    return split.flatten(1, 2).unsqueeze(-1).flatten(2)


def with_inputs_scaled(weight: Tensor, factor: Tensor, layer: Layer) -> Tensor:
    """A weight whose input channels are multiplied; factor: [in]."""
    split = weight.unflatten(0, (layer.groups, -1))
    shape = layer.groups, 1, -1, *[1] * (weight.dim() - 2)
    return (split * factor.reshape(shape)).flatten(0, 1)

"""The recipe of the paper (ZeroQ, arXiv:2001.00281) from its description, to measure against: nothing is clever here.

32 images from N(0, 1), Adam at 0.5 for 500 iterations, statistics of each image by itself, the input's mean 0 and
deviation 1 among them, 32-bit floats; one full pass of the network for every layer and width; a dynamic program over
bins of the size. Ranges are the least and the greatest value on the images, weights are rounded to nearest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.plain import plain_weights, ranges_between
from zeroq.divergence import kl_divergence
from zeroq.graph import Layer, Network, replay
from zeroq.simulate import QuantizedNetwork, place, quantize_network

IMAGES, ITERATIONS, RATE = 32, 500, 0.5
BINS = 10_000  # of the size that a setting may have
PART = 8  # images at a time, where nothing depends on how many

Quantized = Callable[[Layer, int], Tensor]  # a layer's weight at a width


def start(network: Network, images: int = IMAGES, seed: int = 0) -> Tensor:
    """Images from N(0, 1), [images, C, H, W]."""
    noise = torch.randn(images, *network.example[0].shape[1:], generator=torch.Generator().manual_seed(seed))
    return noise.to(network.example[0].device)


def distilled(images: Tensor, network: Network, iterations: int = ITERATIONS) -> Tensor:
    """Images after so many iterations of the recipe."""
    found = images.clone().requires_grad_()
    optimiser = torch.optim.Adam([found], lr=RATE)
    for _ in range(iterations):
        optimiser.zero_grad()
        loss(found, network).backward()
        optimiser.step()
    return found.detach()


def loss(images: Tensor, network: Network) -> Tensor:
    """Sum over BatchNorms of the squared distance of mean and deviation, of each image, from the running ones; mean."""
    read = {norm.input: norm for norm in network.norms}
    channels = images.shape[1]
    terms = [distance(images, images.new_zeros(channels), images.new_ones(channels))]

    def note(node: torch.fx.Node, value: Tensor) -> None:
        if node.name in read:
            norm = read[node.name]
            terms.append(distance(value, norm.mean, (norm.variance + norm.epsilon).sqrt()))

    replay(network.graph, network.tensors, {network.inputs[0]: images}, visit=note)
    return torch.stack(terms).sum()


def distance(values: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
    """Of each image's own statistics, mean over the images; maps of one position have no deviation."""
    flat = values.flatten(2)
    missed = (flat.mean(2) - mean).square().sum(1)
    if flat.shape[2] > 1:
        missed = missed + (flat.var(2, correction=0) + 1e-8).sqrt().sub(deviation).square().sum(1)
    return missed.mean()


def quantized(
    folded: Network, images: Tensor, widths: Mapping[str, int], input_bits: Mapping[str, int]
) -> QuantizedNetwork:
    """The quantized network of given widths; widths, input_bits: by layer."""
    placement = place(folded)
    ends = {value: (math.inf, -math.inf) for quantizer in placement.quantizers for value in quantizer.measured}

    def note(node: torch.fx.Node, value: Tensor) -> None:
        if node.name in ends:
            low, high = ends[node.name]
            ends[node.name] = min(low, float(value.amin())), max(high, float(value.amax()))

    with torch.inference_mode():
        for part in images.split(PART):
            replay(folded.graph, folded.tensors, {folded.inputs[0]: part}, visit=note)
    ranges = ranges_between(
        folded, placement, input_bits,
        lambda quantizer: (
            min(ends[value][0] for value in quantizer.measured), max(ends[value][1] for value in quantizer.measured)
        ),
        "distilled",
    )  # fmt: skip
    weights = plain_weights(folded, placement, ranges, widths, input_bits)
    return quantize_network(folded, placement, ranges, weights, input_bits)


def sensitivity(
    network: Network, layer: Layer, width: int, images: Tensor, reference: Tensor, weight: Quantized
) -> float:
    """KL of one layer at one width, by a full pass of the network with that weight alone changed."""
    changed = network.with_tensors({layer.weight: weight(layer, width)})
    with torch.inference_mode():
        return float(kl_divergence(reference, changed.run(images)).mean())


def binned(sizes: Sequence[Sequence[int]], costs: Sequence[Sequence[float]], bins: int = BINS) -> NDArray[np.float64]:
    """Least cost within each bin's size, [bins + 1], layer by layer; sizes are rounded up to whole bins."""
    total = sum(max(options) for options in sizes)
    step = max(total // bins, 1)
    best = np.full(bins + 1, np.inf)
    best[0] = 0.0
    for options, prices in zip(sizes, costs, strict=True):
        fresh = np.full(bins + 1, np.inf)
        for size, price in zip(options, prices, strict=True):
            shift = -(-size // step)
            if shift <= bins:
                fresh[shift:] = np.minimum(fresh[shift:], best[: bins + 1 - shift] + price)
        best = fresh
    return np.minimum.accumulate(best)

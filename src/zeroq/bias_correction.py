"""Biases that make up for the shift of each channel's mean which quantization causes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx

from zeroq.graph import Inputs, Network, chunks, count_images, replay
from zeroq.graph.walk import CHUNK, Walk


def correct_biases(
    network: Network, graph: fx.Graph, tensors: Mapping[str, Tensor], layers: tuple[str, ...], images: Inputs
) -> dict[str, Tensor]:
    """b + E[float output] - E[quantized output] per channel, layer after layer (DFQ, arXiv:1906.04721, section 4.2).

    Differs from the paper: expectations from images in place of BatchNorm statistics, and each layer's inputs are
    those of the network whose earlier biases are already corrected.
    network: folded, in floating point.  graph, tensors: the same with activation quantizers and rounded weights.
    layers: those to correct, of one site each.  images: [N, C, H, W], of several inputs a tuple.
    Gives biases float32 by layer.
    """
    chosen = [layer for layer in network.layers if layer.name in layers and len(layer.sites) == 1]
    wanted = site_means(network, {layer.sites[0] for layer in chosen}, images)
    walk = Walk.over(graph, tensors, images)
    corrected = {}
    for layer in chosen:
        site = layer.sites[0]
        walk.to(site)
        axis = channel_axis(walk.nodes[site])
        found = sum(channel_sum(live[site], axis) for live in walk.live) / count_images(images)
        change = (wanted[site] - found).float()
        for live in walk.live:
            live[site] = live[site] + change.reshape(-1, *[1] * (live[site].dim() - 2 if axis == 1 else 0))
        before = network.tensors[layer.bias] if layer.bias else torch.zeros_like(change)
        corrected[layer.name] = before + change
    return corrected


def site_means(network: Network, sites: set[str], images: Inputs) -> dict[str, Tensor]:
    """Mean of each channel at the given nodes, over images and positions, float64 [channels]."""
    sums: dict[str, Any] = dict.fromkeys(sites, 0.0)

    def note(node: fx.Node, value: Any) -> None:
        if node.name in sites:
            sums[node.name] = sums[node.name] + channel_sum(value, channel_axis(node))

    with torch.inference_mode():
        for part in chunks(images, CHUNK):
            replay(network.graph, network.tensors, network.feed(part), visit=note)
    return {site: total / count_images(images) for site, total in sums.items()}


def channel_axis(node: fx.Node) -> int:
    """Axis of the output channels: the last of a linear layer, the second of a convolution."""
    return -1 if node.target == torch.ops.aten.linear.default else 1


def channel_sum(value: Tensor, axis: int) -> Tensor:
    """Sum over images of the mean over positions, float64 [channels]."""
    moved = value.double().movedim(axis, -1)
    return moved.reshape(len(value), -1, moved.shape[-1]).mean(1).sum(0)

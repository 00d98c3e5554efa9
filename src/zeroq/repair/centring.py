"""Channels that nothing rectifies, each moved to lie around zero."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, fx

from zeroq.graph import Inputs, chunks, count_images, replay
from zeroq.graph.network import Network
from zeroq.graph.walk import CHUNK
from zeroq.repair.shifts import shiftable, shifted


def middles(network: Network, images: Inputs, chunk: int = CHUNK) -> dict[str, Tensor]:
    """Of each channel of what `centre` can move: the middle between its least and its greatest value in an image.

    By the site of the layer that gives the value; float64 [channels], mean over the images.  chunk: images at a time.
    """
    operators = {link.first.sites[0]: link.first.operator for link in shiftable(network)}
    if not operators:
        return {}
    sums: dict[str, Tensor] = {}

    def note(node: fx.Node, value: Tensor) -> None:
        if node.name in operators:
            last = operators[node.name] == "linear"
            channels = (value if last else value.movedim(1, -1)).unsqueeze(1).flatten(1, -2)  # [N, positions, channels]
            middle = (channels.amin(1) + channels.amax(1)).double().sum(0).cpu() / 2
            sums[node.name] = sums.get(node.name, 0) + middle

    with torch.inference_mode():
        for part in chunks(images, chunk):
            replay(network.graph, network.tensors, network.feed(part), visit=note)
    return {name: total / count_images(images) for name, total in sums.items()}


def centre(network: Network, amounts: Mapping[str, Tensor]) -> Network:
    """Take as much as `middles` says off each channel of what a layer gives, and add W2 times it to the bias of the
    layer that reads it.

    Exact, as nothing stands between the two; only where the second does not pad and no third reads the value: as
    behind a depthwise convolution without rectifier, before a pointwise one (ShuffleNet, EtinyNet).
    The one range of a value is then no wider than its widest channel, which without is as wide as what all channels
    together reach. So it has smaller steps: what a zero point for every channel would give, at no cost.
    """
    chosen = [link for link in shiftable(network) if link.first.sites[0] in amounts]
    return shifted(network, [(link, amounts[link.first.sites[0]]) for link in chosen])

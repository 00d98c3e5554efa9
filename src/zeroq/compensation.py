"""How much of a layer's error is left at the output once the layers behind it are rounded to make up for it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import fx

from zeroq.graph import Layer, Network

RATE = 2.0  # an error that all other layers see reaches the output as e^-2 of itself


def left_over(network: Network, layers: Sequence[Layer]) -> dict[str, float]:
    """By layer: exp(-RATE b), b the share of the other layers that see what it gives.

    A sensitivity is measured with one layer disturbed and all others as they were. But every layer is rounded to the
    regression of its outputs in floating point on the inputs that it has (`rounding.targets`), and so takes away a part
    of the errors of those before it: nothing does so behind the classifier, nearly all layers behind the first one.
    The rate is what fits the divergences of whole networks in many settings best (docs/mixed-precision.md).
    """
    seen = seen_by(network, layers)
    others = max(len(layers) - 1, 1)
    return {name: math.exp(-RATE * count / others) for name, count in seen.items()}


def seen_by(network: Network, layers: Sequence[Layer]) -> dict[str, int]:
    """By layer: how many of the others compute with what it gives, at first or at second hand."""
    bit = {site: 1 << index for index, layer in enumerate(layers) for site in layer.sites}
    behind: dict[fx.Node, int] = {}  # sets of layers, as bits
    for node in reversed(network.graph.nodes):
        behind[node] = 0
        for user in node.users:
            behind[node] |= behind[user] | bit.get(user.name, 0)
    by_name = {node.name: layers_behind for node, layers_behind in behind.items()}
    counts = {}
    for layer in layers:
        together = 0
        for site in layer.sites:
            together |= by_name[site]
        counts[layer.name] = (together & ~bit[layer.sites[0]]).bit_count()
    return counts

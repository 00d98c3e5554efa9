"""Weights rounded to nearest, as the paper measures sensitivities."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from zeroq.graph import Layer, Network
from zeroq.rounding import round_weight


def rounded_to_nearest(network: Network, widths: Sequence[int]) -> Callable[[Layer, int], Tensor]:
    """Looks up a layer's weight at a width, in floating point; all are rounded beforehand."""
    weights = {
        (layer.name, width): round_weight(
            network.tensors[layer.weight], width, None, groups=layer.groups, method="nearest"
        ).dequantized()
        for layer in network.layers
        for width in widths
    }
    return lambda layer, width: weights[layer.name, width]

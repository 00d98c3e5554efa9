"""Biases so high that a ReLU behind them never cuts, handed on to the next layer."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from zeroq.graph.network import Network
from zeroq.graph.normal import Normal
from zeroq.repair.shifts import shiftable, shifted

aten = torch.ops.aten

DEVIATIONS = 3.0  # a normal number lies further below its mean once in 740 times


def absorb_high_biases(network: Network, normals: Mapping[str, Normal]) -> tuple[Network, dict[str, Normal]]:
    """Take c = max(0, mean - 3 deviations) from a channel's bias and add W2 c to that of the layer that reads it (DFQ,
    arXiv:1906.04721, section 4.1.3): ReLU(x - c) = ReLU(x) - c wherever x >= c, as nearly all of x is.

    The channel's values then begin near 0 and its range is that much smaller. Only through a ReLU (and reshaping), and
    not into a layer that pads. (The paper absorbs there as well, and is wrong at the border.) Both layers need a bias.

    network: folded, perhaps equalized.  normals: of its values, from `normal_values`, or from equalize().
    Gives the network, and the normals of what it has become.
    """
    amounts, moved = [], dict(normals)
    for link in shiftable(network, aten.relu.default):
        site = link.first.sites[0]
        if site in normals:
            normal = normals[site]
            surplus = torch.clamp(normal.mean - DEVIATIONS * normal.deviation, min=0)
            amounts.append((link, surplus))
            moved[site] = Normal(normal.mean - surplus, normal.deviation)
    return shifted(network, amounts), moved

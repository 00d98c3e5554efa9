"""Means of channels that nothing rectifies, handed on to the next layer."""

from __future__ import annotations

from collections.abc import Mapping

from zeroq.graph.network import Network
from zeroq.graph.normal import Normal
from zeroq.repair.shifts import shiftable, shifted


def centre(network: Network, normals: Mapping[str, Normal]) -> tuple[Network, frozenset[str]]:
    """Take the mean of each channel off what a layer gives, and add W2 times it to the bias of the layer that reads it.

    Exact, as nothing stands between the two; where the second does not pad, and where no third reads the value, as of
    a depthwise convolution before a pointwise one (ShuffleNet, EtinyNet) or of the first of two that are factors. All
    channels then lie around zero, and the one range that they have holds them in smaller steps: what a zero point for
    every channel would give, at no cost.

    network: folded.  normals: of its values, from `normal_values`.
    Gives the network, and the sites whose outputs have means of zero now.
    """
    chosen = [link for link in shiftable(network) if link.first.sites[0] in normals]
    amounts = [(link, normals[link.first.sites[0]].mean) for link in chosen]
    return shifted(network, amounts), frozenset(link.first.sites[0] for link in chosen)

"""What BatchNorms say of the values of a folded network: channels as normal distributions."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from zeroq.graph.network import RECTIFIERS, Network, foldable, norm_name


@dataclass(frozen=True)
class Normal:
    """Channels of a value; float64, [channels] or of any shapes that broadcast together."""

    mean: Tensor
    deviation: Tensor


def normal_values(network: Network, doubted: Collection[str] = ()) -> dict[str, Normal]:
    """By the names that values have once the network is folded: channel c has mean beta_c, deviation |gamma_c|.

    network: as captured, with its BatchNorms. A BatchNorm that a layer takes in speaks of the layer's own output, or
    of the limit that the rectifier between the two becomes; one that stays speaks of its output. Two in a row
    are left out.
    doubted: paths of BatchNorms whose running statistics are not to be believed; they are left out.
    """
    folded = {norm.node for norms in foldable(network).values() for norm in norms}
    rectified = {
        norm.node: {norm.node, *(user.name for user in network.node(norm.node).users if user.target in RECTIFIERS)}
        for norm in network.norms
    }
    read_by_norms = {norm.input for norm in network.norms}
    made_by_norms = {name for node in folded for name in rectified[node]}
    found = {}
    for norm in network.norms:
        again = read_by_norms & rectified[norm.node] or norm.input in made_by_norms
        if not again and norm_name(network, norm) not in doubted:
            name = norm.input if norm.node in folded else norm.node
            found[name] = normal_of(network, network.node(norm.node), len(norm.mean))
    return found


def normal_of(network: Network, norm: fx.Node, channels: int) -> Normal:
    """Shift and gain of a BatchNorm; 0 and 1 where it has none."""
    gain, shift = norm.args[1:3]
    mean = network.tensors[str(shift.target)] if isinstance(shift, fx.Node) else torch.zeros(channels)
    deviation = network.tensors[str(gain.target)] if isinstance(gain, fx.Node) else torch.ones(channels)
    return Normal(mean.detach().double(), deviation.detach().double().abs())

"""Quantizers that nobody needs once some layers compute in floating point."""

from __future__ import annotations

from collections.abc import Iterable

from zeroq.graph.network import Network
from zeroq.simulate.outputs import without
from zeroq.simulate.placement import Placement, place


def without_idle(network: Network, placement: Placement, float_layers: Iterable[str]) -> Placement:
    """The placement without quantizers whose values no integer kernel makes or takes, those layers being none.

    float_layers: all that compute in floating point. Quantizers that stay are the same as before, and so are their
    ranges; one that is needed for some of its values stays for all.
    """
    needed = set(place(network, float_layers).of_value)
    return without(placement, [each for each in placement.quantizers if needed.isdisjoint(each.values)])

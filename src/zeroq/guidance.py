"""What is said of images and ranges in a network that has no BatchNorm, or parts without."""

from __future__ import annotations

from zeroq.distillation import find_attention, guide_of
from zeroq.graph import Network
from zeroq.ranges import knowledge_of, site_of
from zeroq.simulate import Placement

MOST_NAMED = 12  # layers in one warning


def guidance(network: Network, *, optimised: bool = True) -> list[str]:
    """What images are made for, where that is not the BatchNorms' statistics alone; not optimised: they stay noise."""
    attention = len(find_attention(network))
    products = f"{attention} product{'s' if attention > 1 else ''} with a softmax"
    yours = "--calibration FOLDER takes your own pictures."
    if guide_of(network) == "nothing" or (guide_of(network) == "attention" and not optimised):
        return [
            "The network has no BatchNorm whose statistics images could match: ranges come from noise of natural "
            f"spectrum and from the norms of the weights; {yours}"
        ]
    if guide_of(network) == "attention":
        return [
            "The network has no BatchNorm whose statistics images could match: half of the images are made for what "
            f"its attention ({products}) tells apart, half stay noise of natural spectrum; {yours}"
        ]
    if attention and optimised:
        return [
            f"The network has BatchNorms and attention ({products}): images match the BatchNorms' statistics alone."
        ]
    return []


def unguided(network: Network) -> list[str]:
    """What is said of inputs, other than one picture, that no BatchNorm guides."""
    if network.norms:
        return []
    return [
        "The network has no BatchNorm whose statistics its inputs could match: they stay noise, which ranges come from."
    ]


def unknown_outputs(network: Network, folded: Network, placement: Placement) -> list[str]:
    """Quantized outputs of layers that no BatchNorm reads, in a network that has BatchNorms."""
    bare = knowledge_of(network).bare if network.norms else frozenset()
    nodes = {node.name: node for node in folded.graph.nodes}
    sites = {site_of(nodes[value]) for quantizer in placement.quantizers for value in quantizer.measured} & bare
    names = [layer.name for layer in folded.layers if sites.intersection(layer.sites)]
    if not names:
        return []
    more = [f"{len(names) - MOST_NAMED} more"] if len(names) > MOST_NAMED else []
    listed = ", ".join([*names[:MOST_NAMED], *more])
    return [
        f"No BatchNorm knows the outputs of {len(names)} of the quantized layers ({listed}): their ranges come from "
        "images that match the BatchNorms around them, and reach at least what the norms of their weights ask for."
    ]

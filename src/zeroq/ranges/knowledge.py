"""What a network's BatchNorms say of its layers' outputs, and of which outputs they say nothing."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, fx

from zeroq.graph import Network
from zeroq.graph.network import LIMIT, RECTIFIERS, foldable
from zeroq.graph.normal import Normal, normal_values

Span = tuple[float, float]

# Of a channel around its mean. 48 real pictures never went beyond 10 in ResNet18 (64 px), nor beyond 12 in ResNet20;
# distilled images went beyond 12 in 3 of ResNet18's 20 BatchNorms. Divergence at 8 and 4 bits (activations alone, even
# places of the test images) without a bound, and with 8, 10, 12 deviations: ResNet18 0.00029, 0.00024, 0.00027, 0.00029
# and 0.0167, 0.0158, 0.0164, 0.0157; ShuffleNet 0.0026, 0.0026, 0.0026, 0.0025 and 0.104, 0.107, 0.112, 0.102.
DEVIATIONS = 12.0


@dataclass(frozen=True)
class Knowledge:
    """By the name of a layer's site: the span that a BatchNorm holds its output in; sites that no BatchNorm knows."""

    spans: Mapping[str, Span] = field(default_factory=dict)
    bare: frozenset[str] = frozenset()

    def span(self, values: Iterable[fx.Node]) -> Span | None:
        """Of several values together, each a site's or rectified from it; None unless each is held."""
        found = [self.spans.get(name) if (name := site_of(node)) else None for node in values]
        held = [span for span in found if span is not None]
        if not held or len(held) < len(found):
            return None
        return min(low for low, _ in held), max(high for _, high in held)


def knowledge_of(
    network: Network,
    doubted: Collection[str] = (),
    centres: Mapping[str, Tensor] = MappingProxyType({}),
    factors: Mapping[str, Tensor] = MappingProxyType({}),
) -> Knowledge:
    """What the BatchNorms of a network, not folded, say of the outputs that it has when they are folded.

    A BatchNorm that a layer takes in gives channel c of its output the mean beta_c and the deviation |gamma_c|, so
    that it stays within beta_c +- DEVIATIONS |gamma_c|; the span is that of all channels.
    doubted: paths of BatchNorms whose running statistics are not to be believed; they hold nothing.
    centres, factors: by site, what its output in the folded network is less, and multiplied by then, [channels].
    """
    known = {name for norm in network.norms for name in (norm.input, norm.site)}
    normals = normal_values(network, doubted)
    spans = {}
    for norm in (norm for norms in foldable(network).values() for norm in norms):
        if norm.input == norm.site and norm.input in normals:
            normal, factor = normals[norm.input], factors.get(norm.input, torch.ones(()))
            mean = normal.mean - centres.get(norm.input, torch.zeros(()))
            span = span_of(replace(normal, mean=mean * factor, deviation=normal.deviation * factor))
            if span is not None:
                spans[norm.input] = span
    bare = {site for layer in network.layers for site in layer.sites} - known
    return Knowledge(spans, frozenset(bare))


def span_of(normal: Normal) -> Span | None:
    """Between what numbers the channels lie; None where these are no numbers."""
    side = DEVIATIONS * normal.deviation
    ends = torch.stack([(normal.mean - side).amin(), (normal.mean + side).amax()])
    return (float(ends[0]), float(ends[1])) if bool(torch.isfinite(ends).all()) and ends[0] < ends[1] else None


def site_of(node: fx.Node) -> str:
    """The value that a rectifier or a limit of channels reads, or else the value itself."""
    source: Any = node.args[0] if node.target in RECTIFIERS or node.target == LIMIT else node
    return str(source.name)

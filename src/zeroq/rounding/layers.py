"""All layers of a network rounded in order, each on what the layers before it give."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx

from zeroq.graph import Layer, replay
from zeroq.numbers.operators import QUANTIZE_DEQUANTIZE
from zeroq.numbers.values import IntegerWeight
from zeroq.rounding.methods import round_weight
from zeroq.rounding.statistics import HessianSum
from zeroq.simulate.quantized_network import least_scales

CHUNK = 8  # images whose values are computed at a time

Rounded = dict[str, dict[int, IntegerWeight]]  # by layer and width


def round_layers(
    graph: fx.Graph,
    tensors: Mapping[str, Tensor],
    layers: tuple[Layer, ...],
    widths: Mapping[str, tuple[int, ...]],
    images: Tensor,
    *,
    method: str = "gptq",
    portable: bool = True,
    settle: bool = True,
    on_step: Callable[[int, int], None] | None = None,
) -> Rounded:
    """Round every layer that `widths` names, at each of its widths.

    graph, tensors: the network with its activation quantizers.  images: [N, C, H, W], for the second moments of inputs.
    settle: each layer runs with its first width's integers once it is rounded, so that later layers see the inputs
    that they will have (GPTQ, arXiv:2210.17323); otherwise all inputs are those of unrounded weights.
    """
    walk = Walk(graph, dict(tensors), [{placeholder(graph): chunk} for chunk in images.split(CHUNK)])
    rounded: Rounded = {}
    ordered = sorted((layer for layer in layers if layer.name in widths), key=lambda layer: walk.position[layer.sites[0]])
    for index, layer in enumerate(ordered):
        hessian = None if method == "nearest" else walk.hessian(layer)
        bias = walk.tensors[layer.bias] if layer.bias else None
        least = torch.stack([least_scales(bias, walk.input_scale(site), layer.shape[0]) for site in layer.sites]).amax(0)
        rounded[layer.name] = {
            bits: round_weight(
                walk.tensors[layer.weight], bits, hessian, groups=layer.groups, method=method, portable=portable,
                least_scale=least, name=layer.name,
            )
            for bits in widths[layer.name]
        }  # fmt: skip
        if settle:
            walk.tensors[layer.weight] = rounded[layer.name][widths[layer.name][0]].dequantized()
        if on_step is not None:
            on_step(index + 1, len(ordered))
    return rounded


@dataclass
class Walk:
    """A walk through the graph that stops in front of each layer, for several chunks of images at once."""

    graph: fx.Graph
    tensors: dict[str, Tensor]
    live: list[dict[str, Any]]  # values still needed, of each chunk
    last: str | None = None  # the node up to which they are computed
    position: dict[str, int] = field(init=False)
    nodes: dict[str, fx.Node] = field(init=False)

    def __post_init__(self) -> None:
        self.nodes = {node.name: node for node in self.graph.nodes}
        self.position = {name: index for index, name in enumerate(self.nodes)}

    def source(self, site: str) -> str:
        """The node whose value a site reads."""
        return self.nodes[site].args[0].name  # type: ignore[union-attr]

    def input_scale(self, site: str) -> float:
        """Scale of the quantizer in front of a site."""
        quantizer = self.nodes[self.source(site)]
        assert quantizer.target == QUANTIZE_DEQUANTIZE, f"{site} reads a value that is not quantized"
        return self.tensors[str(quantizer.args[1].target)].item()  # type: ignore[union-attr]

    def hessian(self, layer: Layer) -> Tensor:
        """Second moments of a layer's inputs over all images; walks up to its first site, and looks ahead to others."""
        total = HessianSum(layer)
        first = self.further(self.source(layer.sites[0]))
        for index, live in enumerate(self.live):
            with torch.inference_mode():
                live = replay(self.graph, self.tensors, live, after=self.last, until=first, batch=self.count(live))
                self.live[index] = live
                here = first
                for site in layer.sites:
                    goal = self.later(here, self.source(site))
                    live = replay(self.graph, self.tensors, live, after=here, until=goal, batch=self.count(live))
                    here = goal
                    total.add(self.nodes[site], live[self.source(site)])
        self.last = first
        return total.hessian()

    def further(self, name: str) -> str:
        """The later of a node and the one that the walk has reached."""
        return name if self.last is None else self.later(self.last, name)

    def later(self, one: str, other: str) -> str:
        return max(one, other, key=self.position.__getitem__)

    @staticmethod
    def count(live: Mapping[str, Any]) -> int:
        """Number of images of a chunk."""
        return next(len(value) for value in live.values() if isinstance(value, Tensor))


def placeholder(graph: fx.Graph) -> str:
    """Name of the network's input."""
    return next(node.name for node in graph.nodes if node.op == "placeholder")

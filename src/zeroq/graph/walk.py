"""A walk through a graph with many images, in chunks, that stops where one asks it to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx

from zeroq.graph.inputs import Inputs, chunks
from zeroq.graph.live import IN_MEMORY, LiveValues, Room
from zeroq.graph.replay import replay

CHUNK = IN_MEMORY.chunk  # images whose values are computed at a time


@dataclass
class Walk:
    """Values of every chunk of images, up to one node; tensors may be changed on the way, for what comes behind."""

    graph: fx.Graph
    tensors: dict[str, Tensor]
    live: LiveValues  # values still needed, of each chunk
    counts: list[int]  # images of each chunk
    last: str | None = None  # the node up to which they are computed
    nodes: dict[str, fx.Node] = field(init=False)
    position: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        self.nodes = {node.name: node for node in self.graph.nodes}
        self.position = {name: index for index, name in enumerate(self.nodes)}

    @classmethod
    def over(cls, graph: fx.Graph, tensors: Mapping[str, Tensor], images: Inputs, room: Room = IN_MEMORY) -> Walk:
        """In front of the first node, with images [N, ...] for the graph's input, or one such tensor for each."""
        names = [node.name for node in graph.nodes if node.op == "placeholder"]
        parts = chunks(images, room.chunk)
        live = LiveValues((dict(zip(names, part, strict=True)) for part in parts), room)
        return cls(graph, dict(tensors), live, [len(part[0]) for part in parts])

    def source(self, site: str) -> str:
        """The node whose value a layer's site reads."""
        read: Any = self.nodes[site].args[0]
        return str(read.name)

    def to(self, name: str) -> None:
        """Compute up to a node; nothing is done if the walk is already behind it."""
        goal = name if self.last is None else self.later(self.last, name)
        if goal == self.last:
            return
        with torch.inference_mode():
            for index, count in enumerate(self.counts):
                self.live[index] = replay(
                    self.graph, self.tensors, self.live[index], after=self.last, until=goal, batch=count
                )
        self.last = goal

    def ahead(self, index: int, sites: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
        """What each of a layer's sites reads, of the chunk at an index; the walk itself stays where it is."""
        here, values, count = self.last, dict(self.live[index]), self.counts[index]
        for site in sites:
            source = self.source(site)
            goal = source if here is None else self.later(here, source)
            with torch.inference_mode():
                values = replay(self.graph, self.tensors, values, after=here, until=goal, batch=count)
            yield site, values[source]
            here = goal

    def later(self, one: str, other: str) -> str:
        """The one of two nodes that runs later."""
        return max(one, other, key=self.position.__getitem__)

"""What one block is to be learned for: what it is given, what it gives in floating point, how far it is from that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from zeroq.graph import replay
from zeroq.graph.blocks import Block
from zeroq.graph.live import LiveValues
from zeroq.graph.walk import Walk
from zeroq.rounding.dropping import Dropping
from zeroq.simulate.quantized_network import value_of

OUTPUT = "output"


@dataclass(frozen=True)
class Task:
    """Of one block, for images of which the first `fitting` are fitted to and the others held out."""

    block: Block
    given: LiveValues  # behind the block's start, in the quantized network
    exact: LiveValues | None  # the same in floating point; None at the network's inputs
    wanted: LiveValues  # behind the block's end, in floating point
    variances: tuple[float, ...]  # of each tensor that the block gives
    fitting: int
    images: int

    def inputs(self, images: Sequence[int]) -> dict[str, Tensor]:
        """What the block is given, of some images in ascending order."""
        return {name: picked(self.given, name, images)[0] for name in self.given[0]}

    def mixed(self, images: Sequence[int], dropping: Dropping) -> dict[str, Tensor]:
        """The same with some of the values as they are in floating point."""
        inputs = self.inputs(images)
        start = self.block.start
        if self.exact is None or start is None or (kept := dropping.kept(inputs[start])) is None:
            return inputs
        (exact,) = picked(self.exact, value_of(start), images)
        return {start: torch.lerp(exact, inputs[start], kept)}

    def loss(
        self, graph: fx.Graph, tensors: Mapping[str, Tensor], inputs: Mapping[str, Tensor], images: Sequence[int]
    ) -> Tensor:
        """Squared error of what the block gives over its variance, mean over the tensors that it gives."""
        end = self.block.end or OUTPUT
        given = replay(graph, tensors, inputs, after=self.block.start, until=end, batch=len(images))[end]
        name = OUTPUT if self.block.end is None else value_of(self.block.end)
        wanted = numbers_in(picked(self.wanted, name, images))
        rows = zip(numbers_in(given), wanted, self.variances, strict=True)
        return torch.stack([(found - exact).square().mean() / variance for found, exact, variance in rows]).mean()

    def error(self, graph: fx.Graph, tensors: Mapping[str, Tensor]) -> float:
        """The same over all images that are held out."""
        total = 0.0
        with torch.no_grad():
            for first in range(self.fitting, self.images, self.given.room.chunk):
                part = range(first, min(first + self.given.room.chunk, self.images))
                total += float(self.loss(graph, tensors, self.inputs(part), part)) * len(part)
        return total / (self.images - self.fitting)


def task_of(block: Block, quantized: Walk, floating: Walk, fitting: int) -> Task:
    """What a block is to be learned for; both walks are at its start, and the one in floating point goes to its end."""
    exact = None
    if block.start is not None:
        name = value_of(block.start)
        exact = LiveValues(({name: live[name]} for live in floating.live), floating.live.room)
    end = OUTPUT if block.end is None else value_of(block.end)
    floating.to(end)
    variances = variances_of(floating.live, end)
    return Task(block, quantized.live, exact, floating.live, variances, fitting, sum(quantized.counts))


def variances_of(live: LiveValues, name: str) -> tuple[float, ...]:
    """Variance of each tensor of numbers in a value over all images; 1 of one that never changes."""
    sums: list[list[float]] = []
    for values in live:
        leaves = [leaf.double() for leaf in numbers_in(values[name])]
        more = [[leaf.numel(), float(leaf.sum()), float(leaf.square().sum())] for leaf in leaves]
        zeros = [[0.0, 0.0, 0.0] for _ in more]
        sums = [[sum(pair) for pair in zip(*each, strict=True)] for each in zip(sums or zeros, more, strict=True)]
    return tuple(squares / count - (total / count) ** 2 or 1.0 for count, total, squares in sums)


def picked(live: LiveValues, name: str, images: Sequence[int]) -> list[Tensor]:
    """Some images of each tensor in a value, in ascending order."""
    places: dict[int, list[int]] = {}
    for image in images:
        places.setdefault(image // live.room.chunk, []).append(image % live.room.chunk)
    parts = [[leaf[rows] for leaf in tensors_in(live[index][name])] for index, rows in places.items()]
    return [torch.cat(each) for each in zip(*parts, strict=True)]


def tensors_in(value: Any) -> list[Tensor]:
    """All tensors in a value."""
    return [leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, Tensor)]


def numbers_in(value: Any) -> list[Tensor]:
    """The tensors of floating-point numbers in a value."""
    return [leaf for leaf in tensors_in(value) if leaf.is_floating_point()]

"""Linear maps of what blocks are given, fitted to what they miss (QwT, arXiv:2411.13918)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from zeroq.candidates import HELD_OUT
from zeroq.graph import Network, replay
from zeroq.rounding.reconstruction import blocks_between
from zeroq.simulate import QuantizedNetwork
from zeroq.simulate.quantized_network import value_of

RIDGE = 1e-3  # of the mean square of what a map is given


@dataclass(frozen=True)
class Map:
    """What is added in front of the quantizer of a value: matrix [out, in] times another value, and offset [out]."""

    start: str  # the node that it reads
    end: str  # the node to whose value it is added
    matrix: Tensor
    offset: Tensor

    def of(self, source: Tensor, like: Tensor) -> Tensor:
        """Its values in the shape of what it is added to."""
        return shaped(features(source, like) @ self.matrix.T + self.offset, like)


def features(source: Tensor, like: Tensor) -> Tensor:
    """[N, C, H, W] or [N, T, C] as rows [..., C], one for each position of `like`."""
    if source.dim() != 4:
        return source
    steps = [have // wanted for have, wanted in zip(source.shape[2:], like.shape[2:], strict=True)]
    return source[:, :, :: steps[0], :: steps[1]].movedim(1, -1)


def shaped(rows: Tensor, like: Tensor) -> Tensor:
    """Rows in the order of a value."""
    return rows.movedim(-1, 1) if like.dim() == 4 else rows


def fitting(source: Tensor, like: Tensor) -> bool:
    """Whether positions of two values answer to each other."""
    if source.dim() != like.dim() or source.dim() not in (3, 4):
        return False
    if source.dim() == 3:
        return source.shape[1] == like.shape[1]
    return all(have % wanted == 0 for have, wanted in zip(source.shape[2:], like.shape[2:], strict=True))


def run_with(network: QuantizedNetwork, maps: Mapping[str, Map], *inputs: Tensor) -> Any:
    """The network's output with maps, by the node that they are added to.

    By the graph that is exported, whose values in front of quantizers are there, unlike in that of integer sums.
    """
    names = [node.name for node in network.graph.nodes if node.op == "placeholder"]
    live = dict(zip(names, inputs, strict=True))
    return replay(network.graph, network.tensors(), live, visit=adding(maps))["output"]


def adding(maps: Mapping[str, Map]) -> Callable[[fx.Node, Any], Any]:
    """What `replay` is to do at each node."""
    starts = {each.start for each in maps.values()}
    kept: dict[str, Tensor] = {}

    def visit(node: fx.Node, value: Any) -> Any:
        if node.name in starts:
            kept[node.name] = value
        if node.name in maps:
            return value + maps[node.name].of(kept[maps[node.name].start], value)
        return None

    return visit


def repaired(network: QuantizedNetwork, folded: Network, parts: list[tuple[Tensor, ...]]) -> tuple[list[Map], int]:
    """Maps that are kept, each fitted behind those before it, and how many were tried; parts: images in chunks."""
    nodes = {node.name: node for node in network.graph.nodes}
    maps: dict[str, Map] = {}
    tried = 0
    for block in blocks_between(folded, network.graph, folded.layers):
        if block.start is None or block.end is None:
            continue
        end = nodes[block.end].all_input_nodes[0].name
        rows = [of_block(network, folded, maps, block.start, end, block.end, part) for part in parts]
        if not all(fitting(source, value) for source, value, _ in rows):
            continue
        tried += 1
        count = len(rows) - max(1, len(rows) // HELD_OUT)
        found = fitted(block.start, end, rows[:count])
        before, after = (missed(each, rows[count:]) for each in (None, found))
        if after < before:
            maps[end] = found
    return list(maps.values()), tried


def of_block(
    network: QuantizedNetwork, folded: Network, maps: Mapping[str, Map], start: str, end: str, quantized: str,
    images: tuple[Tensor, ...],
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """What a block is given, what it gives in front of its quantizer, and what the latter misses behind it."""
    seen: dict[str, Tensor] = {}
    add = adding(maps)

    def note(node: fx.Node, value: Any) -> Any:
        changed = add(node, value)
        if node.name in (start, end, quantized):
            seen[node.name] = value if changed is None else changed
        return changed

    names = [node.name for node in network.graph.nodes if node.op == "placeholder"]
    live = dict(zip(names, images, strict=True))
    replay(network.graph, network.tensors(), live, visit=note, until=quantized)
    wanted: dict[str, Tensor] = {}
    name = value_of(quantized)

    def note_own(node: fx.Node, value: Any) -> None:
        if node.name == name:
            wanted[name] = value

    replay(folded.graph, folded.tensors, folded.feed(images), visit=note_own, until=name)
    return seen[start], seen[end], wanted[name] - seen[quantized]


def fitted(start: str, end: str, rows: list[tuple[Tensor, Tensor, Tensor]]) -> Map:
    """The map of least squares, with a small ridge."""
    given = torch.cat([with_one(features(source, value)) for source, value, _ in rows]).double()
    wanted = torch.cat([as_rows(missing) for _, _, missing in rows]).double()
    moments = given.T @ given
    ridge = RIDGE * moments.diag()[:-1].mean() * torch.eye(len(moments), dtype=torch.float64)
    ridge[-1, -1] = 0
    solution = torch.linalg.solve(moments + ridge, given.T @ wanted).float()
    return Map(start, end, solution[:-1].T.contiguous(), solution[-1])


def with_one(rows: Tensor) -> Tensor:
    """[positions, C + 1], the last of them 1."""
    flat = rows.flatten(0, -2)
    return torch.cat([flat, torch.ones(len(flat), 1)], 1)


def as_rows(value: Tensor) -> Tensor:
    """[positions, C]."""
    return (value.movedim(1, -1) if value.dim() == 4 else value).flatten(0, -2)


def missed(own: Map | None, rows: list[tuple[Tensor, Tensor, Tensor]]) -> float:
    """Squared error of what a block gives, with its map or without."""
    return sum(
        float((missing - (0 if own is None else own.of(source, value))).square().sum())
        for source, value, missing in rows
    )

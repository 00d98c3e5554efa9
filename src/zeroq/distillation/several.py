"""Inputs of a network that takes more, or others, than one picture: distilled one after another, the others at rest."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from zeroq.distillation.doubts import Trust, examine
from zeroq.distillation.images import BATCH_BYTES, batch_size, can_match, prepare
from zeroq.distillation.measuring import measuring_graph
from zeroq.distillation.share import Share
from zeroq.distillation.starts import starts
from zeroq.distillation.statistics import InputStatistic
from zeroq.distillation.steps import optimise
from zeroq.graph import Network
from zeroq.precision import Precision
from zeroq.ranks import ALONE, Ranks

ROUNDS = 2  # each input is taken up so many times, with its share of the steps


def distill_several(
    network: Network,
    statistics: Sequence[InputStatistic],
    *,
    count: int,
    iterations: int,
    seed: int,
    precision: Precision,
    trust: Trust | None = None,
    batch_bytes: float = BATCH_BYTES,
    ranks: Ranks = ALONE,
    on_step: Callable[[int, int], None] | None = None,
) -> tuple[Tensor, ...]:
    """One tensor [count, ...] for each input; those that reach a BatchNorm match its statistics.

    The steps go from input to input: each moves one, with what the others are by then. An input that reaches none
    stays noise of its own statistic; integers are drawn from the example's, which alone says what is allowed.
    ranks: processes that have a part of each batch; every one of them gives all inputs.
    """
    inputs = list(starts(network.example, statistics, count, seed))
    moved = movable(network) if can_match(network) else []
    if not moved:
        return tuple(inputs)
    trust = trust or examine(network, statistics)
    size = batch_size(network, count, precision, batch_bytes)
    batches = [list(batch) for batch in zip(*(value.split(size) for value in inputs), strict=True)]
    turns = [(index, share) for share in shares(iterations) for index in moved]
    steps, total = itertools.count(1), sum(share for _, share in turns) * len(batches)
    report = (lambda: None) if on_step is None else (lambda: on_step(next(steps), total))
    for batch in batches:
        share = Share.of(len(batch[0]), ranks)
        matchings = {index: prepare(network, statistics[index], precision, trust, index, share) for index in moved}
        for index, count in turns:
            others = {name: share.own(value) for name, value in zip(network.inputs, batch, strict=True)}
            del others[network.inputs[index]]
            matching = dataclasses.replace(matchings[index], others=others)
            batch[index] = optimise(batch[index], matching, count, report, share).detach()
    return tuple(torch.cat(parts) for parts in zip(*batches, strict=True))


def shares(iterations: int) -> list[int]:
    """The steps of each round."""
    return [len(range(first, iterations, ROUNDS)) for first in range(min(ROUNDS, iterations))]


def movable(network: Network) -> list[int]:
    """Inputs of floating point and two or more axes that a BatchNorm's input depends on."""
    graph = measuring_graph(network)
    used = [bool(node.users) for node in graph.nodes if node.op == "placeholder"]
    return [
        index
        for index, (value, reached) in enumerate(zip(network.example, used, strict=True))
        if reached and value.is_floating_point() and value.dim() > 1
    ]

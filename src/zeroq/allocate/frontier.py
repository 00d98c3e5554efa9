"""The exact Pareto frontier of total size and total cost over all combinations of one option per layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zeroq.errors import NumericalError

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]
Settings = NDArray[np.int16]  # [settings, layers], the option of each layer

MOST = 2**63 - 1  # that a sum of sizes may be


@dataclass(frozen=True, eq=False)
class Step:
    """What one layer added: for each undominated point so far, the point before it and the option taken."""

    parents: NDArray[np.int32]  # [points after this layer], index into the points before it
    options: NDArray[np.int16]  # [points after this layer]


@dataclass(frozen=True, eq=False)
class Frontier:
    """Every undominated point: sizes rise strictly, costs fall strictly; both [points]."""

    sizes: Integers
    costs: Floats
    steps: tuple[Step, ...]
    option_sizes: tuple[tuple[int, ...], ...]  # [layers][options], as they were given
    option_costs: tuple[tuple[float, ...], ...]

    def setting(self, index: int) -> tuple[int, ...]:
        """The option of each layer that makes the point `index`."""
        return tuple(self.settings([index])[0].tolist())

    def settings(self, indices: Sequence[int] | Integers) -> Settings:
        """The options that make each of the points `indices`: [indices, layers]."""
        at: NDArray[Any] = np.asarray(indices, dtype=np.int64) % len(self.sizes)
        found = np.empty((len(at), len(self.steps)), dtype=np.int16)
        for layer in reversed(range(len(self.steps))):
            step = self.steps[layer]
            found[:, layer] = step.options[at]
            at = step.parents[at]
        return found

    def size_of(self, setting: Sequence[int]) -> int:
        """Total size of any setting, whether on the frontier or not."""
        return sum(sizes[option] for sizes, option in zip(self.option_sizes, setting, strict=True))

    def cost_of(self, setting: Sequence[int]) -> float:
        """Total cost of any setting, added in the order of the layers as the frontier adds it."""
        return float(sum(costs[option] for costs, option in zip(self.option_costs, setting, strict=True)))


def pareto_frontier(sizes: Sequence[Sequence[int]], costs: Sequence[Sequence[float]]) -> Frontier:
    """Minimise the sum of costs for every sum of sizes: sizes and costs are [layers][options].

    Exact dynamic programming without bins: layer by layer, every undominated (size, cost) pair is joined with every
    option, and only undominated pairs are kept. Adding a number never reverses the order of two rounded sums, so
    this is exact for floating point costs added from the first layer to the last. Of equal pairs the one with the
    lower option in the latest layer stays. Costs may be negative or equal; NaN and infinity raise NumericalError.
    Sizes are whole numbers; others raise ValueError, as do tables of unlike lengths.

    The number of points is at most the number of different sums of sizes; 156 layers with three widths have some
    6,400 (0.05 s).
    """
    table = _checked(sizes, costs)
    total_sizes, total_costs = np.zeros(1, dtype=np.int64), np.zeros(1)
    steps = []
    for layer_sizes, layer_costs in table:
        options = _undominated_options(layer_sizes, layer_costs)
        joined_sizes = (layer_sizes[options, None] + total_sizes).ravel()  # one sorted run per option
        joined_costs = (total_costs + layer_costs[options, None]).ravel()
        kept = _undominated(joined_sizes, joined_costs)
        parents = (kept % len(total_sizes)).astype(np.int32)
        steps.append(Step(parents, options[kept // len(total_sizes)].astype(np.int16)))
        total_sizes, total_costs = joined_sizes[kept], joined_costs[kept]
    return Frontier(
        total_sizes,
        total_costs,
        tuple(steps),
        tuple(tuple(layer_sizes.tolist()) for layer_sizes, _ in table),
        tuple(tuple(layer_costs.tolist()) for _, layer_costs in table),
    )


def _undominated(sizes: Integers, costs: Floats) -> Integers:
    """Indices of the undominated pairs, by size; of equal pairs the first. Sorted runs make the sort a merge."""
    order = np.argsort(sizes, kind="stable")
    sizes, costs = sizes[order], costs[order]
    least_before = np.concatenate(([np.inf], np.minimum.accumulate(costs)[:-1]))
    cheaper = np.flatnonzero(costs < least_before)
    last_of_size = np.append(np.diff(sizes[cheaper]) > 0, True)  # a cheaper pair of the same size comes later
    found: Integers = order[cheaper[last_of_size]]
    return found


def _undominated_options(sizes: Integers, costs: Floats) -> Integers:
    """The options of one layer that can be part of a frontier point, ascending."""
    return np.sort(_undominated(sizes, costs))


def _checked(sizes: Sequence[Sequence[int]], costs: Sequence[Sequence[float]]) -> list[tuple[Integers, Floats]]:
    """Both tables as arrays, of which no sum overflows."""
    if len(sizes) != len(costs):
        raise ValueError(f"sizes of {len(sizes)} layers, but costs of {len(costs)}")
    table = []
    for layer, (layer_sizes, layer_costs) in enumerate(zip(sizes, costs, strict=True)):
        if not len(layer_sizes) or len(layer_sizes) != len(layer_costs):
            raise ValueError(f"layer {layer} has {len(layer_sizes)} sizes and {len(layer_costs)} costs")
        whole, numbers = np.asarray(layer_sizes), np.asarray(layer_costs, dtype=np.float64)
        if whole.dtype.kind not in "iu":
            raise ValueError(f"layer {layer} has sizes {list(layer_sizes)}: count them in whole numbers, such as bits")
        if not np.isfinite(numbers).all():
            raise NumericalError(f"A cost of layer {layer} is not a number or infinite: {list(layer_costs)}.")
        table.append((whole.astype(np.int64), numbers))
    if sum(max(map(abs, layer_sizes.tolist())) for layer_sizes, _ in table) > MOST:
        raise ValueError("sizes add up to more than 63 bits hold: count them in a larger unit")
    if not math.isfinite(sum(float(np.abs(layer_costs).max()) for _, layer_costs in table)):
        raise NumericalError("Costs add up to more than a 64-bit float holds: divide all of them by one number.")
    return table

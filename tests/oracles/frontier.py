"""The frontier by trying every combination."""

from __future__ import annotations

import itertools
from collections.abc import Sequence


def all_points(sizes: Sequence[Sequence[int]], costs: Sequence[Sequence[float]]) -> list[tuple[int, float]]:
    """(size, cost) of every combination of one option per layer."""
    points = []
    for setting in itertools.product(*(range(len(options)) for options in sizes)):
        size, cost = 0, 0.0
        for layer, option in enumerate(setting):
            size, cost = size + sizes[layer][option], cost + costs[layer][option]
        points.append((size, cost))
    return points


def brute_force_frontier(sizes: Sequence[Sequence[int]], costs: Sequence[Sequence[float]]) -> list[tuple[int, float]]:
    """The points that no other point equals or beats in both size and cost, by size."""
    points = set(all_points(sizes, costs))
    return sorted(
        point
        for point in points
        if not any(other != point and other[0] <= point[0] and other[1] <= point[1] for other in points)
    )

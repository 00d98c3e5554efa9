"""Two sums within their limits at once: exact in one of them, the other's price found by a Lagrange multiplier."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from zeroq.allocate.frontier import Floats, Frontier, Integers, Settings, pareto_frontier

Table = Sequence[Sequence[int]]  # [layers][options]
MOST_PRICES = 60  # tried; ResNets need some ten
MOST_EXCHANGES = 100
KEPT = 500  # settings of each frontier, at most


@dataclass(frozen=True, eq=False)
class Compromise:
    """Settings within both limits, the best first, and what the costs of none can be below."""

    settings: Settings  # [settings, layers]
    lower_bound: float
    multiplier: float  # cost that one unit of the other sum is worth where the bound was found


def least_beside(sizes: Table, others: Table, limit: int) -> int:
    """The least sum of `others` among settings whose sizes are together at most `limit`, which some setting keeps."""
    return int(cheapest_beside(sizes, others, limit)[1])


def compromise(
    sizes: Table, others: Table, costs: Sequence[Sequence[float]], limit: int, other_limit: int
) -> Compromise:
    """Minimise the sum of costs where sizes sum to at most `limit` and others to at most `other_limit`.

    For a price m >= 0 of the other sum, L(m) = min {cost + m (other - other_limit) : size <= limit} is exact by the
    frontier of size and cost + m other, and no setting within both limits costs less (Lagrangian relaxation; Everett
    1963, doi:10.1287/opre.11.3.399). L is concave and linear in pieces; its maximum is found by crossing the lines of
    a setting beyond the other limit and of one within it until no setting lies below the crossing. The best setting
    seen on the way is improved by exchanges; what is left between it and the maximum is the gap.
    Some setting must keep both limits: `least_beside` says so.
    """
    seen: list[Settings] = []

    def at(price: float) -> tuple[float, int]:
        """Cost and other sum of the best setting at a price; what it shows of both limits is kept."""
        priced = [
            [cost + price * other for cost, other in zip(*layer, strict=True)]
            for layer in zip(costs, others, strict=True)
        ]
        best, found = within(pareto_frontier(sizes, priced), limit)
        sums = totals(others, found)
        inside = sums <= other_limit
        seen.append(found[inside][:KEPT])
        return float(totals(costs, best[None])[0]), int(totals(others, best[None])[0])

    cheapest, least = cheapest_beside(sizes, others, limit)
    seen.append(cheapest[None])
    beyond, inside = at(0.0), (float(totals(costs, cheapest[None])[0]), least)
    lower, multiplier = beyond[0], 0.0
    for _ in range(MOST_PRICES if beyond[1] > other_limit else 0):
        price = (inside[0] - beyond[0]) / (beyond[1] - inside[1])
        crossing = inside[0] + price * (inside[1] - other_limit)
        point = at(price)
        value = point[0] + price * (point[1] - other_limit)
        if value > lower:
            lower, multiplier = value, price
        if value >= crossing - 1e-12 * abs(crossing) or point in (beyond, inside):
            break
        beyond, inside = (point, inside) if point[1] > other_limit else (beyond, point)
    settings = np.unique(np.concatenate(seen), axis=0)
    first = settings[totals(costs, settings).argmin()]
    better = exchanged(first, sizes, others, costs, limit, other_limit)
    settings = np.unique(np.concatenate([settings, better[None]]), axis=0)
    order = np.argsort(totals(costs, settings), kind="stable")
    return Compromise(settings[order], lower, multiplier)


def exchanged(
    setting: Settings, sizes: Table, others: Table, costs: Sequence[Sequence[float]], limit: int, other_limit: int
) -> Settings:
    """A setting, [layers], with the options of one or two layers changed as long as it costs less within both limits.

    A multiplier leaves room below a limit that is worth a layer or two.
    """
    layers = np.concatenate([np.full(len(layer), index) for index, layer in enumerate(sizes)])  # [moves]
    options = np.concatenate([np.arange(len(layer)) for layer in sizes])
    apart = layers[:, None] != layers[None, :]
    np.fill_diagonal(apart, True)  # a move by itself
    for _ in range(MOST_EXCHANGES):
        changes = []
        for table in (sizes, others, costs):
            change = np.concatenate(
                [np.asarray(layer) - layer[option] for layer, option in zip(table, setting, strict=True)]
            )
            both = change[:, None] + change[None, :]
            np.fill_diagonal(both, change)
            changes.append(both)
        size, other, cost = changes
        room, other_room = (
            top - int(totals(table, setting[None])[0]) for top, table in ((limit, sizes), (other_limit, others))
        )
        possible = apart & (size <= room) & (other <= other_room)
        gain = np.where(possible, cost, 0.0)
        one, two = np.unravel_index(int(gain.argmin()), gain.shape)
        if gain[one, two] >= -1e-12 * abs(float(totals(costs, setting[None])[0])):
            break
        setting = setting.copy()
        setting[layers[[one, two]]] = options[[one, two]]
    return setting


def cheapest_beside(sizes: Table, others: Table, limit: int) -> tuple[Settings, int]:
    """A setting within the limit of sizes whose other sum is least, and that sum."""
    best, _ = within(pareto_frontier(sizes, [[float(other) for other in layer] for layer in others]), limit)
    return best, int(totals(others, best[None])[0])


def within(frontier: Frontier, limit: int) -> tuple[Settings, Settings]:
    """The best setting of a frontier within a limit, [layers], and all of them, the best first."""
    count = int(np.searchsorted(frontier.sizes, limit, side="right"))
    found = frontier.settings(np.arange(count - 1, -1, -1))
    return found[0], found


def totals(table: Sequence[Sequence[float]], settings: Settings) -> Integers | Floats:
    """Sum of a table's numbers over the layers, for each setting: [settings]."""
    return sum(np.asarray(layer)[settings[:, index]] for index, layer in enumerate(table))  # type: ignore[return-value]

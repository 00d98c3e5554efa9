"""Which settings within the limits are worth verifying."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from zeroq.allocate.frontier import Frontier, Settings
from zeroq.errors import SizeError

LEAST_SHARE = Fraction(9, 10)  # of the best point's size; a point much smaller only repeats the best at fewer bits


class Candidate(NamedTuple):
    """A setting worth verifying: "frontier-1" (the best by the table), "frontier-2", ..., "uniform-4", ..."""

    name: str
    setting: tuple[int, ...]  # option of each layer


def best_within(frontier: Frontier, limit: int) -> int:
    """Index of the point of least cost whose size is at most `limit`; costs fall with size, so it is the largest."""
    index = int(np.searchsorted(frontier.sizes, limit, side="right")) - 1
    if index < 0:
        raise SizeError(
            f"{limit} bits for all weights cannot be reached, the smallest setting has {frontier.sizes[0]}."
        )
    return index


def best_first(frontier: Frontier, limit: int) -> Settings:
    """The best setting within the limit and all below it that are not much smaller, [settings, layers]."""
    best = best_within(frontier, limit)
    lowest = int(np.searchsorted(frontier.sizes, math.ceil(LEAST_SHARE * int(frontier.sizes[best]))))
    return frontier.settings(np.arange(best, lowest - 1, -1))


def candidates(settings: Settings, uniform: Sequence[Candidate], *, choices: int, count: int = 2) -> list[Candidate]:
    """Settings to choose from by verification: `count` of those given, then the first of the uniform ones.

    settings: [settings, layers], the best first.  uniform: the widest first; all of both within the limits.
    choices: layers that have more than one option.
    Neighbours on a frontier differ by a layer or two and would be the same experiment, so each point taken differs from
    those before it in a tenth of the layers.
    """
    taken = _spread(settings, max(1, choices // 10), count)
    chosen = [Candidate(f"frontier-{rank}", setting) for rank, setting in enumerate(taken, start=1)]
    return chosen + [each for each in uniform[:1] if each.setting not in taken]


def _spread(settings: Settings, apart: int, count: int) -> list[tuple[int, ...]]:
    """The first setting and the next ones that differ from all before in `apart` layers, at most `count`."""
    differs = np.full(len(settings), True)
    taken: list[tuple[int, ...]] = []
    while len(taken) < count and differs.any():
        setting = settings[int(differs.argmax())]
        taken.append(tuple(setting.tolist()))
        differs &= (settings != setting).sum(axis=1) >= apart
    return taken

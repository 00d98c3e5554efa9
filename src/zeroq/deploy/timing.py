"""Files of one network timed against one another in one run."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy
from numpy.typing import NDArray

Feed = Mapping[str, NDArray[Any]]

WARM_UP = 3  # runs of each that are not counted
LEAST_ROUNDS, MOST_ROUNDS = 15, 300
ENOUGH_SECONDS = 3.0  # for all files together; at least LEAST_ROUNDS are measured whatever they take
LOW, HIGH = 10, 90  # percentiles


@dataclass(frozen=True)
class Timing:
    """Milliseconds of one run: median, and the percentiles 10 and 90."""

    median: float
    low: float
    high: float


def interleaved(sessions: Mapping[str, Any], feed: Feed, *, seconds: float = ENOUGH_SECONDS) -> dict[str, Timing]:
    """Each session on the same inputs, one after another in every round, so that a machine's moods meet all alike.

    The order turns by one from round to round: nobody always runs behind the same neighbour.
    """
    names = list(sessions)
    for name in names:
        for _ in range(WARM_UP):
            sessions[name].run(None, feed)
    taken: dict[str, list[float]] = {name: [] for name in names}
    begin = time.perf_counter()
    for index in range(MOST_ROUNDS):
        if index >= LEAST_ROUNDS and time.perf_counter() - begin > seconds:
            break
        turn = index % len(names)
        for name in names[turn:] + names[:turn]:
            start = time.perf_counter()
            sessions[name].run(None, feed)
            taken[name].append(1000 * (time.perf_counter() - start))
    return {name: summary(each) for name, each in taken.items()}


def summary(milliseconds: list[float]) -> Timing:
    """Median and percentiles of some runs."""
    low, median, high = numpy.percentile(milliseconds, [LOW, 50, HIGH]).tolist()
    return Timing(median, low, high)

"""Sessions are timed in turns, each as often as the others."""

from __future__ import annotations

from typing import Any

import numpy
import pytest

from zeroq.deploy import timing
from zeroq.deploy.timing import LEAST_ROUNDS, MOST_ROUNDS, WARM_UP, interleaved, summary

FEED = {"input": numpy.zeros((2, 3), numpy.float32)}


class Session:
    """Notes its runs, and lets a clock go on by what each takes."""

    def __init__(self, name: str, seconds: float, world: dict[str, Any]) -> None:
        self.name, self.seconds, self.world = name, seconds, world

    def run(self, outputs: None, feed: Any) -> None:
        assert outputs is None and feed is FEED
        self.world["order"].append(self.name)
        self.world["now"] += self.seconds


def sessions(monkeypatch: pytest.MonkeyPatch, **seconds: float) -> tuple[dict[str, Session], dict[str, Any]]:
    world: dict[str, Any] = {"order": [], "now": 0.0}
    monkeypatch.setattr(timing.time, "perf_counter", lambda: world["now"])
    return {name: Session(name, taken, world) for name, taken in seconds.items()}, world


def test_each_runs_in_every_round_and_none_always_behind_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    given, world = sessions(monkeypatch, a=0.1, b=0.2, c=0.3)
    found = interleaved(given, FEED, seconds=1.0)
    counted = world["order"][3 * WARM_UP :]
    rounds = ["".join(counted[first : first + 3]) for first in range(0, len(counted), 3)]
    assert len(rounds) == LEAST_ROUNDS and rounds[:4] == ["abc", "bca", "cab", "abc"]
    assert [found[name].median for name in "abc"] == pytest.approx([100, 200, 300])


def test_fast_files_run_often_but_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    given, world = sessions(monkeypatch, a=1e-6, b=1e-6)
    interleaved(given, FEED)
    assert len(world["order"]) == 2 * (WARM_UP + MOST_ROUNDS)


def test_the_summary_is_of_order_statistics() -> None:
    found = summary([*range(1, 100), 10_000.0])
    assert (found.low, found.median, found.high) == pytest.approx((10.9, 50.5, 90.1))

"""Candidates among the settings within the limits."""

from __future__ import annotations

from typing import Any

import numpy
import pytest

from zeroq.allocate import Candidate, best_first, best_within, candidates, pareto_frontier
from zeroq.errors import SizeError

WIDTHS = (2, 4, 8)


def some_frontier(layers: int) -> tuple[Any, list[int]]:
    """A frontier over WIDTHS with plausible costs, and the weights of its layers."""
    random = numpy.random.default_rng(1)
    weights = random.integers(500, 50000, layers).tolist()
    scales = random.lognormal(0, 2, layers)
    sizes = [[count * width for width in WIDTHS] for count in weights]
    return pareto_frontier(sizes, [[scale * 4.0**-width for width in WIDTHS] for scale in scales]), weights


def test_best_within_a_limit_below_everything_is_refused() -> None:
    frontier, weights = some_frontier(3)
    least = 2 * sum(weights)
    assert best_within(frontier, least) == 0
    with pytest.raises(SizeError, match=f"{least - 1} bits for all weights cannot be reached, .* has {least}"):
        best_within(frontier, least - 1)


def test_candidates_differ_and_begin_with_the_best() -> None:
    frontier, weights = some_frontier(40)
    limit = 4 * sum(weights)
    settings = best_first(frontier, limit)
    uniform = [Candidate("uniform-4", (1,) * 40), Candidate("uniform-2", (0,) * 40)]
    found = candidates(settings, uniform, choices=40, count=4)
    assert [each.name for each in found] == [*[f"frontier-{rank}" for rank in (1, 2, 3, 4)], "uniform-4"]
    assert found[0].setting == frontier.setting(best_within(frontier, limit))
    assert all(frontier.size_of(each.setting) <= limit for each in found)
    costs = [frontier.cost_of(each.setting) for each in found[:4]]
    assert costs == sorted(costs) and costs[-1] < frontier.cost_of(found[-1].setting)
    for index, one in enumerate(found[:4]):
        for other in found[:index]:
            assert sum(a != b for a, b in zip(one.setting, other.setting, strict=True)) >= 4


def test_settings_much_smaller_than_the_best_are_left_out() -> None:
    frontier, weights = some_frontier(40)
    sizes = [frontier.size_of(setting) for setting in best_first(frontier, 4 * sum(weights)).tolist()]
    assert sizes == sorted(sizes, reverse=True) and len(sizes) > 4
    assert 0.9 * sizes[0] <= sizes[-1]


def test_a_setting_is_one_candidate_though_it_is_uniform() -> None:
    settings = best_first(pareto_frontier([[8], [8]], [[0.5], [0.5]]), 16)
    assert candidates(settings, [Candidate("uniform-8", (0, 0))], choices=0) == [("frontier-1", (0, 0))]

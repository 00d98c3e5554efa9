"""Targets in the asker's unit, and the candidates within them."""

from __future__ import annotations

from typing import Any

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zeroq.allocate import best_within, budget_in_weight_bits, candidates, pareto_frontier
from zeroq.errors import SizeError

WIDTHS = (2, 4, 8)
WAY_OUT = "or allow fewer bits in --weight-bits, --edge-bits or --layer-bits."


def some_frontier(layers: int) -> tuple[Any, list[int]]:
    """A frontier over WIDTHS with plausible costs, and the weights of its layers."""
    random = numpy.random.default_rng(1)
    weights = random.integers(500, 50000, layers).tolist()
    scales = random.lognormal(0, 2, layers)
    sizes = [[count * width for width in WIDTHS] for count in weights]
    return pareto_frontier(sizes, [[scale * 4.0**-width for width in WIDTHS] for scale in scales]), weights


def test_budgets_in_each_unit() -> None:
    assert budget_in_weight_bits(least=200, weights=100, average_bits=4.1) == 410
    assert budget_in_weight_bits(least=200, weights=100, compression=8) == 400
    assert budget_in_weight_bits(least=200, weights=100, size_mb=0.0003, other_bytes=100) == 200 * 8
    assert budget_in_weight_bits(least=200, weights=100) is None


@settings(deadline=None)
@given(st.integers(1, 10**9), st.integers(200, 800).map(lambda hundredths: hundredths / 100))
def test_the_average_reached_is_never_above_the_average_asked(weights: int, asked: float) -> None:
    budget = budget_in_weight_bits(least=2 * weights, weights=weights, average_bits=asked)
    assert budget is not None
    assert budget / weights <= asked < (budget + 1) / weights + 1e-9


@pytest.mark.parametrize(
    ("asked", "sentence", "enough"),
    [
        (
            {"average_bits": 2.0},
            "An average of 2 bits cannot be reached, the smallest setting has 2.34: "
            "ask for --average-bits 2.34 or more, ",
            {"average_bits": 2.34},
        ),
        (
            {"compression": 16},
            "A compression of 16 cannot be reached, the smallest setting has 13.71: "
            "ask for --compression 13.71 or less, ",
            {"compression": 13.71},
        ),
        (
            {"size_mb": 0.2},
            "0.2 MB cannot be reached, the smallest file has 0.3417 MB, of which 0.05 MB are not quantized weights: "
            "ask for --size-mb 0.3417 or more, ",
            {"size_mb": 0.3417},
        ),
    ],
)
def test_an_impossible_target_names_the_least_size(asked: Any, sentence: str, enough: Any) -> None:
    given: Any = {"least": 2_333_333, "weights": 1_000_000, "other_bytes": 50_000}
    with pytest.raises(SizeError) as caught:
        budget_in_weight_bits(**given, **asked)
    assert str(caught.value) == sentence + WAY_OUT
    budget = budget_in_weight_bits(**given, **enough)
    assert budget is not None and budget >= given["least"]


def test_best_within_a_limit_below_everything_is_refused() -> None:
    frontier, weights = some_frontier(3)
    least = 2 * sum(weights)
    assert best_within(frontier, least) == 0
    with pytest.raises(SizeError, match=f"{least - 1} bits for all weights cannot be reached, .* has {least}"):
        best_within(frontier, least - 1)


def test_candidates_fit_differ_and_begin_with_the_best() -> None:
    frontier, weights = some_frontier(40)
    limit = 4 * sum(weights)
    found = candidates(frontier, limit, [WIDTHS] * 40, WIDTHS, count=4)
    assert [each.name for each in found] == [
        *[f"frontier-{rank}" for rank in (1, 2, 3, 4)],
        "uniform-4",  # uniform-2 fits as well, and never diverges less
    ]
    assert found[0].setting == frontier.setting(best_within(frontier, limit))
    assert found[-1].setting == (1,) * 40
    assert all(frontier.size_of(each.setting) <= limit for each in found)
    costs = [frontier.cost_of(each.setting) for each in found[:4]]
    assert costs == sorted(costs) and costs[-1] < frontier.cost_of(found[-1].setting)
    for index, one in enumerate(found[:4]):
        for other in found[:index]:
            assert sum(a != b for a, b in zip(one.setting, other.setting, strict=True)) >= 4


def test_a_uniform_setting_leaves_layers_of_fixed_bits_as_they_are() -> None:
    sizes = [[80], [20, 40], [20, 40]]
    frontier = pareto_frontier(sizes, [[0.0], [3.0, 1.0], [2.0, 1.0]])
    widths = [[8], [2, 4], [2, 4]]
    found = candidates(frontier, 150, widths, [2, 4, 8])
    assert [(each.name, each.setting) for each in found] == [("frontier-1", (0, 1, 0)), ("uniform-2", (0, 0, 0))]
    assert [each.name for each in candidates(frontier, 160, widths, [2, 4, 8])] == ["frontier-1"]  # is uniform


def test_one_uniform_setting_is_one_candidate() -> None:
    frontier = pareto_frontier([[8], [8]], [[0.5], [0.5]])
    assert candidates(frontier, 16, [[8], [8]], [8]) == [("frontier-1", (0, 0))]

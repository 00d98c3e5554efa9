"""The dynamic programme against every combination."""

from __future__ import annotations

import time
from typing import Any

import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.oracles.frontier import all_points, brute_force_frontier
from zeroq.allocate import best_within, pareto_frontier
from zeroq.errors import NumericalError

Problem = tuple[list[list[int]], list[list[float]]]


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    """Up to 5 layers of up to 4 options; few different numbers, so that ties and negative costs are common."""
    sizes, costs = [], []
    for _ in range(draw(st.integers(1, 5))):
        options = draw(st.integers(1, 4))
        sizes.append(draw(st.lists(st.integers(0, 6), min_size=options, max_size=options)))
        cost = st.one_of(st.integers(-3, 3).map(float), st.floats(-1e6, 1e6))
        costs.append(draw(st.lists(cost, min_size=options, max_size=options)))
    return sizes, costs


@settings(deadline=None)
@given(problems())
def test_points_are_those_of_brute_force(problem: Problem) -> None:
    frontier = pareto_frontier(*problem)
    assert list(zip(frontier.sizes.tolist(), frontier.costs.tolist(), strict=True)) == brute_force_frontier(*problem)
    assert frontier.sizes.dtype == numpy.int64 and frontier.costs.dtype == numpy.float64


@settings(deadline=None)
@given(problems())
def test_sizes_rise_and_costs_fall(problem: Problem) -> None:
    frontier = pareto_frontier(*problem)
    assert (numpy.diff(frontier.sizes) > 0).all() and (numpy.diff(frontier.costs) < 0).all()


@settings(deadline=None)
@given(problems())
def test_settings_make_their_points(problem: Problem) -> None:
    frontier = pareto_frontier(*problem)
    everything = frontier.settings(numpy.arange(len(frontier.sizes))).tolist()
    for index, (size, cost) in enumerate(zip(frontier.sizes, frontier.costs, strict=True)):
        setting = frontier.setting(index)
        assert setting == tuple(everything[index])
        assert frontier.size_of(setting) == size and frontier.cost_of(setting) == cost


@settings(deadline=None)
@given(problems(), st.integers(0, 30))
def test_the_best_within_any_budget_is_that_of_brute_force(problem: Problem, slack: int) -> None:
    frontier = pareto_frontier(*problem)
    limit = int(frontier.sizes[0]) + slack
    best = frontier.costs[best_within(frontier, limit)]
    assert best == min(cost for size, cost in all_points(*problem) if size <= limit)


def test_of_equal_options_the_lower_one_is_taken() -> None:
    frontier = pareto_frontier([[4, 2, 2, 8], [1, 1]], [[0.0, 1.0, 1.0, 0.0], [5.0, 5.0]])
    assert [frontier.setting(index) for index in range(len(frontier.sizes))] == [(1, 0), (0, 0)]


def test_of_equal_sums_the_lower_option_of_the_latest_layer_is_taken() -> None:
    frontier = pareto_frontier([[1, 2], [1, 2]], [[3.0, 1.0], [3.0, 1.0]])
    assert [frontier.setting(index) for index in range(3)] == [(0, 0), (1, 0), (1, 1)]


def test_a_layer_of_one_option_only_shifts_the_frontier() -> None:
    free = pareto_frontier([[2, 4], [2, 4]], [[3.0, 1.0], [2.0, 1.0]])
    fixed = pareto_frontier([[2, 4], [8], [2, 4]], [[3.0, 1.0], [0.5], [2.0, 1.0]])
    assert fixed.sizes.tolist() == (free.sizes + 8).tolist()
    assert fixed.costs.tolist() == (free.costs + 0.5).tolist()


def test_156_layers_with_three_widths_take_a_moment() -> None:
    random = numpy.random.default_rng(0)
    weights = random.choice([16384, 36864, 65536, 147456, 262144, 589824, 1048576, 2359296], 156)
    sizes = [[int(count) * width for width in (2, 4, 8)] for count in weights]
    costs = [[float(scale * 4.0**-width) for width in (2, 4, 8)] for scale in random.lognormal(0, 2, 156)]
    start = time.process_time()
    frontier = pareto_frontier(sizes, costs)
    frontier.setting(len(frontier.sizes) // 2)
    assert time.process_time() - start < 1  # 0.05 s on an idle core
    assert len(frontier.sizes) > 1000


def test_what_is_no_number_is_named() -> None:
    with pytest.raises(NumericalError, match=r"A cost of layer 1 is not a number or infinite: \[nan\]\."):
        pareto_frontier([[1], [1]], [[0.0], [float("nan")]])


def test_tables_of_different_shape_are_a_defect() -> None:
    with pytest.raises(ValueError, match="sizes of 1 layers, but costs of 2"):
        pareto_frontier([[1]], [[0.0], [1.0]])
    with pytest.raises(ValueError, match="layer 0 has 2 sizes and 1 costs"):
        pareto_frontier([[1, 2]], [[0.0]])


@pytest.mark.parametrize("sizes", [[[1.5, 2.5]], [["1", "2"]], [[2**63, 1]], [[True, False]]], ids=str)
def test_sizes_that_are_no_whole_numbers_are_refused(sizes: Any) -> None:
    with pytest.raises(ValueError, match="count them in whole numbers"):
        pareto_frontier(sizes, [[1.0, 0.0]])


def test_sums_that_no_number_holds_are_refused() -> None:
    with pytest.raises(ValueError, match="sizes add up to more than 63 bits hold"):
        pareto_frontier([[2**62], [2**62]], [[0.0], [0.0]])
    for cost in (1.7e308, -1.7e308):
        with pytest.raises(NumericalError, match="^Costs add up to more than a 64-bit float holds"):
            pareto_frontier([[1], [1]], [[cost], [cost]])


def test_tables_may_be_arrays() -> None:
    sizes, costs = numpy.array([[2, 4, 8]] * 3), numpy.array([[3.0, 1.0, 0.0]] * 3)
    expected = pareto_frontier(sizes.tolist(), costs.tolist())
    for form in (numpy.asarray, torch.tensor):
        found = pareto_frontier(form(sizes), form(costs))
        assert found.sizes.tolist() == expected.sizes.tolist() and found.costs.tolist() == expected.costs.tolist()

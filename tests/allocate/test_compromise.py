"""Two limits at once against every combination."""

from __future__ import annotations

import itertools
import time

import numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from zeroq.allocate.compromise import compromise, least_beside, totals

Numbers = list[list[int]]
Problem = tuple[Numbers, Numbers, list[list[float]]]


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    """Up to 5 layers of up to 4 options, with two sizes and a cost for each."""
    sizes, others, costs = [], [], []
    for _ in range(draw(st.integers(1, 5))):
        options = draw(st.integers(1, 4))
        for table in (sizes, others):
            table.append(draw(st.lists(st.integers(0, 9), min_size=options, max_size=options)))
        costs.append(draw(st.lists(st.integers(-9, 9).map(float), min_size=options, max_size=options)))
    return sizes, others, costs


def every_setting(problem: Problem) -> list[tuple[tuple[int, ...], int, int, float]]:
    """Each combination with its two sums and its cost."""
    found = []
    for setting in itertools.product(*(range(len(layer)) for layer in problem[0])):
        size, other, cost = (
            sum(table[layer][option] for layer, option in enumerate(setting)) for table in problem
        )  # fmt: skip
        found.append((setting, int(size), int(other), float(cost)))
    return found


@settings(deadline=None, max_examples=300)
@given(problems(), st.integers(0, 12), st.integers(0, 12))
def test_settings_keep_both_limits_and_the_optimum_lies_within_the_gap(
    problem: Problem, slack: int, other_slack: int
) -> None:
    every = every_setting(problem)
    limit = min(size for _, size, _, _ in every) + slack
    least = min(other for _, size, other, _ in every if size <= limit)
    assert least_beside(problem[0], problem[1], limit) == least
    found = compromise(*problem, limit, least + other_slack)
    feasible = {setting: cost for setting, size, other, cost in every if size <= limit and other <= least + other_slack}
    costs = [feasible[tuple(setting)] for setting in found.settings.tolist()]
    assert costs == sorted(costs)
    assert found.lower_bound <= min(feasible.values()) + 1e-9 <= costs[0] + 2e-9
    assert found.multiplier >= 0
    assert abs(found.lower_bound - dual(every, limit, least + other_slack)) < 1e-6


def dual(every: list[tuple[tuple[int, ...], int, int, float]], limit: int, other_limit: int) -> float:
    """The greatest value of min {cost + m (other - other_limit)} over m >= 0, at the kinks of that function."""
    points = {(other - other_limit, cost) for _, size, other, cost in every if size <= limit}
    prices = {0.0} | {
        (one[1] - two[1]) / (two[0] - one[0]) for one, two in itertools.permutations(points, 2) if one[0] != two[0]
    }
    return max(min(cost + price * excess for excess, cost in points) for price in prices if price >= 0)


def test_where_the_other_limit_binds_nothing_the_answer_is_exact() -> None:
    found = compromise([[1, 2], [1, 2]], [[1, 1], [1, 1]], [[3.0, 1.0], [2.0, 1.0]], 3, 2)
    assert found.settings[0].tolist() == [1, 0] and found.lower_bound == 3 and found.multiplier == 0


def test_a_large_network_takes_a_moment_and_leaves_a_small_gap() -> None:
    random = numpy.random.default_rng(0)
    options = [(weight, value) for weight in (2, 4, 8) for value in (4, 8)]
    weights = random.choice([36864, 65536, 147456, 589824, 2359296], 60)
    counts = random.choice([12845056, 25690112, 51380224, 115605504], 60)
    sizes = [[int(count) * weight for weight, _ in options] for count in weights]
    others = [[int(count) * weight * value for weight, value in options] for count in counts]
    costs = [
        [float(one * 4.0**-weight + two * 4.0**-value) for weight, value in options]
        for one, two in random.lognormal(0, 2, (60, 2))
    ]
    start = time.process_time()
    found = compromise(sizes, others, costs, 4 * int(weights.sum()), 24 * int(counts.sum()))
    assert time.process_time() - start < 10  # 0.1 s on an idle core
    best = float(totals(costs, found.settings[:1])[0])
    assert found.lower_bound <= best <= 1.02 * found.lower_bound

"""Spearman's correlation against its definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from benchmarks.order import rank_correlation


def test_only_the_order_counts() -> None:
    assert rank_correlation([1.0, 2.0, 30.0], [0.1, 0.5, 0.6]) == pytest.approx(1.0)
    assert rank_correlation([3.0, 2.0, 1.0], [1.0, 2.0, 3.0]) == pytest.approx(-1.0)


@given(some.lists(some.floats(-1e3, 1e3), min_size=3, max_size=20, unique=True), some.randoms())
def test_it_is_the_correlation_of_ranks(values: list[float], chance: np.random.RandomState) -> None:
    others = list(values)
    chance.shuffle(others)
    ranks = [[sorted(each).index(value) for value in each] for each in (values, others)]
    assert rank_correlation(values, others) == pytest.approx(np.corrcoef(*ranks)[0, 1])

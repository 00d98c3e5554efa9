"""Intervals of figures that are no means over pictures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from benchmarks.bootstrap import bootstrapped, f1, mean_overlap
from zeroq.evaluate.segmentation import overlap


def mean_of(values: np.ndarray) -> object:
    return lambda places: float(values[list(places)].mean())


def test_of_a_mean_it_is_the_interval_of_the_normal_distribution() -> None:
    generator = np.random.default_rng(3)
    first = generator.normal(0.5, 0.1, 400)
    second = first - 0.02 + generator.normal(0, 0.05, 400)
    found = bootstrapped(mean_of(first), mean_of(second), range(400))  # type: ignore[arg-type]
    change = 100 * (second - first)
    half = 1.645 * change.std() / 20
    assert found.difference == pytest.approx(change.mean())
    assert found.low == pytest.approx(change.mean() - half, abs=0.1 * half)
    assert found.high == pytest.approx(change.mean() + half, abs=0.1 * half)


def test_pictures_are_paired_and_drawn_from_those_asked_for() -> None:
    seen: list[Sequence[int]] = []

    def figure(places: Sequence[int]) -> float:
        seen.append(list(places))
        return sum(places) / len(places)

    found = bootstrapped(figure, figure, range(1, 20, 2), draws=50)
    assert (found.difference, found.low, found.high) == (0, 0, 0)
    assert all(len(places) == 10 and set(places) <= set(range(1, 20, 2)) for places in seen)
    assert len({tuple(places) for places in seen}) == 51 and len(seen) == 102


def test_matrices_and_counts_are_added_before_the_figure_is_taken() -> None:
    matrices = torch.randint(0, 9, (6, 3, 3))
    assert mean_overlap(matrices)([0, 2, 2]) == overlap(matrices[0] + 2 * matrices[2])["miou"]
    counts = torch.tensor([[1, 2, 1], [0, 0, 0], [3, 3, 4]])
    assert f1(counts)([0, 2]) == 2 * 4 / (5 + 5) and f1(counts)([1]) == 1.0

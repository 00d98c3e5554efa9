"""How sensitivities are held against whole networks."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks.mixed import SETTINGS, correlation, drawn


def test_settings_drawn_differ_and_keep_the_limit() -> None:
    sizes = [[2 * count, 4 * count, 8 * count] for count in (10, 30, 20, 50, 40, 10)]
    sensitivities = np.array([[0.4, 0.1, 0.01]] * 6) * np.arange(1, 7)[:, None]
    found = list(drawn(sizes, sensitivities, 4 * 160))
    assert len(found) == len(set(found)) == SETTINGS
    assert all(sum(own[option] for own, option in zip(sizes, setting, strict=True)) <= 4 * 160 for setting in found)
    assert found == list(drawn(sizes, sensitivities, 4 * 160))


def test_a_correlation_counts_what_is_left() -> None:
    """Divergences that are the sums at rate 2 correlate fully with these, and less with others."""
    seen, generator = [4, 3, 2, 1, 0], np.random.default_rng(0)
    rows = generator.uniform(size=(20, 5))
    left = np.array([math.exp(-2 * count / 4) for count in seen])
    record = {
        "seen_by": seen,
        "settings": [{"sensitivities": row.tolist(), "divergence": float(row @ left)} for row in rows],
    }
    assert correlation(record, 2.0) == pytest.approx(1.0)
    assert correlation(record, 0.0) < 0.95

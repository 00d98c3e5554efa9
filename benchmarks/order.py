"""Order of values beside that of others."""

from __future__ import annotations

from typing import Any

import numpy as np


def rank_correlation(one: Any, other: Any) -> float:
    """Spearman's, of values without ties."""
    first, second = (np.argsort(np.argsort(values)).astype(np.float64) for values in (one, other))
    count = len(first)
    return float(1 - 6 * np.sum((first - second) ** 2) / (count * (count**2 - 1)))

"""Numbers that are numbers."""

from __future__ import annotations

import torch
from torch import Tensor

from zeroq.errors import NumericalError


def check_finite(whose: str, values: Tensor) -> None:
    """Raise NumericalError, beginning with `whose`, where values [N, ...] are NaN or infinite."""
    bad = int((~torch.isfinite(values)).reshape(len(values), -1).any(dim=1).sum())
    if bad:
        raise NumericalError(
            f"{whose} are NaN or infinite for {bad} of {len(values)} images: its values overflow, or "
            "its weights hold such values."
        )

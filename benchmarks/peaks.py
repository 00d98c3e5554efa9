"""The most memory that each stage of a run held, as the kernel counts it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from zeroq import pipeline
from zeroq.resident import forget_peak, peak
from zeroq.stages import Stages

STEPS = {  # stage -> who computes it
    "capture": (pipeline, "prepare"), "distill": (Stages, "distil"), "ranges": (pipeline, "ranged"),
    "sensitivity": (Stages, "sensitivity"), "allocate": (Stages, "allocate"), "rounding": (Stages, "round"),
    "export": (Stages, "export"), "verify": (Stages, "verify"), "report": (pipeline, "conclude"),
}  # fmt: skip


@contextmanager
def peaks_by_stage() -> Iterator[dict[str, float]]:
    """Peak resident memory in 10^6 bytes of every stage that runs inside, filled in as they end; Linux only."""
    found: dict[str, float] = {}

    def watched(stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*arguments: Any, **options: Any) -> Any:
            forget_peak()
            try:
                return function(*arguments, **options)
            finally:
                found[stage] = peak_mb()

        return call

    kept = {stage: getattr(owner, name) for stage, (owner, name) in STEPS.items()}
    try:
        for stage, (owner, name) in STEPS.items():
            setattr(owner, name, watched(stage, kept[stage]))
        yield found
    finally:
        for stage, (owner, name) in STEPS.items():
            setattr(owner, name, kept[stage])


def peak_mb() -> float:
    """Peak resident memory since it was forgotten last, in 10^6 bytes."""
    return round(peak() / 1e6, 1)

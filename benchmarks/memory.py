"""The most memory that each stage of a run held, as the kernel counts it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from zeroq import pipeline
from zeroq.stages import Stages

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
FORGET_PEAK = "5"  # what /proc/self/clear_refs takes it from
STEPS = {  # stage -> who computes it
    "capture": (pipeline, "prepare"), "distill": (Stages, "distil"), "ranges": (Stages, "ranges"),
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


def forget_peak() -> None:
    """The kernel counts the peak anew from here on."""
    RESET.write_text(FORGET_PEAK)


def peak_mb() -> float:
    """Peak resident memory since it was forgotten last, in 10^6 bytes."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM"))
    return round(int(line.split()[1]) * 1024 / 1e6, 1)

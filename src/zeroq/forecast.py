"""What a user without pictures should expect to lose: a forecast from the divergence on held-out distilled images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

METRICS = {"classification": "top1"}  # of the tasks that there is enough experience with


@dataclass(frozen=True)
class Law:
    """Points lost at a divergence d of class scores, in nats: loss d^power, give or take width + share of that."""

    loss: float
    power: float
    width: float
    share: float

    def points(self, divergence: float) -> tuple[float, float, float]:
        """Expected loss, and the ends of the interval that nine of ten measured losses meet."""
        drop = min(self.loss * max(divergence, 0.0) ** self.power, 100.0)
        spread = self.width + self.share * drop
        return drop, drop - spread, min(drop + spread, 100.0)


# Fitted by `python -m benchmarks.forecast` (docs/forecast.md), and checked there on networks that it was not fitted to.
LAW = Law(loss=15.0, power=0.9, width=0.4, share=0.2)


def forecast(task: str, divergence: Mapping[str, Any]) -> dict[str, Any] | None:
    """The "forecast" of result.json, in fractions of one: {"metric", "drop", "low", "high"}; None where none is known.

    divergence: as result.json has it. A drop is what the metric loses against floating point; below 0 it gains.
    """
    if task not in METRICS or divergence["mean"] is None:
        return None
    drop, low, high = (round(points / 100, 5) for points in LAW.points(float(divergence["mean"])))
    return {"metric": METRICS[task], "drop": drop, "low": low, "high": high}

"""How well the loss of accuracy is forecast without data, from the results of other benchmarks:

    python -m benchmarks.forecast

Takes every classifier's result on distilled images of benchmarks.accuracy and benchmarks.without, fits the law of
zeroq.forecast, checks it on one network after another that it was not fitted to, and writes docs/forecast.md.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks import without
from benchmarks.document import table
from benchmarks.measure import from_hex
from benchmarks.paired import paired_difference
from benchmarks.process import results_of
from benchmarks.rows import DISTILLED, ROOT, W8_NOT_PORTABLE, Row, all_rows
from zeroq.forecast import LAW, Law

DOCUMENT = ROOT / "docs" / "forecast.md"
COVERED = 0.9  # of the measured losses, at least
WIDTH, SHARE = 2.0, 0.5  # the mean width may be so many points, and so much of the measured loss
# Values of the law that are tried, one with another.
LOSSES, POWERS = np.arange(4.0, 40.5, 1.0), np.arange(0.7, 2.05, 0.05)
WIDTHS, SHARES = np.arange(0.2, 2.05, 0.1), np.arange(0.2, 1.05, 0.05)  # large losses are less sure


@dataclass(frozen=True)
class Case:
    """One network in one setting: the divergence on held-out distilled images, and the points that were really lost."""

    network: str
    setting: str
    divergence: float
    drop: float
    low: float  # of the measured loss's 90 % interval
    high: float
    stale: bool


def cases() -> list[Case]:
    """Every classifier that was measured on distilled images, over the pictures of both halves."""
    rows = [row for row in [*all_rows(), *without.ROWS] if row.images == DISTILLED and row.setting != W8_NOT_PORTABLE]
    found, stale = results_of(rows)
    return [case_of(row, found[row], row in stale) for row in rows if row in found and found[row]["error"] is None]


def case_of(row: Row, record: Mapping[str, Any], stale: bool) -> Case:
    """A result as a case."""
    before, after = (
        np.concatenate([from_hex(half[key], half["images"]) for half in record["sets"].values()])
        for key in ("float_correct", "correct")
    )
    found = paired_difference(before, after)
    divergence = float(record["divergence"]["mean"])
    return Case(row.network, row.setting, divergence, -found.difference, -found.high, -found.low, stale)


def fitted(known: Sequence[Case]) -> Law:
    """The law whose curve is nearest to the losses, each weighed by how large it is.

    Its interval is the narrowest that meets all of them, or most of them where that would be wider than is allowed.
    Exhaustive over the values above: a few hundred thousand sums.
    """
    divergence, drop, low, high = (
        np.array([getattr(case, name) for case in known]) for name in ("divergence", "drop", "low", "high")
    )
    curves = [(loss, power, loss * divergence**power) for loss, power in itertools.product(LOSSES, POWERS)]
    loss, power, expected = min(curves, key=lambda curve: float(np.sum(np.abs(drop - curve[2]) / (1 + curve[2]))))
    allowed = WIDTH + SHARE * float(np.mean(np.maximum(drop, 0)))
    choices = []
    for width, share in itertools.product(WIDTHS, SHARES):
        spread = width + share * expected
        missed = float(np.mean((low > expected + spread) | (high < expected - spread)))
        mean = float(np.mean(2 * spread))
        if mean <= allowed:
            choices.append((missed, mean, width, share))
    _, _, width, share = min(choices)
    return Law(*(round(float(value), 3) for value in (loss, power, width, share)))


def checked(known: Sequence[Case]) -> dict[str, tuple[Law, list[bool]]]:
    """For each network, the law fitted to all others, and whether its measured losses meet that law's intervals."""
    found = {}
    for network in dict.fromkeys(case.network for case in known):
        law = fitted([case for case in known if case.network != network])
        found[network] = law, [meets(law, case) for case in known if case.network == network]
    return found


def meets(law: Law, case: Case) -> bool:
    """Whether a measured loss, with its own error, lies in the interval of its forecast."""
    _, low, high = law.points(case.divergence)
    return case.low <= high and case.high >= low


def document(known: Sequence[Case]) -> str:
    """docs/forecast.md."""
    by_network = checked(known)
    inside = [hit for _, hits in by_network.values() for hit in hits]
    laws = {network: law for network, (law, _) in by_network.items()}
    widths = [np.diff(laws[case.network].points(case.divergence)[1:])[0] for case in known]
    allowed = WIDTH + SHARE * float(np.mean([max(case.drop, 0.0) for case in known]))
    rows = [row_of(case, laws[case.network]) for case in known]
    met = np.mean(inside) >= COVERED and np.mean(widths) <= allowed
    header = ["network", "setting", "divergence", "forecast, points", "measured loss, points", "inside"]
    parts = [
        HEAD,
        f"The law of the product: {law_text(LAW)}. Fitted to all cases here: {law_text(fitted(known))}.",
        f"Left out one network at a time, {sum(inside)} of {len(inside)} measured losses meet the interval of the law\n"
        f"fitted to the other networks (limit: {100 * COVERED:g} %), at a mean width of {np.mean(widths):.2f} points\n"
        f"(limit: {WIDTH:g} points and half of the measured loss, {allowed:.2f}): {'met' if met else 'missed'}.",
        table(header, rows),
        LIMITS,
    ]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def row_of(case: Case, law: Law) -> list[str]:
    """A line of the table; the forecast is that of the law fitted without this network."""
    drop, low, high = law.points(case.divergence)
    mark = " `stale`" if case.stale else ""
    return [
        case.network, case.setting, f"{case.divergence:.4f}{mark}", f"{drop:.2f} [{low:+.2f}, {high:+.2f}]",
        f"{case.drop:.2f} [{case.low:+.2f}, {case.high:+.2f}]{mark}", "yes" if meets(law, case) else "**no**",
    ]  # fmt: skip


def law_text(law: Law) -> str:
    return f"{law.loss:g} d^{law.power:g} points, give or take {law.width:g} points and {100 * law.share:g} % of them"


HEAD = """# Forecast

Written by `python -m benchmarks.forecast`; change nothing here by hand.

Who has no pictures cannot measure what quantization costs. So a run says what to expect: the points of top-1 that are
lost, from the divergence (KL of the class scores) between the float and the quantized network on held-out distilled
images. The law is fitted to real networks whose loss was measured on real pictures, both halves together; each line
below shows the forecast of a law that was fitted **without** that network. Measured losses have their paired 90 %
interval.
"""
LIMITS = """## Its limits

The experience is of image classifiers with BatchNorm (and two without) between 32 and 224 pixels. The divergence is
measured on a few distilled images (16 at `--effort balanced`), which are no pictures: single forecasts can be off by
their interval and more. Other tasks have no forecast (`null`), as too few networks of theirs were measured. Labelled
pictures and `zeroq evaluate` say what is really lost.
"""


def main() -> int:
    DOCUMENT.write_text(document(cases()), encoding="utf-8")
    print(law_text(fitted(cases())))
    return 0


if __name__ == "__main__":
    sys.exit(main())

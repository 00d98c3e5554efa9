"""Numbers, sizes and times as a person reads them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

SPACE = "\u202f"  # narrow, and no line breaks there
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Wording:
    """What the figures of a task are called."""

    agreed: str  # of what agreement is a share
    agreement: str
    divergence: str


ERRORS = "squared error of each output channel over its variance"
TASKS = {
    "classification": Wording("of the images", "same top class as in floating point", "KL divergence"),
    "segmentation": Wording(
        "of the pixels", "pixels of the same class as in floating point", "KL divergence of each pixel, mean"
    ),
    "detection": Wording("of the detections (F1)", "F1 against the detections in floating point", ERRORS),
    "regression": Wording("of the output's variance", "of the floating-point output's variance kept", ERRORS),
}


def significant(value: float, digits: int = 3) -> float:
    """Rounded to that many significant digits."""
    return float(f"{value:.{digits - 1}e}")


def number(value: float | None, digits: int = 3) -> str:
    """Three significant digits without needless zeros: 1,280, 98.4, 0.0023, 4.1×10⁻⁵; a dash for what is not known."""
    if value is None or not math.isfinite(value):
        return "–"
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    if value and not -4 <= int(exponent) < 7:
        short = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
        return f"{short}×{power_of_ten(int(exponent))}".replace("-", "−")
    decimals = max(0, digits - 1 - int(exponent))
    text = f"{value:,.{decimals}f}"
    return (text.rstrip("0").rstrip(".") if "." in text else text).replace("-", "−")


def power_of_ten(exponent: int) -> str:
    """10⁻⁵"""
    return f"10{str(exponent).translate(SUPERSCRIPTS)}"


def size(count: float | None) -> str:
    """Bytes as kB, MB or GB of 10^3, 10^6 and 10^9."""
    if count is None:
        return "–"
    if count < 1000:
        return f"{count:.0f}{SPACE}bytes"
    rounded = significant(count)
    factor, unit = next((f, u) for f, u in ((1e3, "kB"), (1e6, "MB"), (1e9, "GB")) if rounded < 1000 * f or u == "GB")
    return f"{number(rounded / factor)}{SPACE}{unit}"


def compact(value: float) -> str:
    """A count for a narrow place: 500, 20k, 1.5M, 3.8G."""
    rounded = significant(value)
    for factor, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if rounded >= factor:
            return f"{number(rounded / factor)}{letter}"
    return number(rounded)


def percent(share: float | None) -> str:
    """A fraction as percent; never 100 or 0 unless it is exactly that."""
    if share is None or not math.isfinite(share):
        return "–"
    if 0.9995 <= share < 1:
        return f"over 99.9{SPACE}%"
    if 0 < share < 0.0005:
        return f"under 0.1{SPACE}%"
    return f"{100 * share:.1f}".removesuffix(".0").replace("-", "−") + f"{SPACE}%"


def stage_seconds(seconds: Mapping[str, float | None]) -> dict[str, float]:
    """Of the stages that there were, as result.json has them; loading the file is none."""
    return {stage: spent for stage, spent in seconds.items() if spent is not None and stage != "load"}


def duration(seconds: float | None) -> str:
    """0.05 s, 1.2 s, 48 s, 3 min 05 s, 2 h 10 min."""
    if seconds is None:
        return "–"
    if seconds < 9.95:
        return f"{number(seconds, 2)}{SPACE}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}{SPACE}s"
    if whole < 3600:
        return f"{whole // 60}{SPACE}min {whole % 60:02d}{SPACE}s"
    return f"{whole // 3600}{SPACE}h {whole % 3600 // 60:02d}{SPACE}min"


def count_of(count: int, one: str, many: str | None = None) -> str:
    """1 layer, 2 layers."""
    return f"{count:,}{SPACE}{one if count == 1 else many or one + 's'}"


def listed(words: list[str], last: str = "and") -> str:
    """a, b and c."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {last} {words[-1]}" if words else ""

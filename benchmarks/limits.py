"""What must hold, and whether a result holds it."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.measure import from_hex
from benchmarks.paired import PairedDifference, paired_difference

Record = Mapping[str, Any]
W8_EACH, W8_MEAN = -1.0, -0.5  # points of top-1 against float, at least
MIXED_MEAN = 0.0  # the same against uniform 4 bits
MOST_AVERAGE_BITS = 4.0
AGREEMENT = 0.99  # share of images on which file and simulation name the same class, at least
SIZE_FACTOR, SIZE_BYTES = 1.03, 100_000  # of onnx_bytes over weight_bytes + other_bytes, at most
UNITS_NETWORK, UNITS = "mobilenet_v2", 120.0


def against_float(record: Record, role: str) -> PairedDifference:
    """Quantized minus float on one half."""
    half = record["sets"][role]
    return paired_difference(*(from_hex(half[name], half["images"]) for name in ("float_correct", "correct")))


def against_row(first: Record, second: Record, role: str) -> PairedDifference:
    """Second row minus first on one half; both of one network."""
    halves = (row["sets"][role] for row in (first, second))
    return paired_difference(*(from_hex(half["correct"], half["images"]) for half in halves))


def missed(difference: PairedDifference, least: float) -> bool:
    """Whether the interval lies wholly below the least that is allowed."""
    return difference.high < least


def mean_kept(differences: Sequence[float], least: float) -> bool:
    """Means hold as they stand; the rounding of a sum is no reason to miss."""
    return statistics.mean(differences) >= least - 1e-9


def average_kept(record: Record) -> bool:
    return bool(record["average_bits"] <= MOST_AVERAGE_BITS)


def files_agree(record: Record) -> bool:
    simulation = record["simulation"]
    return bool(simulation["same_class"] >= AGREEMENT * simulation["images"])


def in_integers(record: Record) -> bool:
    """Whether every convolution and linear layer runs as an integer kernel."""
    return bool(record["integer_share"] == 1.0)


def size_excess(record: Record) -> float:
    """Of the file over what it holds, as a share."""
    return float(record["onnx_bytes"] / (record["weight_bytes"] + record["other_bytes"]) - 1)


def size_kept(record: Record) -> bool:
    return bool(record["onnx_bytes"] <= SIZE_FACTOR * (record["weight_bytes"] + record["other_bytes"]) + SIZE_BYTES)

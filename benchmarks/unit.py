"""The unit that times are told in: one plain pass forward and backward of 32 pictures, on the same machine."""

from __future__ import annotations

import statistics

from zeroq import devices
from zeroq.graph import Network

IMAGES = 32
REPEATS = 3


def unit_seconds(network: Network, precision: devices.Precision) -> float:
    """Median of some passes, behind one that allocates and chooses kernels."""
    devices.step_seconds(network, precision, IMAGES)
    return statistics.median(one_unit(network, precision) for _ in range(REPEATS))


def one_unit(network: Network, precision: devices.Precision) -> float:
    """Seconds of a single pass."""
    return IMAGES * devices.step_seconds(network, precision, IMAGES)


def precision_named(name: str) -> devices.Precision:
    """The precision that result.json calls "bf16 channels-last", or the like."""
    dtype, _, layout = name.partition(" ")
    return devices.Precision(devices.DTYPES[dtype], layout != "channels-first")

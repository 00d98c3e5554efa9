"""Weights to integers: scales by search, rounding by one of several methods, statistics of a layer's inputs."""

from zeroq.rounding.filters import violating_pairs
from zeroq.rounding.layers import Rounded, round_weights
from zeroq.rounding.methods import METHODS, round_weight
from zeroq.rounding.moments import ROWS_PER_IMAGE, MomentSum
from zeroq.rounding.reconstruction import Pace, reconstruct

__all__ = [
    "METHODS", "ROWS_PER_IMAGE", "MomentSum", "Pace", "Rounded", "reconstruct", "round_weight", "round_weights",
    "violating_pairs",
]  # fmt: skip

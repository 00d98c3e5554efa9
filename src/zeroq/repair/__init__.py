"""Repairs of a folded network: channels centred and scaled; without images equalized, biases absorbed or corrected."""

from zeroq.repair.absorption import absorb_high_biases
from zeroq.repair.bias import correct_biases
from zeroq.repair.centring import centre, middles
from zeroq.repair.equalization import equalize
from zeroq.repair.expectation import expected_values
from zeroq.repair.families import Family, families, scaled
from zeroq.repair.shifts import shiftable

__all__ = [
    "Family", "absorb_high_biases", "centre", "correct_biases", "equalize", "expected_values", "families", "middles",
    "scaled", "shiftable",
]  # fmt: skip

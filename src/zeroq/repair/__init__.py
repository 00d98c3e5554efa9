"""Repairs of a folded network that need no image: channels centred, equal ranges of channels, high biases absorbed,
biases corrected.
"""

from zeroq.repair.absorption import absorb_high_biases
from zeroq.repair.bias import correct_biases
from zeroq.repair.centring import centre
from zeroq.repair.equalization import equalize
from zeroq.repair.expectation import expected_values

__all__ = ["absorb_high_biases", "centre", "correct_biases", "equalize", "expected_values"]

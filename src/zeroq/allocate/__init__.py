"""Bits for each layer: the exact Pareto frontier of size and sensitivity, and the settings that keep what was asked."""

from zeroq.allocate.choose import Candidate, best_first, best_within, candidates
from zeroq.allocate.compromise import compromise, least_beside, totals
from zeroq.allocate.frontier import Frontier, Settings, pareto_frontier
from zeroq.allocate.limits import (
    GIGA,
    MEGABYTE,
    MILLISECOND,
    budget_in_activation_bits,
    budget_in_operations,
    budget_in_ticks,
    budget_in_weight_bits,
)
from zeroq.allocate.peak import least_peak, possible, within_peak

__all__ = [
    "GIGA", "MEGABYTE", "MILLISECOND", "Candidate", "Frontier", "Settings", "best_first", "best_within",
    "budget_in_activation_bits", "budget_in_operations", "budget_in_ticks", "budget_in_weight_bits", "candidates",
    "compromise", "least_beside", "least_peak", "pareto_frontier", "possible", "totals", "within_peak",
]  # fmt: skip

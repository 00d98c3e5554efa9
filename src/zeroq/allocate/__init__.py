"""Bits for each layer: the exact Pareto frontier of size and sensitivity, and the settings that answer a target."""

from zeroq.allocate.choose import Candidate, best_within, budget_in_weight_bits, candidates
from zeroq.allocate.frontier import Frontier, pareto_frontier

__all__ = ["Candidate", "Frontier", "best_within", "budget_in_weight_bits", "candidates", "pareto_frontier"]

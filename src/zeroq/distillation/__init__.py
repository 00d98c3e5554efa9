"""Images without data: their statistics match what the network's BatchNorms remember."""

from zeroq.distillation.doubts import Doubt, Trust, examine, few_batches, warnings_of
from zeroq.distillation.images import EFFORTS, Effort, can_match, distill
from zeroq.distillation.statistics import InputStatistic, natural_statistic

__all__ = [
    "EFFORTS",
    "Doubt",
    "Effort",
    "InputStatistic",
    "Trust",
    "can_match",
    "distill",
    "examine",
    "few_batches",
    "natural_statistic",
    "warnings_of",
]

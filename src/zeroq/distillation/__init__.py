"""Images without data: their statistics match what the network's BatchNorms remember."""

from zeroq.distillation.images import EFFORTS, Effort, can_match, distill
from zeroq.distillation.several import distill_several
from zeroq.distillation.statistics import InputStatistic, natural_statistic, neutral_statistic

__all__ = [
    "EFFORTS", "Effort", "InputStatistic", "can_match", "distill", "distill_several", "natural_statistic",
    "neutral_statistic",
]  # fmt: skip

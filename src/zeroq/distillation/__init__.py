"""Images without data: their statistics match what the network's BatchNorms remember, or its attention guides them."""

from zeroq.distillation.attention import find_attention
from zeroq.distillation.images import EFFORTS, Effort, distill, guide_of
from zeroq.distillation.several import distill_several
from zeroq.distillation.statistics import InputStatistic, natural_statistic, neutral_statistic

__all__ = [
    "EFFORTS", "Effort", "InputStatistic", "distill", "distill_several", "find_attention", "guide_of",
    "natural_statistic", "neutral_statistic",
]  # fmt: skip

"""Images without data: their statistics match what the network's BatchNorms remember, or its attention guides them."""

from zeroq.distillation.attention import find_attention
from zeroq.distillation.doubts import Doubt, Trust, examine, few_batches, warnings_of
from zeroq.distillation.images import BATCH_BYTES, distill, guide_of
from zeroq.distillation.neutral import neutral_statistic
from zeroq.distillation.several import distill_several
from zeroq.distillation.starts import starts
from zeroq.distillation.statistics import InputStatistic, natural_statistic
from zeroq.distillation.units import Units, units_of
from zeroq.distillation.variants import variants

__all__ = [
    "BATCH_BYTES",
    "Doubt",
    "InputStatistic",
    "Trust",
    "Units",
    "distill",
    "distill_several",
    "examine",
    "few_batches",
    "find_attention",
    "guide_of",
    "natural_statistic",
    "neutral_statistic",
    "starts",
    "units_of",
    "variants",
    "warnings_of",
]

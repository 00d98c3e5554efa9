"""What a network's output means, how far one answer is from another, and how often the two say the same."""

from zeroq.divergence.comparison import Comparison, places_of
from zeroq.divergence.meaning import TASKS, Decode, Divergence, Meaning, guess_task
from zeroq.divergence.scores import agreement, kl_divergence, same_class

__all__ = [
    "TASKS",
    "Comparison",
    "Decode",
    "Divergence",
    "Meaning",
    "agreement",
    "guess_task",
    "kl_divergence",
    "places_of",
    "same_class",
]

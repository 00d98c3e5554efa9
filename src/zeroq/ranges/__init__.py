"""Activation ranges: a streaming histogram of each value, and a search over it."""

from zeroq.ranges.histogram import Histogram, merge
from zeroq.ranges.observe import observe
from zeroq.ranges.search import range_of

__all__ = ["Histogram", "merge", "observe", "range_of"]

"""Activation ranges: a streaming histogram of each value, and a search over it."""

from zeroq.ranges.histogram import Histogram, merge
from zeroq.ranges.knowledge import Knowledge, knowledge_of, site_of
from zeroq.ranges.observe import at_widths, histograms_of, observe, ranges_of
from zeroq.ranges.search import range_of

__all__ = [
    "Histogram",
    "Knowledge",
    "at_widths",
    "histograms_of",
    "knowledge_of",
    "merge",
    "observe",
    "range_of",
    "ranges_of",
    "site_of",
]

"""The report of a run: one self-contained page made from what the run directory holds."""

from zeroq.report.page import render
from zeroq.report.record import RunRecord

__all__ = ["RunRecord", "render"]

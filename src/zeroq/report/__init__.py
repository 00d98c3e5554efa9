"""The report of a run, and the summary of many: self-contained pages made from what was stored."""

from zeroq.report.page import render
from zeroq.report.record import RunRecord
from zeroq.report.summary import render_summary

__all__ = ["RunRecord", "render", "render_summary"]

"""Slow and obvious twins of the fast code."""

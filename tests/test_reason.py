"""Errors of others in one of our sentences."""

from __future__ import annotations

from zeroq.reason import reason


def test_reasons_are_cut_to_one_short_sentence() -> None:
    assert reason(ValueError("One.\n  Two. Three.")) == "ValueError: One"
    assert reason(ValueError()) == "ValueError"
    assert len(reason(ValueError("word " * 100))) < 180

"""Errors of others, cut to what a sentence of ours can hold."""

from __future__ import annotations

LONGEST = 160  # characters; what torch and requests say goes on for paragraphs


def reason(error: BaseException) -> str:
    """Type and first sentence of an error's message, without its full stop."""
    text = " ".join(str(error).split())
    first = text.partition(". ")[0].rstrip(".:")
    if len(first) > LONGEST:
        first = first[:LONGEST].rsplit(" ", 1)[0] + " ..."
    return f"{type(error).__name__}: {first}" if first else type(error).__name__

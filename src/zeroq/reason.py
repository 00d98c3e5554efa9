"""Errors of others, cut to what a sentence of ours can hold."""

from __future__ import annotations

import errno

LONGEST = 160  # characters; what torch and requests say goes on for paragraphs
UNREACHABLE = (errno.EACCES, errno.EPERM, errno.ELOOP, errno.EIO)  # paths that are there, or may be


def reason(error: BaseException) -> str:
    """Type and first sentence of an error's message, without its full stop."""
    text = " ".join(str(error).split())
    first = text.partition(". ")[0].rstrip(".:")
    if len(first) > LONGEST:
        first = first[:LONGEST].rsplit(" ", 1)[0] + " ..."
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def of_path(error: BaseException) -> str | None:
    """A sentence for a path that the system does not let be reached, wherever it was given; None for other errors."""
    if not isinstance(error, OSError) or error.filename is None:
        return None
    if error.errno == errno.ENAMETOOLONG:
        return f"{error.filename} cannot be a path, as a name in it is too long: shorten it."
    if error.errno in UNREACHABLE:
        return f"{error.filename} cannot be reached ({error.strerror}): check the path and who may read it."
    return None

"""Errors of others in one of our sentences."""

from __future__ import annotations

import errno

from zeroq.reason import of_path, reason


def test_reasons_are_cut_to_one_short_sentence() -> None:
    assert reason(ValueError("One.\n  Two. Three.")) == "ValueError: One"
    assert reason(ValueError()) == "ValueError"
    assert len(reason(ValueError("word " * 100))) < 180


def test_paths_that_cannot_be_reached_are_said_of_whatever_opened_them() -> None:
    denied = PermissionError(errno.EACCES, "Permission denied", "locked/net.py")
    assert of_path(denied) == "locked/net.py cannot be reached (Permission denied): check the path and who may read it."
    assert of_path(OSError(errno.ENAMETOOLONG, "", "x" * 300)).endswith("is too long: shorten it.")  # type: ignore[union-attr]
    for other in (OSError(errno.EACCES, "Permission denied"), FileNotFoundError(errno.ENOENT, "", "x"), ValueError()):
        assert of_path(other) is None

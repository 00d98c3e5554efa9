"""How commands end where the system, not zeroq, has something to say."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize("closed", [False, True])
def test_standard_output_that_takes_nothing_is_no_defect(closed: bool) -> None:
    """A disk that is full, and an output that is not there."""
    command = f"{sys.executable} -m zeroq models {'>&-' if closed else '>/dev/full'}"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    said = "zeroq: Standard output cannot be written (No space left on device): free some space, or write it elsewhere."
    assert (done.returncode, done.stderr.strip()) == ((0, "") if closed else (2, said))

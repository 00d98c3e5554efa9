"""How a command ends: its exit code, and the sentence on standard error."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Sequence

import click

from zeroq.reason import of_path


def end(exit_code: int, why: str) -> int:
    """Say why a command ends, a defect with its place, all else in a sentence; give the exit code.

    Of processes that torchrun has started, the first to come here speaks, and the others end with its exit code.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        import zeroq.ranks as ranks

        if (said := ranks.said_before(exit_code)) is not None:
            return said
    click.echo(why if exit_code == 1 else f"zeroq: {' '.join(why.split())}", err=True, nl=exit_code != 1)
    return exit_code


def by_system(error: Exception) -> int:
    """The end by an error that none of ours has foreseen: 2 where the system says what a person can change, else 1."""
    if isinstance(error, OSError) and error.errno == errno.ENOSPC and error.filename is None:
        silence()
        return end(2, f"Standard output cannot be written ({error.strerror}): free some space, or write it elsewhere.")
    return end(2, said) if (said := of_path(error)) else end(1, traceback.format_exc())


def silence() -> None:
    """Let nothing more be written to standard output, which takes nothing, also when Python ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def usage_sentence(error: click.ClickException, command: Sequence[str]) -> str:
    """What the parser says, in one sentence: with the name that was likely meant, or the command that lists them."""
    message = error.format_message().rstrip(".")
    if message.endswith("?"):
        return message.replace(". Did you mean", ", did you mean")
    return f"{message}; {' '.join(['zeroq', *command])} --help says what can be given."

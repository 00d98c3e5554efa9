"""How the values of options are written on the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

FILE = click.Path(path_type=Path)


def numbers(kind: type, example: str) -> Callable[[str | tuple[Any, ...]], tuple[Any, ...]]:
    """A type of option: numbers with commas between them."""

    def parse(text: str | tuple[Any, ...]) -> tuple[Any, ...]:
        if isinstance(text, tuple):  # a default, or a value that was parsed already
            return text
        try:
            return tuple(kind(part) for part in text.split(","))
        except ValueError:
            raise click.BadParameter(f"{text!r} is not written like {example}") from None

    return parse


def edge_bits(text: str | int) -> str | int:
    """A number, or a word that the options know."""
    return int(text) if str(text).isdecimal() else text


def one_or_more_bits(text: str | int | tuple[int, ...]) -> int | tuple[int, ...]:
    """One width as a number, several as they are."""
    widths = (text,) if isinstance(text, int) else numbers(int, "8")(text)
    return widths[0] if len(widths) == 1 else widths

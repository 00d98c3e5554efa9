"""Files that are there whole or not at all, and the JSON in them."""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from zeroq.errors import RunError

ELSEWHERE = "name another directory with --out"
LIST_OF_NUMBERS = re.compile(r'\[\n\s*([^\[\]{}"]*?)\n\s*\]')


def make_folder(path: Path, otherwise: str = ELSEWHERE) -> None:
    """A folder, with those above it, unless it is there. Raises RunError that ends with `otherwise`."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(why_not(path, error, otherwise)) from error


@contextmanager
def whole(path: Path, folder: int | None = None, otherwise: str = ELSEWHERE) -> Iterator[Path]:
    """A path beside another to write to; once that is done, the file is put in its place. Raises RunError that ends
    with `otherwise`.

    folder: descriptor of the open directory, which is synced as well.
    """
    written = partial(path)
    try:
        yield written
        with open(written, "rb") as file:
            os.fsync(file.fileno())
        os.replace(written, path)
        if folder is not None:
            os.fsync(folder)  # the rename itself
    except OSError as error:
        raise RunError(why_not(path.parent, error, otherwise)) from error
    finally:
        with suppress(OSError):
            written.unlink(missing_ok=True)


def partial(path: Path) -> Path:
    """Where a file is until it is whole."""
    return path.with_name(f".{path.name}.partial")


def write_whole(path: Path, data: bytes, otherwise: str = ELSEWHERE) -> None:
    """A file that is there whole or not at all. Raises RunError that ends with `otherwise`."""
    with whole(path, otherwise=otherwise) as written:
        written.write_bytes(data)


def json_bytes(value: Any) -> bytes:
    """Indented JSON in the order given; a list of numbers stays on one line. NaN and infinity are refused."""
    text = json.dumps(value, indent=2, allow_nan=False)
    return (LIST_OF_NUMBERS.sub(lambda found: f"[{' '.join(found[1].split())}]", text) + "\n").encode()


def read_json(path: Path) -> Any:
    """The value of a run's JSON file. Raises RunError for what is none."""
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise RunError(f"{path} cannot be read ({error.strerror or error}): quantize again.") from error
    except ValueError as error:
        raise RunError(f"{path} is damaged ({error}): quantize again.") from error


def read_object(path: Path) -> dict[str, Any]:
    """The same of a file that holds an object. Raises RunError for another."""
    value = read_json(path)
    if not isinstance(value, dict):
        raise RunError(f"{path} is damaged (a {type(value).__name__} in place of an object): quantize again.")
    return value


def why_not(path: Path, error: OSError, otherwise: str = ELSEWHERE) -> str:
    """What a person reads where a file cannot be written, and what to do."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"The disk of {path} is full: free some space or {otherwise}; what is finished is kept."
    return f"{path} cannot be written ({error.strerror or error}): {otherwise}."

"""Arrays of an npz file, read block by block, so that a large file never is in memory as a whole."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from zeroq.errors import DataError

HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
# RuntimeError: an encrypted member; NotImplementedError: a compression that this Python lacks.
DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, RuntimeError, NotImplementedError)


@dataclass(frozen=True)
class Member:
    """One array of an npz file, of which only the header was read."""

    path: Path
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def blocks(self, rows: int) -> Iterator[NDArray[Any]]:
        """The array in blocks of at most `rows` along its first axis. Raises DataError where the file is damaged."""
        with _damage_named(self.path), _open(self.path, self.name) as stream:
            _read_header(stream)
            for first in range(0, self.shape[0], rows):
                shape = (min(rows, self.shape[0] - first), *self.shape[1:])
                wanted = int(np.prod(shape)) * self.dtype.itemsize
                data = stream.read(wanted)
                if len(data) < wanted:
                    raise EOFError(f"{self.name} ends early")
                yield np.frombuffer(data, self.dtype).reshape(shape)

    def whole(self) -> NDArray[Any]:
        """The array at once, for a small one."""
        return np.concatenate([np.zeros((0, *self.shape[1:]), self.dtype), *self.blocks(rows=2**16)])


def open_member(path: Path, name: str) -> Member:
    """The array of that name. Raises DataError where it is missing, or holds objects: nothing is ever unpickled."""
    with _damage_named(path):
        with zipfile.ZipFile(path) as archive:
            members = archive.namelist()
        if f"{name}.npy" not in members:
            names = [member.removesuffix(".npy") for member in members if member.endswith(".npy")]
            raise DataError(f"{path} holds {', '.join(names) or 'no array'}: it must hold {name!r}.")
        with _open(path, name) as stream:
            shape, fortran, dtype = _read_header(stream)
    if dtype.hasobject:
        raise DataError(f"{path} holds {name!r} as Python objects: save it as numbers.")
    if fortran and len(shape) > 1:
        raise DataError(f"{path} holds {name!r} in Fortran's order: save numpy.ascontiguousarray of it.")
    return Member(path, name, shape, dtype)


@contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    try:
        yield
    except DAMAGE as error:
        raise DataError(f"{path} is damaged or no npz file ({error}): save it again with numpy.savez.") from error


@contextmanager
def _open(path: Path, name: str) -> Iterator[IO[bytes]]:
    with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as stream:
        yield stream


def _read_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether in Fortran's order, and type; the stream then stands at the first value."""
    version = npy.read_magic(stream)
    if version not in HEADERS:
        raise ValueError(f"array format {version} is unknown")
    return HEADERS[version](stream)

"""Live values of many images, chunk by chunk: the first chunks in memory, the others in files without a name."""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from zeroq.errors import RunError


@dataclass(frozen=True)
class Room:
    """How many images' values are computed at a time, how many such chunks are kept in memory, and where the others."""

    chunk: int = 8
    kept: int | None = None  # None: all chunks
    folder: Path | None = None  # on whose disk the others lie; None: the system's folder for temporary files


IN_MEMORY = Room()


class LiveValues(Sequence[dict[str, Any]]):
    """A list of dictionaries of tensors, each read and set as a whole; those behind the first `room.kept` are on disk.

    What is read is what was set, to the last bit, strides included, but may be a copy: change a value by setting its
    dictionary. The system removes the files with the process, however that ends.
    """

    def __init__(self, values: Iterable[Mapping[str, Any]], room: Room = IN_MEMORY) -> None:
        self.room = room
        self.chunks: list[dict[str, Any] | File] = []
        for index, value in enumerate(values):
            self.chunks.append({} if room.kept is None or index < room.kept else File(room.folder))
            self[index] = value

    def __len__(self) -> int:
        return len(self.chunks)

    def __getitem__(self, index: Any) -> Any:
        chunk = self.chunks[index]
        return chunk.read() if isinstance(chunk, File) else chunk

    def __setitem__(self, index: int, value: Mapping[str, Any]) -> None:
        chunk = self.chunks[index]
        if isinstance(chunk, File):
            chunk.write(value)
        else:
            self.chunks[index] = dict(value)


class File:
    """One dictionary of tensors on disk."""

    def __init__(self, folder: Path | None) -> None:
        self.form: pytree.TreeSpec | None = None
        self.leaves: list[Any] = []  # of a tensor what it is like
        self.folder = folder
        try:
            self.file = cast(BinaryIO, tempfile.TemporaryFile(dir=folder, buffering=0))  # noqa: SIM115 (lives as we do)
        except OSError as error:
            raise self.refusal(error) from error
        weakref.finalize(self, self.file.close)

    def write(self, value: Mapping[str, Any]) -> None:
        """Put a dictionary in the place of the last. Raises RunError where the disk is full."""
        leaves, self.form = pytree.tree_flatten(dict(value))
        try:
            self.file.seek(0)
            self.leaves = [self.written(leaf) if isinstance(leaf, Tensor) else leaf for leaf in leaves]
            self.file.truncate()
        except OSError as error:
            raise self.refusal(error) from error

    def written(self, tensor: Tensor) -> Stored:
        """Write what lies between a tensor's first and last number."""
        span = 1 + sum((size - 1) * step for size, step in zip(tensor.shape, tensor.stride(), strict=True))
        count = span if tensor.numel() else 0
        numbers = torch.as_strided(tensor, (count,), (1,), tensor.storage_offset())
        left = memoryview(numbers.view(torch.uint8).numpy())  # type: ignore[arg-type]
        while left:
            left = left[self.file.write(left) :]
        return Stored(tensor.dtype, count, tuple(tensor.shape), tensor.stride())

    def read(self) -> dict[str, Any]:
        """The dictionary, its tensors new in memory."""
        assert self.form is not None, "nothing was written"
        self.file.seek(0)
        leaves = [self.of(leaf) if isinstance(leaf, Stored) else leaf for leaf in self.leaves]
        return cast(dict[str, Any], pytree.tree_unflatten(leaves, self.form))

    def of(self, stored: Stored) -> Tensor:
        """The next tensor of the file."""
        numbers = torch.empty(stored.count, dtype=stored.dtype)
        left = memoryview(numbers.view(torch.uint8).numpy())  # type: ignore[arg-type]
        while left:
            read = self.file.readinto(left)  # type: ignore[attr-defined]
            assert read, "a file without a name is changed by nobody else"
            left = left[read:]
        return torch.as_strided(numbers, stored.shape, stored.stride)

    def refusal(self, error: OSError) -> RunError:
        """The disk does not take what --memory-limit leaves no room for."""
        where = self.folder or tempfile.gettempdir()
        return RunError(
            f"{where} cannot hold the values that --memory-limit leaves no room for ({error.strerror or error}): "
            "free some space there, or raise the limit."
        )


@dataclass(frozen=True)
class Stored:
    """A tensor that lies in a file."""

    dtype: torch.dtype
    count: int  # of numbers from the first to the last
    shape: tuple[int, ...]
    stride: tuple[int, ...]

"""What processes find in memory that they share; the processes are threads."""

from __future__ import annotations

import os

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some
from torch import Tensor

from tests.threads import Thread, together
from zeroq.shared_memory import Box, SharedMemory

SHAPES = some.lists(some.integers(0, 70), min_size=1, max_size=2)


def opened(thread: Thread) -> SharedMemory | None:
    return SharedMemory.opened(thread.rank, thread.swapped)


def received_of(sent: list[list[list[Tensor]]], rank: int) -> list[list[Tensor]]:
    """Of each group, what every process has for one."""
    return [[pieces[rank] for pieces in group] for group in zip(*sent, strict=True)]


@settings(max_examples=30, deadline=None)
@given(some.data(), some.integers(2, 4), some.sampled_from([torch.float32, torch.bfloat16, torch.uint8]))
def test_each_receives_what_all_have_for_it(data: some.DataObject, size: int, dtype: torch.dtype) -> None:
    """One exchange after another, of groups of pieces that become larger and smaller."""
    counts = data.draw(some.lists(some.integers(1, 3), min_size=1, max_size=4))
    exchanges = [  # each by process and group, with a piece for each process
        [
            [[torch.randint(0, 100, data.draw(SHAPES)).to(dtype).t() for _ in range(size)] for _ in range(count)]
            for _ in range(size)
        ]
        for count in counts
    ]

    def of(thread: Thread) -> list[list[Tensor]]:
        memory = opened(thread)
        assert memory is not None
        received = []
        for sent in exchanges:
            lengths = [[piece.numel() for piece in pieces] for pieces in received_of(sent, thread.rank)]
            received.append(list(memory.exchanged(sent[thread.rank], lengths, thread.swapped)))
        thread.swapped(None)  # until all have theirs
        for file in memory.files:
            os.close(file)
        return received

    for rank, found in enumerate(together(size, of)):
        for received, sent in zip(found, exchanges, strict=True):
            for each, pieces in zip(received, received_of(sent, rank), strict=True):
                assert each.dtype == dtype
                assert torch.equal(each, torch.cat([piece.flatten() for piece in pieces]))


@pytest.mark.parametrize("error", [AttributeError, OSError])
def test_none_shares_memory_where_the_system_has_no_such_files(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(name: str) -> int:
        raise error(name)

    monkeypatch.setattr(os, "memfd_create", fails)
    assert together(2, opened) == [None, None]


def test_none_shares_memory_where_one_sees_other_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a process on another machine does."""

    def misled(thread: Thread) -> SharedMemory | None:
        def told(own: object) -> list[object]:
            found = thread.swapped(own)
            seen_elsewhere = thread.rank == 1 and isinstance(own, tuple)
            return [(b"another mark 012", paths) for _, paths in found] if seen_elsewhere else found

        return SharedMemory.opened(thread.rank, told)

    assert together(2, misled) == [None, None]


def test_a_file_that_is_not_there_is_not_made() -> None:
    with pytest.raises(FileNotFoundError):
        Box.seen("/proc/0/fd/0", b"mark")

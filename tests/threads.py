"""Threads in the place of processes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


@dataclass(frozen=True)
class Thread:
    """One of several, with what a Share asks of its Ranks."""

    rank: int
    size: int
    barrier: threading.Barrier
    post: dict[int, Any]

    def swapped(self, sent: Any) -> list[Any]:
        """What all have sent."""
        self.post[self.rank] = sent
        self.barrier.wait(timeout=30)
        found = [self.post[rank] for rank in range(self.size)]
        self.barrier.wait(timeout=30)
        return found

    def exchanged(self, pieces: Sequence[Tensor], lengths: Sequence[int]) -> Tensor:
        received = [each[self.rank].flatten() for each in self.swapped(list(pieces))]
        assert [len(each) for each in received] == list(lengths)
        return torch.cat(received)

    def gathered(self, items: list[Any]) -> list[Any]:
        return [each[0] for each in self.swapped(items)]


def together(size: int, function: Callable[[Thread], T]) -> list[T]:
    """A function in each of so many threads at once."""
    barrier, post = threading.Barrier(size), dict[int, Any]()
    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(function, [Thread(rank, size, barrier, post) for rank in range(size)]))

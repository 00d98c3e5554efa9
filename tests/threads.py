"""Threads in the place of processes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
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
    met: list[Any] = field(default_factory=list)  # what it sent, each time that all met

    def swapped(self, sent: Any) -> list[Any]:
        """What all have sent."""
        self.met.append(sent)
        self.post[self.rank] = sent
        self.barrier.wait(timeout=30)
        found = [self.post[rank] for rank in range(self.size)]
        self.barrier.wait(timeout=30)
        return found

    def exchanged(self, groups: Sequence[Sequence[Tensor]], lengths: Sequence[Sequence[int]]) -> Iterator[Tensor]:
        sent = self.swapped(groups)
        for index, counts in enumerate(lengths):
            received = [each[index][self.rank].flatten() for each in sent]
            assert [len(each) for each in received] == list(counts)
            yield torch.cat(received)

    def counted(self, own: list[int]) -> list[list[int]]:
        return self.swapped(own)

    def gathered(self, items: list[Any]) -> list[Any]:
        return [each[0] for each in self.swapped(items)]


def together(size: int, function: Callable[[Thread], T]) -> list[T]:
    """A function in each of so many threads at once."""
    barrier, post = threading.Barrier(size), dict[int, Any]()
    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(function, [Thread(rank, size, barrier, post) for rank in range(size)]))

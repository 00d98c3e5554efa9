"""The processes that torchrun starts, each of a rank: what is shared out among them, and what they tell one another."""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch.distributed as distributed

PATIENCE = datetime.timedelta(days=7)  # until one waits no longer for the others, whose share may take long
T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """One process among several; alone, if nothing else is said."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this is the one that writes and prints what all have found."""
        return self.rank == 0

    def own(self, items: Sequence[T]) -> Sequence[T]:
        """This process's share: every item of all belongs to exactly one."""
        return items[self.rank :: self.size]

    def gathered(self, items: Sequence[T]) -> list[T]:
        """What all have made of their shares, in the order of what was shared out; every process is to ask."""
        if self.size == 1:
            return list(items)
        shares: list[list[T]] = [[] for _ in range(self.size)]
        distributed.all_gather_object(shares, list(items))
        count = sum(map(len, shares))
        return [shares[index % self.size][index // self.size] for index in range(count)]


ALONE = Ranks()


def count() -> int:
    """Number of processes that torchrun has started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


@contextmanager
def started() -> Iterator[Ranks]:
    """This process among those that torchrun has started; when one dies, torchrun ends the others."""
    if count() == 1:
        yield ALONE
        return
    distributed.init_process_group("gloo", timeout=PATIENCE)
    try:
        yield Ranks(distributed.get_rank(), distributed.get_world_size())
    finally:
        distributed.destroy_process_group()

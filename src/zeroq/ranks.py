"""The processes that torchrun starts, each of a rank: what is shared out among them, and what they tell one another.

Nothing else knows of torch.distributed. Every process runs the same program and comes to the same calls in the same
order: to methods of `Ranks` that say so, all of them must come.
"""

from __future__ import annotations

import datetime
import io
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar, cast

import torch
import torch.distributed as distributed
from torch import Tensor

from zeroq.shared_memory import SharedMemory

PATIENCE = datetime.timedelta(days=7)  # until one waits no longer for the others, whose share may take long
STORE_PATIENCE = datetime.timedelta(seconds=10)  # until nothing is heard of torchrun itself
SUMMONS = "compute together"  # in place of a value
CPU = torch.device("cpu")  # what processes exchange goes by way of it
S = TypeVar("S")
T = TypeVar("T")


class Deserted(KeyboardInterrupt):
    """Another process has ended before its share was done, and with it the run."""

    def __init__(self) -> None:
        super().__init__(
            "Another process of this run has ended: the same command again goes on where this one stopped."
        )


@dataclass(frozen=True)
class Ranks:
    """One process among several; alone, if nothing else is said."""

    rank: int = 0
    size: int = 1
    device: torch.device = CPU  # that the tensors of others are put on
    memory: SharedMemory | None = None  # that they have in common, where they have

    @property
    def leads(self) -> bool:
        """Whether this is the one that writes and prints what all have found."""
        return self.rank == 0

    def own(self, items: Sequence[T]) -> Sequence[T]:
        """This process's share: every item of all belongs to exactly one."""
        return items[self.rank :: self.size]

    def fair(self, costs: Mapping[str, float]) -> frozenset[str]:
        """This process's share of what costs unlike much: the dearest first, each to who has least so far."""
        shares: list[set[str]] = [set() for _ in range(self.size)]
        loads = [0.0] * self.size
        for name in sorted(costs, key=costs.__getitem__, reverse=True):
            least = loads.index(min(loads))
            shares[least].add(name)
            loads[least] += costs[name]
        return frozenset(shares[self.rank])

    def gathered(self, items: Sequence[T]) -> list[T]:
        """What all have made of their shares, in the order of what was shared out; every process is to ask."""
        if self.size == 1:
            return list(items)
        shares: list[list[T]] = [[] for _ in range(self.size)]
        with peers():
            if self.device == CPU:
                distributed.all_gather_object(shares, list(items))
            else:
                boxes = [b""] * self.size
                distributed.all_gather_object(boxes, packed(items))
                shares = [unpacked(box, self.device) for box in boxes]
        count = sum(map(len, shares))
        return [shares[index % self.size][index // self.size] for index in range(count)]

    def merged(self, found: Mapping[str, T]) -> dict[str, T]:
        """What all have found of their shares, by name; every process is to ask."""
        return {name: each for part in self.gathered([found]) for name, each in part.items()}

    def mapped(
        self, function: Callable[[S], T], items: Sequence[S], on_step: Callable[[int, int], None] | None = None
    ) -> list[T]:
        """A function of every item, each computed by one process and known to all; every process is to ask.

        on_step: (done, total) of the own share.
        """
        own, found = self.own(items), []
        for done, item in enumerate(own):
            found.append(function(item))
            if on_step is not None:
                on_step(done + 1, len(own))
        return self.gathered(found)

    def led(self, lead: Callable[[Callable[[], S]], T], together: Callable[[], S] = lambda: cast(Any, None)) -> T:
        """What `lead` gives, which the leading process alone calls; every process is to ask.

        lead is handed a function of no arguments: where it calls that, all processes run `together`.
        """
        if self.size == 1:
            return lead(together)
        if self.leads:

            def summoning() -> S:
                self.told(SUMMONS)
                return together()

            return cast(T, self.told((lead(summoning),))[0])
        while (found := self.told(None)) == SUMMONS:
            together()
        return cast(T, found[0])

    def told(self, value: Any) -> Any:
        """The leading process's value, in every process."""
        box = [value]
        with peers():
            distributed.broadcast_object_list(box)
        return box[0]

    def leader_first(self, function: Callable[[], T]) -> T:
        """What a function gives in each process; the others call it once the leading one has, as it may download."""
        found = [function()] if self.leads else []
        self.gathered([])
        return found[0] if found else function()

    def exchanged(self, groups: Sequence[Sequence[Tensor]], lengths: Sequence[Sequence[int]]) -> Iterator[Tensor]:
        """Send each process its piece of each group, and receive what all have for this one, in their order.

        Every process is to ask, and to take all groups before it asks again.
        groups: pieces for each process, tensors of one type and of any shape; what is received is flat, and comes one
        group after another.  lengths: of what comes from each process, for each group.
        """
        if self.memory is None:
            return map(self.sent, groups, lengths)
        received = self.memory.exchanged(groups, lengths, self.counted)
        return (each.to(pieces[0].device) for pieces, each in zip(groups, received, strict=True))

    def sent(self, pieces: Sequence[Tensor], lengths: Sequence[int]) -> Tensor:
        """A group, over connections."""
        counts, size = [piece.numel() for piece in pieces], pieces[0].element_size()
        sent, received = (pieces[0].new_empty(sum(each), device=CPU) for each in (counts, lengths))
        for place, piece in zip(sent.split(counts), pieces, strict=True):
            place.view(piece.shape).copy_(piece)
        with peers():
            distributed.all_to_all_single(
                received.view(torch.uint8), sent.view(torch.uint8),  # of whatever type, as gloo knows few
                [size * length for length in lengths], [size * count for count in counts],
            )  # fmt: skip
        return received.to(pieces[0].device)

    def counted(self, own: list[int]) -> list[list[int]]:
        """As many whole numbers of each process; every process is to ask."""
        found = [torch.empty(len(own), dtype=torch.int64) for _ in range(self.size)]
        with peers():
            distributed.all_gather(found, torch.tensor(own))
        return [each.tolist() for each in found]


ALONE = Ranks()


def packed(items: Sequence[Any]) -> bytes:
    """Values with tensors of any device."""
    box = io.BytesIO()
    torch.save(list(items), box)
    return box.getvalue()


def unpacked(box: bytes, device: torch.device) -> list[Any]:
    """The same with all tensors on a device."""
    return cast(list[Any], torch.load(io.BytesIO(box), map_location=device, weights_only=False))


def place() -> int:
    """Which of the processes on this machine this one is, from 0 on."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def count() -> int:
    """Number of processes that torchrun has started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


@contextmanager
def started() -> Iterator[Ranks]:
    """This process among those that torchrun has started, which ends all when one dies.

    A process that fails keeps its connections until it has ended, so that none of the others speaks first.
    Raises Deserted where another one ends.
    """
    if count() == 1:
        yield ALONE
        return
    before = signal.signal(signal.SIGTERM, desert)
    try:
        # Which capture would import: its functions keep, as a default, the group that there is when they are defined,
        # and threads of a group that outlives `destroy_process_group` abort the process where Python ends before them.
        import torch.distributed.nn  # noqa: F401

        distributed.init_process_group("gloo", timeout=PATIENCE)
        ranks = Ranks(distributed.get_rank(), distributed.get_world_size())
        yield replace(ranks, memory=SharedMemory.opened(ranks.rank, lambda own: ranks.gathered([own])))
        distributed.destroy_process_group()
    except BaseException:
        before = signal.SIG_IGN  # this one ends by itself, with an exit code of its own
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def desert(*_: object) -> None:
    """torchrun's way to say that another process has ended."""
    raise Deserted


@contextmanager
def peers() -> Iterator[None]:
    """Raise Deserted where a connection to another process is lost."""
    try:
        yield
    except RuntimeError as error:
        raise Deserted from error


def said_before(exit_code: int) -> int | None:
    """The exit code of the process that was first to say why all end; None where this is the first, and is to say it.

    exit_code: of this process.
    """
    if count() == 1:
        return None
    try:
        host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        store = distributed.TCPStore(host, port, is_master=False, timeout=STORE_PATIENCE)
        start = f"zeroq/{os.environ.get('TORCHELASTIC_RESTART_COUNT')}"
        if store.add(f"{start}/speakers", 1) > 1:
            return int(store.get(f"{start}/exit code"))
        store.set(f"{start}/exit code", str(exit_code))
    except (KeyError, RuntimeError):  # torchrun has gone, or was none
        pass
    return None

"""One batch of images, of which each process has a part.

Nothing is summed over processes, as a sum in another order has other last bits, and steps make much of them: moments
off by 1e-7 left ResNet20 (CIFAR-10, 24 steps) with pixels that differ by half a hundredth of their deviation in the
mean, in bf16 by two hundredths. Instead each process is sent all images' values of some channels, and finds of these
what one process alone would find: where operators give an image the same bits in a smaller batch, the images are the
same to the bit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from zeroq.ranks import ALONE, Ranks

VECTOR = 32  # channels that stay together where they lie side by side: as many as the widest register has of bf16


@dataclass(frozen=True)
class Share:
    """This process's part of a batch; all of it, if nothing else is said."""

    count: int = 0  # images of the whole batch
    ranks: Ranks = ALONE

    @classmethod
    def of(cls, count: int, ranks: Ranks) -> Share:
        """Of so many images; each process has all where they are too few for each to have one."""
        return cls(count, ranks if count >= ranks.size else ALONE)

    @property
    def parts(self) -> list[int]:
        """Images of each process, one behind the other."""
        return even(self.count, self.ranks.size)

    @property
    def alone(self) -> bool:
        """Whether this process has the whole batch."""
        return self.ranks.size == 1

    def own(self, batch: Tensor) -> Tensor:
        """This process's part of the whole batch [N, ...]."""
        return batch if self.alone else batch.split(self.parts)[self.ranks.rank]

    def whole(self, own: Tensor) -> Tensor:
        """The whole batch [N, ...] from all processes' parts, differentiable, each image by any part of it alone."""
        return own if self.alone else Whole.apply(own, self)

    def all(self, holds: bool) -> bool:
        """Whether something holds for every process's part."""
        return holds if self.alone else all(each == [1] for each in self.ranks.counted([int(holds)]))

    def own_channels(self, values: Sequence[Tensor]) -> Iterator[Tensor]:
        """Of each value all images' values of own channels, [N, own C, ...] in the same layout, from own images',
        [own N, C, ...]; to be taken one after another, before processes exchange anything else.
        """
        pieces, lasts = [], []
        for value in values:
            last = not value.is_contiguous() and value.movedim(1, -1).is_contiguous()
            split = value.split(self.channels(value), dim=1)
            pieces.append([piece.movedim(1, -1) if last else piece for piece in split])
            lasts.append(last)
        sizes = [each[self.ranks.rank][0].numel() for each in pieces]
        lengths = [[count * size for count in self.parts] for size in sizes]
        for own, last, received in zip(pieces, lasts, self.ranks.exchanged(pieces, lengths), strict=True):
            found = received.view(self.count, *own[self.ranks.rank].shape[1:])
            yield found.movedim(-1, 1) if last else found

    def all_channels(self, found: Sequence[Tensor], values: Sequence[Tensor]) -> Iterator[Tensor]:
        """What each process has found of its own channels of each value, [own C, n], of all of them, [C, n]."""
        width = found[0].shape[1]
        splits = [self.channels(value) for value in values]
        lengths = [width * sum(each) for each in zip(*splits, strict=True)]
        (received,) = self.ranks.exchanged([[torch.cat(list(found))] * self.ranks.size], [lengths])
        of_each = zip(*(
            part.view(-1, width).split(channels)
            for part, channels in zip(received.split(lengths), zip(*splits, strict=True), strict=True)
        ), strict=True)  # fmt: skip
        return map(torch.cat, of_each)

    def channels(self, value: Tensor) -> list[int]:
        """How many channels of a value [own N, C, ...] each process has, in their order.

        Where channels lie side by side, they are summed a register at a time, and what is left over in another way:
        so registers stay whole, and what is left over stays the last of them.
        """
        count = value.shape[1]
        apart = value.is_contiguous() and math.prod(value.shape[2:]) > 1
        unit = 1 if apart else VECTOR
        splits = [unit * units for units in even(max(count // unit, 1), self.ranks.size)]
        last = max(index for index, channels in enumerate(splits) if channels)
        splits[last] += count - sum(splits)
        return splits


WHOLE = Share()


class Whole(torch.autograd.Function):
    """A batch from all parts of it; of its gradient, the same in every process, each takes the own part's."""

    @staticmethod
    def forward(context: Any, own: Tensor, share: Share) -> Tensor:
        context.share, context.rows = share, len(own)
        each = len(own) // share.parts[share.ranks.rank]  # rows of an image, as of each head's or window's
        rest = own.shape[1:]
        lengths = [count * each * math.prod(rest) for count in share.parts]
        (received,) = share.ranks.exchanged([[own.detach()] * share.ranks.size], [lengths])
        return received.view(share.count * each, *rest)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        share: Share = context.share
        parts = share.parts
        each = context.rows // parts[share.ranks.rank]
        return gradients[0].split([count * each for count in parts])[share.ranks.rank], None


def even(count: int, parts: int) -> list[int]:
    """So many things in parts, as even as can be."""
    bounds = [count * index // parts for index in range(parts + 1)]
    return [end - start for start, end in zip(bounds, bounds[1:], strict=False)]

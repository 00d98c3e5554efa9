"""Which pictures are taken where not all of them are."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from benchmarks.halves import batches, spread
from zeroq.evaluate.data import LabelledData


def numbered(count: int) -> LabelledData:
    """Pictures that hold their place, in the order of their classes."""

    def read(batch: int) -> Iterator[Tensor]:
        yield from torch.arange(count).float().reshape(-1, 1, 1, 1).split(batch)

    return LabelledData(torch.arange(count), count, read)


@pytest.mark.parametrize(("count", "most"), [(450, 96), (96, 96), (5, 96), (1, 3), (200, 1)])
def test_some_pictures_stand_for_all_of_them(count: int, most: int) -> None:
    data = numbered(count)
    places = torch.cat(list(batches(data, spread(data, most)))).flatten()
    assert len(places) == min(count, most) and (places.diff() > 0).all()
    gaps = torch.cat([places, torch.tensor([float(count)])]).diff()
    assert places[0] == 0 and (gaps.max() <= count / len(places) + 1)

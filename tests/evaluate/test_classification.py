"""Top-1 and top-5."""

from __future__ import annotations

import pytest
import torch

from zeroq.errors import DataError, NumericalError
from zeroq.evaluate.classification import Hits, count_hits


def test_ranks_equal_an_obvious_count() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randint(0, 6, (200, 12), generator=generator).float()  # many ties, as quantized scores have
    labels = torch.randint(0, 12, (200,), generator=generator)
    first = five = 0
    for row, label in zip(scores.tolist(), labels.tolist(), strict=True):
        order = sorted(range(12), key=lambda index: (-row[index], index))
        first, five = first + (order[0] == label), five + (label in order[:5])
    assert count_hits(scores, labels).tolist() == [first, five]
    assert first == (scores.argmax(dim=1) == labels).sum()  # as agreement counts


def test_metrics_are_shares_over_batches() -> None:
    hits = Hits(5)
    hits.add(torch.eye(5), torch.arange(5))
    hits.add((torch.eye(5), torch.zeros(5, 2)), torch.tensor([1, 1, 2, 3, 4]))  # of several outputs the first
    assert hits.metrics() == {"top1": 0.9, "top5": 1.0, "standard_error": pytest.approx((0.9 * 0.1 / 10) ** 0.5)}


def test_scores_that_do_not_fit_are_refused() -> None:
    with pytest.raises(DataError, match=r"^The network gives \[2, 4\] for 2 images and the labels have 5 classes: "):
        Hits(5).add(torch.zeros(2, 4), torch.zeros(2, dtype=torch.int64))
    with pytest.raises(NumericalError, match="^The network gives scores that are NaN or infinite: its values overflow"):
        Hits(5).add(torch.full((2, 5), torch.inf), torch.zeros(2, dtype=torch.int64))

"""The page of memory: one row measured as all are, and shown with whether its limit was kept."""

from __future__ import annotations

import json
from typing import Any

import torch

from benchmarks import memory_row
from benchmarks.document import STAGES
from benchmarks.memory import Row, document
from benchmarks.published_networks import Built
from tests.networks import block, classifier
from zeroq.preprocessing import imagenet


def record(limit: float | None) -> dict[str, Any]:
    torch.manual_seed(0)
    built = Built(classifier(block(3, 4), block(4, 8)).eval(), imagenet((8, 8)), "classification")
    asked = {"images": 8, "iterations": 1, "threads": 1}
    found = memory_row.measure(built, "tiny", limit, asked)
    return json.loads(json.dumps({"iterations": 1, "error": None, "key": "other", **found}))  # type: ignore[no-any-return]


def test_a_row_is_measured_and_shown() -> None:
    row, found = Row("tiny", 8, 1000.0), record(1000.0)
    assert found["measured_mb"].keys() == found["predicted_mb"].keys() == set(STAGES)
    text = document([(row, found)], "code")
    assert "| tiny `stale` | 8 | 1000 |" in text and "| met | all | 3.00 |" in text
    assert f"{found['predicted_mb']['verify']:.0f} / {found['measured_mb']['verify']:.0f}" in text
    beyond = found | {"measured_mb": dict.fromkeys(STAGES, 2e6)}
    assert "**missed**" in document([(row, beyond)], "code")


def test_without_a_limit_nothing_is_predicted_and_failures_are_named() -> None:
    free = record(None)
    assert free["predicted_mb"] is None
    text = document([(Row("tiny", 8, None), free), (Row("other", 8, 1.0), {"error": "too long"})], "code")
    assert "| tiny `stale` | 8 | – | – |" in text and "- other-8-1: too long" in text

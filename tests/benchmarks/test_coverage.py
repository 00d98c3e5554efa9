"""A slice of docs/models.md is computed again, and the whole is what its results say."""

from __future__ import annotations

import pytest

from benchmarks import coverage
from benchmarks.process import read


@pytest.mark.parametrize("name", ["pytorchcv:resnet20_cifar10", "pytorchcv:mobilenetv2_wd4"])
def test_what_the_table_says_of_a_network_is_true(name: str) -> None:
    pytest.importorskip("pytorchcv.model_provider")
    found = coverage.covered(name)
    line = f"| {' | '.join(coverage.row(name, found))} |"
    assert line in coverage.DOCUMENT.read_text(encoding="utf-8").splitlines()
    assert found["largest_steps"] == 0 and found["layers"] > 20


def test_the_document_is_written_from_the_results() -> None:
    results = read(coverage.RESULTS)
    assert results is not None and coverage.DOCUMENT.read_text(encoding="utf-8") == coverage.document(results)


def test_a_network_that_cannot_be_quantized_says_why() -> None:
    assert coverage.row("timm:x", {"error": "It cannot be captured."}) == ["timm:x", "–", "–", "It cannot be captured."]

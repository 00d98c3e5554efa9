"""What is left of the error, on a tiny layer."""

from __future__ import annotations

import torch

from benchmarks import scales
from benchmarks.halves import CONFIRMATION, SELECTION
from benchmarks.process import write
from benchmarks.scales import DISTILLED, document, error, shares
from tests.rounding.test_gptq import correlated_hessian
from zeroq.numbers.grid import Grid


def test_the_error_is_the_sum_of_quadratic_forms() -> None:
    missed, hessian = torch.randn(2, 3, 4), correlated_hessian(2, 4, 0)
    expected = sum(float(row @ hessian[group] @ row) for group in range(2) for row in missed[group])
    assert abs(error(missed, hessian) - expected) < 1e-3 * abs(expected)


def test_less_is_left_on_the_images_that_weights_are_fitted_on() -> None:
    filters = torch.randn(1, 20, 30, generator=torch.Generator().manual_seed(0))
    hessians = {who: correlated_hessian(1, 30, seed) for seed, who in enumerate((DISTILLED, SELECTION))}
    found = shares(filters, Grid(2, signed=True), hessians)
    assert set(found) == {DISTILLED, SELECTION} and found[DISTILLED][1] < found[DISTILLED][0] < 0.97


def test_the_page_names_what_no_longer_holds(tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    values = {DISTILLED: [0.5, 0.4], SELECTION: [0.6, 0.5], CONFIRMATION: [0.7, 0.8]}
    left = {str(bits): {"others": values} for bits in scales.BITS}
    monkeypatch.setattr(scales, "RESULTS", tmp_path)
    write(tmp_path / "etinynet.json", {"network": "etinynet", "key": "old", "cpu": "A", "left": left})
    assert "| etinynet `stale` | others | 0.500; 0.400 | 0.600; 0.500 | 0.700; 0.800 |" in document()

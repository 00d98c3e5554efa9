"""Distorted statistics that leave the function as it is, corrupted pictures, and the pages made of results."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import nn

from benchmarks import distortion, domains
from benchmarks.corruptions import CORRUPTIONS, corrupted
from benchmarks.halves import CONFIRMATION, SELECTION
from benchmarks.measure import to_hex
from tests.networks import NETWORKS, example_of
from zeroq.models import load_model


def test_distortion_changes_statistics_and_not_the_function() -> None:
    module = load_model("digits").module
    before, images = copy.deepcopy(module), torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    count = distortion.distort(module, seed=1)
    with torch.no_grad():
        torch.testing.assert_close(module(images), before(images), rtol=1e-3, atol=1e-3)
    channels = changed = 0
    for old, new in zip(before.modules(), module.modules(), strict=True):
        if isinstance(old, nn.BatchNorm2d):
            factors = (new.running_var / old.running_var).log10().abs()  # type: ignore[union-attr, operator]
            assert factors.max() <= distortion.DECADES + 1e-3
            changed += int((factors > 1e-6).sum())
            channels += len(factors)
    assert changed == count and 0.05 * channels < count < 0.2 * channels


def test_a_seed_distorts_again_alike() -> None:
    first, again, other = (NETWORKS["residual"]() for _ in range(3))
    for module, seed in ((first, 0), (again, 0), (other, 1)):
        distortion.distort(module, seed)
    example = example_of("residual")
    assert all(torch.equal(a, b) for a, b in zip(first.buffers(), again.buffers(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first.buffers(), other.buffers(), strict=True))
    torch.testing.assert_close(first(example), other(example), rtol=1e-3, atol=1e-3)


def result(seed: int | None, right: int) -> dict[str, object]:
    correct = np.arange(400) < right
    half = {"images": 400, "float_top1": 300, "top1": right, "correct": to_hex(correct), "mean_divergence": 0.01}
    return {
        "network": "net", "seed": seed, "effort": "fast", "distorted_channels": 10, "left_out_channels": 7,
        "sets": {SELECTION: half, CONFIRMATION: half},
    }  # fmt: skip


def test_the_page_judges_by_the_interval() -> None:
    page = distortion.document([result(None, 300), result(0, 297), result(1, 200)])
    lines = [line for line in page.splitlines() if line.startswith("| net |")]
    assert [line.split(" | ")[1] for line in lines] == ["0", "1"]
    assert lines[0].endswith("| met |") and "-0.75 [" in lines[0]
    assert lines[0].count("| 0.0100, 0.0100 |") == 2
    assert lines[1].endswith("| **missed** |")
    assert "| net |" not in distortion.document([result(0, 297)])


def test_corruptions_are_graded() -> None:
    rows = np.linspace(20, 200, 16, dtype=np.uint8)
    pixels = np.stack([np.dstack([np.outer(rows, np.ones(16)), np.outer(np.ones(16), rows), rows * np.ones((16, 1))])])
    pixels = pixels.astype(np.uint8)
    pixels[:, ::2] //= 2
    for name in CORRUPTIONS:
        changes = [
            np.abs(corrupted(pixels, name, severity).astype(float) - pixels).mean() for severity in domains.SEVERITIES
        ]
        assert 0 < changes[0] < changes[1] < changes[2] < 80
        assert corrupted(pixels, name, 1).dtype == np.uint8 and corrupted(pixels, name, 1).shape == pixels.shape


def test_the_page_of_domains_has_shares_and_differences() -> None:
    right = {
        name: to_hex(np.arange(100) < count)
        for name, count in {"float": 40, "quantized": 39, "adapted": 70, "adapted_quantized": 68}.items()
    }
    case = {"images": 100, "measured_on": 90} | right
    page = domains.document([{"network": "net", "effort": "fast", "cases": {"noise 3": case}}])
    assert "| noise | 3 | 40.00 | 39.00 | 70.00 | 68.00 | +30.00 [" in page and "-2.00 [" in page
    assert "Measured on 90 pictures, reported on 100 others; effort fast." in page

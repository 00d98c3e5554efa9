"""Linear maps behind blocks: least squares, kept where they help on what they were not fitted to."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.linear_maps import Map, features, fitted, fitting, missed, repaired, run_with
from benchmarks.linear_repair import document, key
from tests.networks import NETWORKS, example_of
from tests.quantized import quantize
from zeroq.graph import chunks


def rows_of(shape: tuple[int, ...], out: int, stride: int = 1) -> list[tuple[Tensor, Tensor, Tensor]]:
    """What a linear map misses, exactly, of random values [N, C, H, W]."""
    generator = torch.Generator().manual_seed(0)
    source = torch.randn(4, *shape, generator=generator)
    matrix = torch.randn(out, shape[0], generator=generator)
    given = source[:, :, ::stride, ::stride]
    missing = torch.einsum("oc,nchw->nohw", matrix, given) + torch.arange(out).view(1, -1, 1, 1)
    return [(source, torch.zeros_like(missing), missing)]


@pytest.mark.parametrize("stride", [1, 2])
def test_what_is_linear_is_found(stride: int) -> None:
    rows = rows_of((3, 8, 8), 5, stride)
    own = fitted("start", "end", rows)
    assert missed(own, rows) < 1e-4 * missed(None, rows)
    torch.testing.assert_close(own.offset, torch.arange(5.0), rtol=0, atol=0.05)
    assert own.of(rows[0][0], rows[0][1]).shape == rows[0][2].shape


def test_tokens_are_rows_already() -> None:
    tokens = torch.randn(2, 5, 3)
    assert torch.equal(features(tokens, tokens), tokens)
    own = Map("start", "end", torch.eye(3), torch.ones(3))
    torch.testing.assert_close(own.of(tokens, tokens), tokens + 1)


@pytest.mark.parametrize(
    ("source", "value", "alike"),
    [
        ((2, 3, 8, 8), (2, 5, 4, 4), True),
        ((2, 3, 8, 8), (2, 5, 5, 5), False),
        ((2, 4, 3), (2, 4, 6), True),
        ((2, 3, 8, 8), (2, 5), False),
    ],
)
def test_positions_answer_to_each_other(source: tuple[int, ...], value: tuple[int, ...], alike: bool) -> None:
    assert fitting(torch.zeros(source), torch.zeros(value)) == alike


def test_maps_of_a_network_are_kept_where_they_help() -> None:
    images = torch.cat([example_of("residual", 16, seed=seed) for seed in range(4)])
    stages = quantize(NETWORKS["residual"](), images, weight_bits=2)
    with torch.inference_mode():
        maps, tried = repaired(stages.quantized, stages.folded, [*chunks(images, 8)])
        plain, better = (run_with(stages.quantized, each, images) for each in ({}, {own.end: own for own in maps}))
        wanted = stages.folded.run(images)
    assert 0 < len(maps) <= tried
    assert (better - wanted).square().sum() < (plain - wanted).square().sum()


def test_the_page() -> None:
    half = {"images": 200, "top1": 150, "divergence": 0.25}
    state = {"held_out": 0.5, "misfit": 0.75, "sets": {"selection": half, "confirmation": half}}
    record: dict[str, Any] = {
        "network": "vit_cifar10", "setting": "w4a4", "key": key("vit_cifar10", "w4a4"), "blocks": [3, 6],
        "parameters": 0.125, "before": state, "after": state, "cpu": "a processor",
    }  # fmt: skip
    line = "| 3 of 6 | 12 % | 0.500 to 0.500 | 0.750 to 0.750 | against | 0.250 to 0.250 | 75.00 to 75.00 |"
    assert f"| vit_cifar10 | W4A4 {line}" in document([record])
    assert f"| vit_cifar10 `stale` | W4A4 {line}" in document([record | {"key": ""}])

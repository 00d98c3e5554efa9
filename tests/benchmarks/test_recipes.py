"""Other recipes as whole networks, and the page that holds them beside ours."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from benchmarks import dfq, recipe
from benchmarks.plain import nearest_within_ends
from benchmarks.recipe_rows import DFQ, PAPER, PROGRAMS, RecipeRow, all_rows, recipe_code
from benchmarks.recipes import document
from benchmarks.rows import NETWORKS as CLASSIFIERS
from benchmarks.rows import W6A6, W8
from tests.benchmarks.test_without import result
from tests.networks import NETWORKS, example_of
from zeroq.distillation import InputStatistic
from zeroq.graph import Network, capture, fold
from zeroq.graph.network import RECTIFIERS
from zeroq.graph.normal import Normal, normal_values
from zeroq.rounding import violating_pairs

STATISTIC = InputStatistic((0.0,) * 3, (1.0,) * 3, (-4.0,) * 3, (4.0,) * 3)


def both(name: str) -> tuple[Network, Network]:
    captured = capture(NETWORKS[name](), example_of(name))
    return captured, fold(captured)


@pytest.mark.parametrize("name", ["plain", "residual", "relu6", "concatenate_and_shuffle", "norm_after_relu"])
def test_with_eight_bits_dfq_is_near_the_network(name: str) -> None:
    captured, folded = both(name)
    bits = {layer.name: 8 for layer in folded.layers}
    images = example_of(name, 32, seed=1)
    with torch.inference_mode():
        wanted = folded.run(images)
        found = dfq.quantized(captured, folded, STATISTIC, bits, bits)(images)
    assert (found - wanted).std() < 0.15 * wanted.std()


@pytest.mark.parametrize("name", ["plain", "residual", "relu6", "shared_head", "pooling"])
def test_with_eight_bits_the_papers_recipe_is_near_the_network(name: str) -> None:
    _, folded = both(name)
    bits, images = {layer.name: 8 for layer in folded.layers}, example_of(name, 16, seed=1)
    with torch.inference_mode():
        pairs: Any = folded.run(images), recipe.quantized(folded, images, bits, bits)(images)
    wanted, found = ((each,) if isinstance(each, torch.Tensor) else each for each in pairs)
    for one, other in zip(wanted, found, strict=True):
        assert (other - one).std() < 0.1 * one.std()


@pytest.mark.parametrize(("gain", "left"), [(1.0, 0), (4.0, 2)])
def test_ceilings_go_where_channels_hardly_reach_them(gain: float, left: int) -> None:
    captured, folded = both("relu6")
    normals = {
        name: Normal(each.mean, gain * torch.ones_like(each.deviation))
        for name, each in normal_values(captured).items()
    }  # fmt: skip
    without = dfq.without_ceilings(folded, normals)
    kinds = [node.target for node in without.graph.nodes if node.target in RECTIFIERS]
    assert kinds.count(torch.ops.aten.hardtanh.default) == left and len(kinds) == 2


@pytest.mark.parametrize("bits", [4, 8])
def test_scales_clip_nothing_and_pairs_do_not_saturate(bits: int) -> None:
    weight = torch.randn(6, 4, 3, 3, generator=torch.Generator().manual_seed(0)) + 1
    rounded = nearest_within_ends(weight, bits, 1, torch.full((6,), 1e-12))
    assert ((rounded.dequantized() - weight).abs() <= 0.5001 * rounded.scale[:, None, None, None]).all()
    assert violating_pairs(rounded.integers, 1) == 0


def test_every_recipe_has_a_row_and_a_key_of_its_own() -> None:
    rows = all_rows()
    assert len(rows) == len(set(rows)) == len(CLASSIFIERS) * 9
    assert len({key for row in rows for key in row.valid_keys()}) == len(rows)
    assert len({recipe_code("mobilenet_v2", name) for name in PROGRAMS}) == 3


def test_the_page_holds_recipes_beside_ours() -> None:
    network = next(iter(CLASSIFIERS))
    paper, other = RecipeRow(network, W8, PAPER), RecipeRow(network, W6A6, DFQ)
    machine = {"cpu": "CPU", "integer_instructions": "avx2"}
    found: dict[Any, Any] = {paper: result(8) | machine, paper.ours: result(12), other: {"key": "", "error": "broken"}}
    text = document(found, {paper.ours})
    (line,) = [line for line in text.split("## Selection")[0].splitlines() if line.startswith(f"| {network} | W8A8")]
    cells = line.strip("| ").split(" | ")
    assert cells[2] == "75.00" and cells[3].startswith("50.00, -25.00 [") and cells[4:6] == ["–", "–"]
    assert cells[6].startswith("75.00, +0.00 [") and cells[6].endswith("`stale`")
    assert cells[7].startswith("+25.00 [") and cells[7].endswith("`stale`")
    assert f"| {other.name} | broken |" in text and "Measured on CPU, avx2." in text

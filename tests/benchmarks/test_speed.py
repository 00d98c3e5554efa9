"""The paper's recipe against its definition, and the page that holds both."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from benchmarks import recipe
from benchmarks.speed import document
from tests.networks import NETWORKS, example_of
from zeroq.allocate import pareto_frontier
from zeroq.divergence import kl_divergence
from zeroq.graph import capture, fold


def test_statistics_are_of_each_image_by_itself() -> None:
    values = torch.tensor([[[[1.0, 3.0]]], [[[5.0, 5.0]]]])  # means 2 and 5, deviations 1 and 0
    found = recipe.distance(values, torch.tensor([2.0]), torch.tensor([2.0]))
    assert found.item() == pytest.approx(((0 + 1) + (9 + 4)) / 2, rel=1e-3)
    assert recipe.distance(torch.tensor([[[[4.0]]]]), torch.tensor([1.0]), torch.tensor([7.0])).item() == 9.0


def test_its_iterations_bring_images_nearer() -> None:
    network = capture(NETWORKS["residual"](), example_of("residual"))
    begin = recipe.start(network, images=4)
    after = recipe.distilled(begin, network, 60)
    assert after.shape == begin.shape
    with torch.no_grad():
        assert recipe.loss(after, network) < 0.6 * recipe.loss(begin, network)


def test_a_pass_measures_one_layer_alone() -> None:
    network, images = fold(capture(NETWORKS["residual"](), example_of("residual"))), example_of("residual", 6)
    layer = network.layers[0]
    assert isinstance(images, torch.Tensor)
    with torch.inference_mode():
        reference = network.run(images)
        changed = network.with_tensors({layer.weight: network.tensors[layer.weight] * 1.5})
        expected = float(kl_divergence(reference, changed.run(images)).mean())
    found = recipe.sensitivity(
        network, layer, 4, images, reference, lambda layer, width: network.tensors[layer.weight] * 1.5
    )
    assert found == pytest.approx(expected)


def test_bins_come_near_the_exact_frontier_and_never_below_it() -> None:
    generator = np.random.default_rng(0)
    parameters = generator.integers(100, 900, 6)
    sizes = [[width * int(count) for width in (2, 4, 8)] for count in parameters]
    costs = [sorted(generator.random(3), reverse=True) for _ in sizes]
    exact = pareto_frontier(sizes, costs)
    total = sum(max(options) for options in sizes)
    found = recipe.binned(sizes, costs, bins=2000)
    for place in (700, 1000, 1500):
        limit = place * (total // 2000)
        best = min(
            sum(costs[i][j] for i, j in enumerate(setting))
            for setting in itertools.product(range(3), repeat=6)
            if sum(sizes[i][j] for i, j in enumerate(setting)) <= limit
        )
        assert best <= found[place] <= best * 1.2
    assert found[-1] == pytest.approx(exact.costs[-1], abs=0.2)


def test_the_document_says_how_many_times_as_fast() -> None:
    values = {"statistics_loss": 1.0, "range_error": 0.2, "rank_correlation": 0.9, "confidence": 0.5}
    record = {
        "network": "net", "cpu": "CPU", "integer_instructions": "avx2", "threads": 1, "precision": "fp32 channels-last",
        "unit_seconds": 0.5, "seconds": {"images": {"ours": 10.0, "recipe": 155.0}}, "quality": {"ours": values},
    }  # fmt: skip
    text = document([record])
    assert "| net | images | 155 | 10 | 15.5 | 20.0 |" in text
    assert "| net | ours | 1.000 | 0.200 | 0.900 | 0.500 |" in text and "- CPU, avx2, 1 thread(s)" in text
    text = document([record, record | {"device": "GPU", "precision": "bf16 channels-last"}])
    assert "| net, GPU | images | 155 | 10 | 15.5 | 20.0 |" in text and "- GPU, bf16 channels-last\n" in text

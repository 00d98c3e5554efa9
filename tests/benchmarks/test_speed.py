"""The paper's recipe against its definition, and what the command takes."""

from __future__ import annotations

import itertools
import sys

import numpy as np
import pytest
import torch

from benchmarks import recipe
from benchmarks.speed import arguments
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


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--networks", "resnet19"], "--networks resnet19: choose from resnet18, "),
        (["--parts", "stages,step,run"], "--parts run: choose from stages, step, runs."),
        (["--peer", "nowhere/python"], "--peer nowhere/python is no file: name the python of an environment that"),
    ],
)
def test_a_word_that_is_not_known_is_refused(
    words: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["speed", *words])
    with pytest.raises(SystemExit, match="2"):
        arguments()
    assert message in capsys.readouterr().err


def test_a_peer_is_one_part_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["speed", "--parts", "", "--peer", sys.executable])
    assert arguments().parts == ["peer"]
    monkeypatch.setattr("sys.argv", ["speed"])
    assert arguments().parts == ["stages", "step"]

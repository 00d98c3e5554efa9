"""What BatchNorms say of a folded network's values, against the values themselves."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, fx

from tests.networks import NETWORKS, example_of
from zeroq.graph import capture, fold, replay
from zeroq.graph.normal import normal_values


@pytest.mark.parametrize(
    "name", ["plain", "residual", "norm_after_relu", "pre_activation", "shared_norm", "norm_first"]
)
def test_values_of_the_folded_network_have_these_moments(name: str) -> None:
    """Running statistics are those of random images (tests.networks.settle), of the same kind as these."""
    captured = capture(NETWORKS[name](), example_of(name))
    network, normals = fold(captured), normal_values(captured)
    checked = []

    def note(node: fx.Node, value: Tensor) -> None:
        if node.name in normals:
            channels = value.double().transpose(0, 1).flatten(1)
            normal = normals[node.name]
            largest = float(normal.deviation.max())
            torch.testing.assert_close(channels.mean(1), normal.mean, rtol=0.2, atol=0.4 * largest)
            torch.testing.assert_close(channels.std(1), normal.deviation, rtol=0.3, atol=0.1 * largest)
            checked.append(node.name)

    with torch.inference_mode():
        replay(network.graph, network.tensors, {network.inputs[0]: example_of(name, 64, seed=3)}, visit=note)
    assert set(checked) == set(normals) and checked


def test_a_doubted_batch_norm_says_nothing() -> None:
    network = capture(NETWORKS["residual"](), example_of("residual"))
    assert len(normal_values(network, {"stem.1"})) == len(normal_values(network)) - 1

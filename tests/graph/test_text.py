"""Graphs as plain data: what is written comes back, and nothing else than known operators does."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import Tensor, fx, nn

from tests.networks import NETWORKS, example_of
from zeroq.errors import CaptureError, RunError
from zeroq.graph import capture, fold, replay
from zeroq.graph.text import decode, encode, graph_from_data, graph_to_data

leaves = torch.utils._pytree.tree_leaves


@pytest.mark.parametrize("name", ["residual", "concatenate_and_shuffle", "shared_head", "tokens", "same_padding"])
def test_a_graph_comes_back_from_json(name: str) -> None:
    images = example_of(name, 3)
    network = fold(capture(NETWORKS[name](), images))
    data = json.loads(json.dumps(graph_to_data(network.graph)))
    graph = graph_from_data(data)
    assert graph_to_data(graph) == data
    assert [node.name for node in graph.nodes] == [node.name for node in network.graph.nodes]
    output = replay(graph, network.tensors, {network.inputs[0]: images})["output"]
    for one, other in zip(leaves(network.run(images)), leaves(output), strict=True):
        assert torch.equal(one, other)


class Windows(nn.Module):
    """A token before those of each window, of which there are four times as many as images."""

    def __init__(self) -> None:
        super().__init__()
        self.token, self.layer = nn.Parameter(torch.randn(1, 1, 3)), nn.Linear(3, 5)

    def forward(self, images: Tensor) -> Tensor:
        count = images.shape[0]
        windows = images.reshape(count, 3, 4, 4).permute(0, 2, 3, 1).reshape(count * 4, 4, 3)
        windows = torch.cat([self.token.expand(count * 4, -1, -1), windows], 1)
        found: Tensor = self.layer(windows.mean(1)).reshape(count, 4, 5).mean(1)
        return found


def test_what_is_computed_of_the_number_of_images_comes_back() -> None:
    network = capture(Windows(), torch.randn(2, 3, 4, 4))
    data = json.loads(json.dumps(graph_to_data(network.graph)))
    assert "mul" in {target for _, _, target, _, _ in data}
    images = torch.randn(3, 3, 4, 4)
    output = replay(graph_from_data(data), network.tensors, {network.inputs[0]: images})["output"]
    assert torch.equal(output, network.run(images))


def test_what_is_no_operator_is_refused_when_a_graph_is_taken() -> None:
    graph = fx.Graph()
    graph.call_function(math.gcd, (graph.placeholder("images"), 2))
    with pytest.raises(CaptureError) as error:
        graph_to_data(graph)
    assert str(error.value) == (
        "The network computes gcd of the number of images, which cannot be stored: let sizes follow from the shapes "
        "of tensors (-1 in a reshape)."
    )


@pytest.mark.parametrize(
    "value",
    [1, -2.5, True, None, "nearest", [1, [2, None]], {"alpha": 2}, torch.float32, torch.device("cpu"), torch.strided,
     torch.contiguous_format, float("inf")],
)  # fmt: skip
def test_every_kind_of_argument_comes_back(value: object) -> None:
    assert decode(json.loads(json.dumps(encode(value))), {}) == value


def test_nodes_are_arguments_by_name() -> None:
    graph = fx.Graph()
    node = graph.placeholder("images")
    assert encode([node]) == [{"node": "images"}]
    assert decode([{"node": "images"}], {"images": node}) == [node]


@pytest.mark.parametrize("target", ["os::system.default", "builtins::eval.default", "prims::add.default"])
def test_operators_of_other_packages_are_refused(target: str) -> None:
    with pytest.raises(RunError) as error:
        graph_from_data([["call_function", "run", target, [], {"dict": {}}]])
    assert str(error.value) == f"The saved network uses the operator {target}, which this version does not know."


def test_complex_numbers_are_refused() -> None:
    graph = fx.Graph()
    graph.output(graph.call_function(torch.ops.aten.mul.Tensor, (graph.placeholder("x"), 2j)))
    with pytest.raises(CaptureError, match="^The network computes with the complex number 2j: compute with real and"):
        graph_to_data(graph)

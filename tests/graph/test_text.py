"""Graphs as plain data: what is written comes back, and nothing else than known operators does."""

from __future__ import annotations

import json

import pytest
import torch
from torch import fx

from tests.networks import NETWORKS, example_of
from zeroq.errors import RunError
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

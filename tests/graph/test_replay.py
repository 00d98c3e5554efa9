"""Running a part of a graph and then the rest is running all of it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, fx

from tests.networks import NETWORKS, example_of
from zeroq.graph import capture, fold, replay

leaves = torch.utils._pytree.tree_leaves


@pytest.mark.parametrize("name", ["residual", "concatenate_and_shuffle", "shared_head", "tokens", "moved"])
def test_every_cut_gives_the_same_output(name: str) -> None:
    images = example_of(name, 3)
    network = fold(capture(NETWORKS[name](), images))
    expected = leaves(network.run(images))
    start = {network.inputs[0]: images}
    for node in network.graph.nodes:
        values = replay(network.graph, network.tensors, start, until=node.name)
        if node.op != "output":
            values = replay(network.graph, network.tensors, values, after=node.name, batch=3)
        for one, other in zip(expected, leaves(values["output"]), strict=True):
            torch.testing.assert_close(one, other)


def test_only_what_is_still_needed_is_kept() -> None:
    images = example_of("residual", 2)
    network = fold(capture(NETWORKS["residual"](), images))
    most = 0
    for node in network.graph.nodes:
        if node.op == "call_function":
            live = replay(network.graph, network.tensors, {network.inputs[0]: images}, until=node.name)
            assert node.name in live
            most = max(most, len(live))
    assert most == 2  # the stem and one value of the body
    final = replay(network.graph, network.tensors, {network.inputs[0]: images})
    assert list(final) == ["output"]


def test_a_value_can_be_seen_and_replaced() -> None:
    images = example_of("plain", 2)
    network = fold(capture(NETWORKS["plain"](), images))
    seen: list[str] = []

    def visit(node: fx.Node, value: Any) -> Any:
        seen.append(node.name)
        return torch.zeros_like(value) if node.name == "linear" else None

    output = replay(network.graph, network.tensors, {network.inputs[0]: images}, visit=visit)["output"]
    assert not output.any()
    assert seen == [node.name for node in network.graph.nodes if node.op != "get_attr"]


def test_images_can_be_stacked_on_the_way() -> None:
    """Candidates of one layer share a batch: values behind it are those of several runs."""
    images = example_of("concatenate_and_shuffle", 2)
    network = fold(capture(NETWORKS["concatenate_and_shuffle"](), images))
    site = network.layers[0].sites[0]
    live = replay(network.graph, network.tensors, {network.inputs[0]: images}, until=site)
    twice = {name: torch.cat([value, value]) if isinstance(value, Tensor) else value for name, value in live.items()}
    output = replay(network.graph, network.tensors, twice, after=site, batch=4)["output"]
    expected = network.run(images)
    torch.testing.assert_close(output, torch.cat([expected, expected]))

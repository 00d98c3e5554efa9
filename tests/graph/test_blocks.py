"""Blocks end where one value alone is read behind them; every value of tiny networks is tried."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from tests.networks import NETWORKS, example_of
from zeroq.graph import Network, capture, fold, replay
from zeroq.graph.blocks import blocks_of, bottlenecks


class Two(nn.Module):
    """Two inputs, of which the second is read late, and two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(3))

    def forward(self, images: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
        joined = self.second(torch.relu(self.first(images))) + others
        return self.third(torch.relu(joined)), joined


def network_of(name: str) -> Network:
    """A folded network of one or several inputs."""
    if name == "two":
        return fold(capture(Two().eval(), (torch.randn(2, 3, 8, 8), torch.randn(2, 3, 8, 8))))
    return fold(capture(NETWORKS[name](), example_of(name)))


NAMES = [
    "plain", "residual", "concatenate_and_shuffle", "shared_head", "reused_module", "equal_sums", "split", "attention",
    "tokens", "squeeze_excite", "gated", "pre_activation", "two",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_all_behind_a_bottleneck_is_computed_from_it_alone(name: str) -> None:
    network = network_of(name)
    values: dict[str, object] = {}
    with torch.inference_mode():
        whole = replay(
            network.graph, network.tensors, network.feed(network.example),
            visit=lambda node, value: values.update({node.name: value}),
        )  # fmt: skip
        found = []
        for node in network.graph.nodes:
            if node.op != "call_function" or node.name not in values or not node.users:
                continue
            try:
                alone = {node.name: values[node.name]}
                again = replay(network.graph, network.tensors, alone, after=node.name, batch=2)
            except KeyError:  # another value was asked for
                continue
            pairs = zip(*(pytree.tree_leaves(each["output"]) for each in (whole, again)), strict=True)
            assert all(torch.equal(one, other) for one, other in pairs)
            found.append(node.name)
    assert bottlenecks(network.graph) == found


@pytest.mark.parametrize("name", NAMES)
def test_blocks_are_the_shortest_that_hold_layers(name: str) -> None:
    network = network_of(name)
    position = {node.name: index for index, node in enumerate(network.graph.nodes)}
    sites = [position[site] for layer in network.layers for site in layer.sites]
    blocks = blocks_of(network.graph, network.layers, lambda node: True)
    assert blocks[0].start is None and blocks[-1].end is None
    assert [block.end for block in blocks[:-1]] == [block.start for block in blocks[1:]]
    for block in blocks:
        low = -1 if block.start is None else position[block.start]
        high = len(position) if block.end is None else position[block.end]
        inside = [site for site in sites if low < site <= high]
        assert inside
        for between in bottlenecks(network.graph):  # a value that parts the sites of a block would have ended it
            cut = position[between]
            assert not (low < cut < high and any(s <= cut for s in inside) and any(s > cut for s in inside))
        expected = [layer for layer in network.layers if all(low < position[site] <= high for site in layer.sites)]
        assert list(block.layers) == expected


def test_residual_branches_stay_together() -> None:
    network = network_of("residual")
    blocks = blocks_of(network.graph, network.layers, lambda node: True)
    names = [[layer.name for layer in block.layers] for block in blocks]
    assert names == [["stem.0"], ["body.0.0", "body.1"], ["head"]]


def test_a_layer_on_both_sides_of_a_border_is_in_no_block() -> None:
    network = network_of("reused_module")
    shared = next(layer for layer in network.layers if len(layer.sites) > 1)
    blocks = blocks_of(network.graph, network.layers, lambda node: True)
    assert all(shared not in block.layers for block in blocks)


def test_where_no_value_may_end_a_block_all_is_one() -> None:
    network = network_of("plain")
    (block,) = blocks_of(network.graph, network.layers, lambda node: False)
    assert (block.start, block.end, block.layers) == (None, None, network.layers)


def test_a_network_of_no_layers_is_one_block() -> None:
    network = network_of("plain")
    (block,) = blocks_of(network.graph, (), lambda node: True)
    assert block.layers == ()

"""What is written over is what nobody reads any more, and values stay those of the pure operators."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

from tests.networks import NETWORKS, example_of
from zeroq.graph import Network, capture, fold, replay
from zeroq.graph.overwriting import IN_PLACE, SYMMETRIC, overwritten, write_over

aten = torch.ops.aten
leaves = torch.utils._pytree.tree_leaves


def nothing(node: fx.Node, value: Any) -> None:
    """A visitor: where there is one nothing is written over."""


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        stem = self.first(images)
        branch = nn.functional.silu(self.second(stem.relu()))
        return stem + branch, stem * branch.mean(dim=(2, 3), keepdim=True)


def places(network: Network) -> dict[str, int | None]:
    return {node.name: overwritten(node) for node in network.graph.nodes if node.target in IN_PLACE}


@pytest.mark.parametrize("name", list(NETWORKS))
def test_values_are_the_same_to_the_last_bit(name: str) -> None:
    inputs = example_of(name, 3)
    network = capture(NETWORKS[name](), inputs)
    for each in (network, fold(network)):
        images = inputs if isinstance(inputs, tuple) else (inputs,)
        given = [value.clone() for value in images]
        with torch.inference_mode():
            expected = replay(each.graph, each.tensors, each.feed(images), visit=nothing)["output"]
            found = each.run(*images)
        assert all(torch.equal(one, other) for one, other in zip(images, given, strict=True))
        for one, other in zip(leaves(expected), leaves(found), strict=True):
            assert torch.equal(torch.as_tensor(one), torch.as_tensor(other))


def test_what_another_reads_is_left_alone() -> None:
    network = capture(Branches(), torch.zeros(2, 3, 8, 8))
    assert places(network) == {"relu": None, "silu": 0, "add": None, "mul": None}


def test_a_residual_sum_is_written_over_the_branch_that_ends_in_it() -> None:
    network = fold(capture(NETWORKS["residual"](), example_of("residual", 2)))
    sums = [node.name for node in network.graph.nodes if node.target == aten.add.Tensor]
    assert sums and all(places(network)[name] is not None for name in sums)


def test_values_kept_between_two_stretches_are_left_alone() -> None:
    """A caller may run the same value on more than once."""
    network = fold(capture(NETWORKS["residual"](), example_of("residual", 2)))
    with torch.inference_mode():
        for node in network.graph.nodes:
            if node.op != "call_function":
                continue
            live = replay(network.graph, network.tensors, network.feed(network.example), until=node.name)
            kept = {name: value.clone() for name, value in live.items()}
            for _ in range(2):
                replay(network.graph, network.tensors, live, after=node.name, batch=2)
            assert all(torch.equal(kept[name], live[name]) for name in kept), node.name


@pytest.mark.parametrize("operator", sorted(SYMMETRIC, key=str))
@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize(
    ("other", "over"),
    [
        (torch.randn(2, 4, 3, 3).contiguous(memory_format=torch.channels_last), True),
        (torch.randn(2, 4, 3, 3), False),  # in another order in memory
        (torch.randn(2, 4, 1, 1), False),
        (torch.randn(5, 2, 4, 3, 3), False),
        (torch.randn(2, 4, 3, 3, dtype=torch.float64).contiguous(memory_format=torch.channels_last), False),
        (2.5, True),
    ],
)
def test_memory_is_taken_where_the_result_would_be_alike(operator: Any, place: int, other: Any, over: bool) -> None:
    own = torch.randn(2, 4, 3, 3).contiguous(memory_format=torch.channels_last)
    if place and not isinstance(other, Tensor):
        return  # a number stands second
    graph = fx.Graph()
    node = graph.call_function(operator, (graph.placeholder("a"), graph.placeholder("b")))
    arguments = (other, own) if place else (own, other)
    expected = operator(*arguments)
    found = write_over(node, place, arguments, {})
    assert (found is own) == over
    assert torch.equal(found, expected) and found.stride() == expected.stride() and found.dtype == expected.dtype


def test_whole_numbers_are_not_written_over() -> None:
    """Their sum with a fraction is of another type."""
    graph = fx.Graph()
    node = graph.call_function(aten.add.Tensor, (graph.placeholder("a"), 0.5))
    own = torch.arange(3)
    assert torch.equal(write_over(node, 0, (own, 0.5), {}), torch.tensor([0.5, 1.5, 2.5]))
    assert torch.equal(own, torch.arange(3))

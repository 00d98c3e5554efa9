"""A walk stops where it is asked to, takes changes along, and looks ahead without moving."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.networks import NETWORKS, example_of
from zeroq.graph import Network, capture, fold, replay
from zeroq.graph.walk import CHUNK, Walk

IMAGES = 2 * CHUNK + 3


def network_of(name: str) -> tuple[Network, Tensor]:
    """A folded network and images in chunks of unequal size."""
    images = example_of(name, IMAGES)
    return fold(capture(NETWORKS[name](), images)), images


def test_values_on_the_way_are_those_of_one_run() -> None:
    network, images = network_of("residual")
    walk = Walk.over(network.graph, network.tensors, images)
    assert walk.counts == [CHUNK, CHUNK, 3]
    for layer in network.layers:
        source = walk.source(layer.sites[0])
        walk.to(source)
        expected = replay(network.graph, network.tensors, {network.inputs[0]: images}, until=source)[source]
        torch.testing.assert_close(torch.cat([live[source] for live in walk.live]), expected)


def test_a_walk_does_not_go_back() -> None:
    network, images = network_of("plain")
    first, second = (layer.sites[0] for layer in network.layers[:2])
    walk = Walk.over(network.graph, network.tensors, images)
    walk.to(second)
    values = walk.live[0][second]
    walk.to(first)
    assert walk.last == second
    assert walk.live[0][second] is values


def test_changed_tensors_hold_for_what_comes_behind() -> None:
    network, images = network_of("plain")
    walk = Walk.over(network.graph, network.tensors, images)
    walk.to(network.layers[0].sites[0])
    walk.tensors["4.weight"] = torch.zeros_like(walk.tensors["4.weight"])
    walk.to("output")
    output = torch.cat([live["output"] for live in walk.live])
    torch.testing.assert_close(output, network.tensors["4.bias"].expand(IMAGES, 4))


def test_looking_ahead_gives_every_sites_input_and_moves_nothing() -> None:
    network, images = network_of("shared_head")
    head = network.layer("head.0")
    walk = Walk.over(network.graph, network.tensors, images)
    walk.to(walk.source(head.sites[0]))
    before = walk.last
    seen: dict[str, list[Tensor]] = {site: [] for site in head.sites}
    for index in range(len(walk.live)):
        for site, value in walk.ahead(index, head.sites):
            seen[site].append(value)
    assert walk.last == before
    for site, values in seen.items():
        source = walk.source(site)
        expected = replay(network.graph, network.tensors, {network.inputs[0]: images}, until=source)[source]
        torch.testing.assert_close(torch.cat(values), expected)

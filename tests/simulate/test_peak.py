"""What is in memory at each moment, counted by hand and against the values' lives."""

from __future__ import annotations

import pytest

from tests.networks import NETWORKS, example_of
from zeroq.graph import capture, fold
from zeroq.graph.network import Network
from zeroq.simulate import Placement, place
from zeroq.simulate.peak import Memory, memory_of
from zeroq.simulate.placement import quantizer_bits

MAP, INPUT = 8 * 8 * 8, 3 * 8 * 8  # numbers in a map of 8 channels, and in the network's input

MEAN = "adaptive_avg_pool2d_default"


def described(name: str) -> tuple[Network, Placement, Memory]:
    folded = fold(capture(NETWORKS[name](), example_of(name)))
    placement = place(folded)
    return folded, placement, memory_of(folded, placement, [layer.name for layer in folded.layers])


def test_moments_of_a_residual_network_are_those_of_its_picture() -> None:
    """stem > body.0 > body.1, + stem, mean, head: the sum holds the stem's output until body.1 is done."""
    network, _, memory = described("residual")
    found = [(moment.operator, moment.fixed, dict(moment.elements)) for moment in memory.moments]
    assert found == [
        ("conv2d", 8 * (INPUT + MAP), {}),  # the stem's output feeds the sum: 8 bits, whatever its layers ask for
        ("conv2d_1", 8 * MAP, {"relu__1": MAP}),
        ("conv2d_2", 8 * 2 * MAP, {"relu__1": MAP}),
        ("add", 8 * 3 * MAP, {}),
        (MEAN, 8 * MAP, {MEAN: 8}),
        ("linear", 32 * 4, {MEAN: 8}),  # the output leaves in floating point
    ]
    assert memory.readers == {"relu__1": ("body.1",), MEAN: ("head",)}
    bits = {layer.name: 8 for layer in network.layers}
    assert memory.peak(bits) == 8 * 3 * MAP == memory.peak(bits | {"body.1": 4})
    assert memory.worst(bits)[1].operator == "conv2d_2"
    assert memory.worst(bits | {"body.1": 4})[1].operator == "add"


def test_a_changed_shape_is_the_same_value_and_a_moved_one_is_not() -> None:
    """The concatenation is seen as [2, 4, 8, 8], transposed, and seen as [8, 8, 8] again."""
    _, _, memory = described("concatenate_and_shuffle")
    assert [moment.operator for moment in memory.moments][:5] == ["conv2d", "conv2d_1", "cat", "transpose", "conv2d_2"]
    peaks = [moment.fixed + 8 * sum(moment.elements.values()) for moment in memory.moments]
    half = MAP // 2
    assert peaks[:5] == [8 * (INPUT + half), 8 * (INPUT + 2 * half), 8 * 2 * MAP, 8 * 2 * MAP, 8 * 2 * MAP]


def test_a_layer_of_two_sites_decides_the_values_of_both() -> None:
    _, _, memory = described("shared_head")
    assert memory.readers == {"relu_": ("head.0",)}  # of the pooled map as well


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("bits", [8, 4])
def test_every_moment_holds_what_is_made_and_still_read(name: str, bits: int) -> None:
    """Counted anew from the graph: for each operator, values made up to it that it or a later one reads."""
    network, placement, memory = described(name)
    inputs = dict.fromkeys((layer.name for layer in network.layers), bits)
    widths, of_value = quantizer_bits(network, placement, inputs), placement.of_value
    assert memory.widths(inputs) == {quantizer: widths[quantizer] for quantizer in memory.readers}
    nodes = list(network.graph.nodes)
    place_of = {node: index for index, node in enumerate(nodes)}
    for moment in memory.moments:
        now = place_of[network.node(moment.operator)]
        least = 0  # without the values that other names stand for
        for node in nodes[: now + 1]:
            read = any(place_of[user] >= now for user in node.users) or place_of[node] == now
            if node.name in of_value and read and node.name in of_value[node.name].measured:
                count = 1
                for side in network.shapes[node.name]:
                    count *= side
                least += count * widths[of_value[node.name].name]
        assert moment.fixed + sum(n * widths[q] for q, n in moment.elements.items()) >= least
    narrower = dict.fromkeys(inputs, bits - 1)
    assert memory.peak(narrower) <= memory.peak(inputs)

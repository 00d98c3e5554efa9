"""Which quantizers go when layers compute in floating point."""

from __future__ import annotations

import pytest

from tests.networks import NETWORKS, example_of
from zeroq.graph import Network, capture, fold
from zeroq.simulate import place
from zeroq.simulate.idle import without_idle


def folded(name: str) -> Network:
    return fold(capture(NETWORKS[name](), example_of(name)))


def test_a_value_between_two_layers_in_floating_point_is_not_quantized_and_its_rectifier_is_back() -> None:
    network = folded("depthwise")
    whole = place(network)
    left = without_idle(network, whole, ("1.0", "2.0"))
    (gone,) = set(whole.quantizers) - set(left.quantizers)
    (rectifier,) = gone.values
    assert network.node(rectifier).all_input_nodes[0].name == network.layer("1.0").sites[0]
    assert whole.absorbed - left.absorbed == {rectifier}


def test_one_layer_between_integers_needs_all_that_stand() -> None:
    network = folded("depthwise")
    whole = place(network)
    assert without_idle(network, whole, ("1.0",)) == whole
    assert without_idle(network, whole, ()) == whole


@pytest.mark.parametrize("name", ["concatenate_and_shuffle", "residual", "relu6", "max_pool", "shared_head", "gated"])
def test_what_stays_is_what_was_there_and_covers_all_that_is_needed(name: str) -> None:
    network = folded(name)
    whole = place(network)
    names = tuple(layer.name for layer in network.layers)
    left = without_idle(network, whole, names)
    assert set(left.quantizers) <= set(whole.quantizers)
    assert set(place(network, names).of_value) <= set(left.of_value)

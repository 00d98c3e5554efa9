"""All layers of a network are rounded in order, each on the inputs that it will have."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.networks import NETWORKS, example_of
from zeroq.graph import Layer, Network, capture, fold, replay
from zeroq.numbers.values import IntegerWeight
from zeroq.ranges import observe
from zeroq.rounding import round_weight, violating_pairs
from zeroq.rounding.layers import Rounded, round_weights
from zeroq.rounding.moments import MomentSum
from zeroq.simulate import place, quantize_activations, quantize_network
from zeroq.simulate.quantized_network import MOST_BIAS, least_scales

IMAGES = 12


def prepared(name: str) -> tuple[Network, Any, dict[str, Tensor], Tensor]:
    """The folded network, its graph with activation quantizers and the tensors of that, images."""
    network, images = fold(capture(NETWORKS[name](), example_of(name))), example_of(name, IMAGES)
    bits = {layer.name: 8 for layer in network.layers}
    placement = place(network)
    graph, tensors, _ = quantize_activations(network, placement, observe(network, placement, images, bits), bits)
    return network, graph, tensors, images


def rounded(name: str, *widths: int, **options: Any) -> tuple[Network, Rounded]:
    """Every layer at the given widths."""
    network, graph, tensors, images = prepared(name)
    wanted = {layer.name: widths for layer in network.layers}
    return network, round_weights(graph, tensors, network.layers, wanted, images, **options)


def same(one: IntegerWeight, other: IntegerWeight) -> bool:
    return torch.equal(one.integers, other.integers) and torch.equal(one.scale, other.scale)


@pytest.mark.parametrize("name", ["residual", "grouped", "depthwise", "shared_head", "tokens", "reused_module"])
@pytest.mark.parametrize("method", ["nearest", "gptq"])
def test_every_layer_has_every_width(name: str, method: str) -> None:
    network, found = rounded(name, 8, 3, method=method)
    assert set(found) == {layer.name for layer in network.layers}
    for layer in network.layers:
        for bits in (8, 3):
            weight = found[layer.name][bits]
            assert (tuple(weight.integers.shape), weight.bits, weight.rounding) == (layer.shape, bits, method)
        assert violating_pairs(found[layer.name][8].integers, layer.groups) == 0


def test_each_layer_sees_what_the_rounded_layers_before_it_give() -> None:
    network, graph, tensors, images = prepared("plain")
    found = round_weights(graph, tensors, network.layers, {layer.name: (3,) for layer in network.layers}, images)
    # By hand: the second layer's moments, with the first already rounded.
    first, second = network.layers[:2]
    changed = {**tensors, first.weight: found[first.name][3].dequantized()}
    assert same(found[second.name][3], by_hand(network, graph, changed, images, 1))
    assert not same(found[second.name][3], by_hand(network, graph, tensors, images, 1))
    unsettled = round_weights(
        graph, tensors, network.layers, {layer.name: (3,) for layer in network.layers}, images, settle=False
    )
    assert same(unsettled[second.name][3], by_hand(network, graph, tensors, images, 1))


def by_hand(network: Network, graph: Any, tensors: dict[str, Tensor], images: Tensor, index: int) -> IntegerWeight:
    """One layer rounded to 3 bits on the inputs that it has with these tensors."""
    layer = network.layers[index]
    site = next(node for node in graph.nodes if node.name == layer.sites[0])
    source = site.args[0]
    moments = MomentSum(layer)
    for chunk in images.split(8):  # as the walk takes them, for equal sums
        with torch.inference_mode():
            value = replay(graph, tensors, {network.inputs[0]: chunk}, until=source.name)[source.name]
        moments.add(site, value)
    bias = tensors[layer.bias]  # type: ignore[index]
    least = least_scales(bias, tensors[source.args[1].target].item(), tensors[layer.weight])
    hessian = moments.moments().hessian(centred=False)
    return round_weight(
        tensors[layer.weight], 3, hessian, groups=layer.groups, method="gptq", least_scale=least
    )


def test_moments_of_a_shared_layer_are_of_all_its_sites() -> None:
    network, graph, tensors, images = prepared("shared_head")
    head = network.layer("head.0")
    widths = {"head.0": (3,)}
    both = round_weights(graph, tensors, network.layers, widths, images)["head.0"][3]
    positions = {site: next(node for node in graph.nodes if node.name == site) for site in head.sites}
    moments = MomentSum(head)
    for chunk in images.split(8):
        for site, node in positions.items():
            with torch.inference_mode():
                source: Any = node.args[0]
                value = replay(graph, tensors, {network.inputs[0]: chunk}, until=source.name)[source.name]
            moments.add(positions[site], value)
    assert moments.fitted.weight + moments.checked.weight == IMAGES * (8 * 8 + 4 * 4)
    bias = tensors[head.bias]  # type: ignore[index]
    scales = [tensors[node.args[0].args[1].target].item() for node in positions.values()]  # type: ignore[union-attr]
    least = torch.stack([least_scales(bias, scale, tensors[head.weight]) for scale in scales]).amax(0)
    hessian = moments.moments().hessian(centred=False)
    assert same(both, round_weight(tensors[head.weight], 3, hessian, method="gptq", least_scale=least))


def test_the_bias_of_tiny_weights_fits_every_site() -> None:
    network, found = rounded("tiny_weights", 8)
    _, graph, tensors, _ = prepared("tiny_weights")
    for layer in network.layers:
        site: Any = next(node for node in graph.nodes if node.name == layer.sites[0])
        step = tensors[site.args[0].args[1].target] * found[layer.name][8].scale
        bias = tensors[layer.bias]  # type: ignore[index]
        assert (bias.abs() / step <= MOST_BIAS * (1 + 1e-5)).all()


def test_what_is_not_asked_for_is_not_rounded_and_nothing_given_is_changed() -> None:
    network, graph, tensors, images = prepared("residual")
    before = {name: value.clone() for name, value in tensors.items()}
    steps: list[tuple[int, int]] = []
    found = round_weights(
        graph, tensors, network.layers, {"body.1": (4,), "stem.0": (8,)}, images,
        on_step=lambda done, total: steps.append((done, total)),
    )  # fmt: skip
    assert set(found) == {"stem.0", "body.1"}
    assert steps == [(1, 2), (2, 2)]
    assert set(tensors) == set(before)
    assert all(torch.equal(before[name], value) for name, value in tensors.items())


def test_pairs_may_go_beyond_the_limit_where_that_is_asked_for() -> None:
    network, found = rounded("linear_only", 8, portable=False, method="nearest")
    _, limited = rounded("linear_only", 8, method="nearest")
    assert sum(violating_pairs(found[layer.name][8].integers, layer.groups) for layer in network.layers) > 0
    assert sum(violating_pairs(limited[layer.name][8].integers, layer.groups) for layer in network.layers) == 0


def corrected(name: str, *, bits: int = 3, reference: bool) -> tuple[Network, Any, dict[str, Tensor], Tensor, Rounded]:
    """A network rounded with its errors corrected, and what it was rounded on."""
    network, graph, tensors, images = prepared(name)
    widths = {layer.name: (bits,) for layer in network.layers}
    found = round_weights(
        graph, tensors, network.layers, widths, images, correct=True, reference=network if reference else None
    )
    return network, graph, tensors, images, found


def site_means(graph: Any, tensors: dict[str, Tensor], inputs: dict[str, Tensor], layer: Layer) -> Tensor:
    """Mean of each output channel of a layer."""
    with torch.inference_mode():
        value = replay(graph, tensors, inputs, until=layer.sites[0])[layer.sites[0]]
    return value.movedim(-1 if layer.operator == "linear" else 1, -1).flatten(0, -2).mean(0)


@pytest.mark.parametrize("name", ["residual", "depthwise", "tokens", "attention"])
@pytest.mark.parametrize("reference", [True, False])
def test_corrected_biases_keep_every_mean(name: str, reference: bool) -> None:
    """With a reference those of the network in floating point, else those of the layer's own weight and inputs."""
    network, graph, tensors, images, found = corrected(name, reference=reference)
    assert isinstance(images, Tensor)
    settled = dict(tensors)
    for layer in network.layers:
        weight = found[layer.name][3]
        assert weight.bias is not None
        inputs = {network.inputs[0]: images}
        before = site_means(graph, settled, inputs, layer)
        wanted = site_means(network.graph, dict(network.tensors), inputs, layer) if reference else before
        settled[layer.weight] = weight.dequantized()
        own = settled[layer.bias] if layer.bias else torch.zeros(layer.shape[0])
        after = site_means(graph, settled, inputs, layer) - own + weight.bias
        torch.testing.assert_close(after, wanted, rtol=1e-3, atol=1e-4)
        if layer.bias:
            settled[layer.bias] = weight.bias
        else:
            return  # the walk adds it behind the layer, which these tensors cannot


def test_a_layer_of_several_sites_keeps_its_biases() -> None:
    network, *_, found = corrected("shared_head", reference=True)
    assert {name: each[3].bias is None for name, each in found.items()} == {
        layer.name: len(layer.sites) > 1 for layer in network.layers
    }


@pytest.mark.parametrize("name", ["residual", "depthwise", "grouped", "reused_module"])
def test_corrected_layers_come_nearer_to_the_network_in_floating_point(name: str) -> None:
    network, _, _, images, found = corrected(name, reference=True)
    plain = rounded(name, 3)[1]
    placement, bits = place(network), {layer.name: 8 for layer in network.layers}
    ranges = observe(network, placement, images, bits)
    fresh = example_of(name, 64)
    with torch.inference_mode():
        wanted = network.run(fresh)
        errors = [
            float((quantize_network(
                network, placement, ranges, {layer: each[3] for layer, each in weights.items()}, bits
            )(fresh) - wanted).square().mean())
            for weights in (found, plain)
        ]  # fmt: skip
    assert errors[0] < errors[1]


def test_at_8_bits_means_alone_are_corrected() -> None:
    """The first layer's inputs are the same in both networks, but for their quantizer."""
    network, *_, fine = corrected("depthwise", bits=8, reference=True)
    *_, alone = corrected("depthwise", bits=8, reference=False)
    *_, coarse = corrected("depthwise", bits=4, reference=True)
    *_, coarse_alone = corrected("depthwise", bits=4, reference=False)
    second = network.layers[1].name
    assert torch.equal(fine[second][8].integers, alone[second][8].integers)
    assert not torch.equal(coarse[second][4].integers, coarse_alone[second][4].integers)

"""The quantized network: integers behind every quantizer, biases within 32 bits, everything in the state_dict."""

from __future__ import annotations

import copy
import io
import pickle
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import fx, nn

from tests.networks import NETWORKS, example_of
from tests.quantized import SETTINGS, quantize
from zeroq.graph import replay
from zeroq.numbers.operators import DEQUANTIZE, QUANTIZE_DEQUANTIZE
from zeroq.simulate import quantize_network
from zeroq.simulate.quantized_network import MOST_BIAS, least_scales

leaves = torch.utils._pytree.tree_leaves


@pytest.mark.parametrize("name", ["residual", "relu6", "unlike_parts", "moved", "pooling", "tokens"])
@pytest.mark.parametrize("setting", ["w8a8", "w2a2", "mixed"])
def test_every_value_is_an_integer_of_its_bits(name: str, setting: str) -> None:
    images = example_of(name, 8)
    stages = quantize(NETWORKS[name](), images, *SETTINGS[setting], method="nearest")
    tensors, quantizers = stages.quantized.tensors(), stages.quantized.quantizers
    seen: set[str] = set()

    def check(node: fx.Node, value: Any) -> None:
        if node.target == QUANTIZE_DEQUANTIZE:
            quantizer = stages.ranges[quantizers[node.name]]
            scale, zero_point = (tensors[str(each.target)] for each in node.args[1:3])  # type: ignore[union-attr]
            assert scale.item() == quantizer.scale and int(zero_point) == quantizer.zero_point
            integers = value / scale + zero_point
            assert (integers - integers.round()).abs().max() < 1e-3
            assert integers.min() > -0.5 and integers.max() < 2**quantizer.bits - 0.5
            seen.add(node.name)

    with torch.inference_mode():
        replay(stages.quantized.graph, tensors, {stages.folded.inputs[0]: images}, visit=check)
    assert seen == set(quantizers)


@pytest.mark.parametrize("name", list(NETWORKS)[1::2])
def test_eight_bits_are_close_to_floating_point(name: str) -> None:
    images = example_of(name, 16)
    module = NETWORKS[name]()
    stages = quantize(module, images, 8, 8)
    with torch.inference_mode():
        for expected, output in zip(leaves(module(images)), leaves(stages.quantized(images)), strict=True):
            # Of each image's worst output, in units of the largest: a few steps of 1/255.
            assert (expected - output).abs().max() <= 0.06 * expected.abs().max(), name


def test_layers_have_integers_in_place_of_their_tensors() -> None:
    stages = quantize(NETWORKS["residual"](), example_of("residual", 8), (8, 4, 3, 2), 8)
    tensors = stages.quantized.tensors()
    for layer, bits in zip(stages.folded.layers, (8, 4, 3, 2), strict=True):
        integers = tensors[f"{layer.weight}_integers"]
        assert integers.dtype == torch.int8 and integers.int().abs().max() <= 2 ** (bits - 1)
        assert tensors[f"{layer.weight}_scale"].shape == (layer.shape[0],)
        assert layer.weight not in tensors and layer.bias not in tensors
    targets = [node.target for node in stages.quantized.graph.nodes]
    assert targets.count(DEQUANTIZE) == 2 * len(stages.folded.layers)


def test_a_bias_is_stored_in_steps_of_its_site() -> None:
    stages = quantize(NETWORKS["shared_head"](), example_of("shared_head", 8))
    tensors = stages.quantized.tensors()
    layer = stages.folded.layer("head.0")
    bias = stages.folded.tensors[layer.bias]  # type: ignore[index]
    for index, site in enumerate(layer.sites):
        quantizer = stages.placement.of_value[stages.folded.node(site).args[0].name]  # type: ignore[union-attr]
        scale = stages.ranges[quantizer.name].scale * tensors["head.0.weight_scale"]
        torch.testing.assert_close(tensors[f"head.0.bias{index}_scale"], scale)
        torch.testing.assert_close(
            tensors[f"head.0.bias{index}_integers"] * scale, bias, rtol=0, atol=scale.max().item()
        )


def test_channels_of_tiny_weights_and_large_biases_stay_within_32_bits() -> None:
    images = example_of("tiny_weights", 16)
    module = NETWORKS["tiny_weights"]()
    stages = quantize(module, images)
    biases = {name: value for name, value in stages.quantized.tensors().items() if value.dtype == torch.int32}
    assert len(biases) == 3
    assert all(value.long().abs().max() <= MOST_BIAS for value in biases.values())
    with torch.inference_mode():
        torch.testing.assert_close(stages.quantized(images)[:, 1], module(images)[:, 1], rtol=0.01, atol=0)


def test_least_scales_leave_room_for_the_bias() -> None:
    bias = torch.tensor([5.0, 0.0, -3.0])
    least = least_scales(bias, 1e-3, torch.zeros(3, 1))
    assert (bias.abs() / (least * 1e-3) <= MOST_BIAS * (1 + 1e-6)).all()
    assert (least > 0).all()
    assert (least_scales(None, 1e-3, torch.zeros(2, 1)) > 0).all()


def test_the_state_dict_is_all_that_the_network_knows() -> None:
    images = example_of("concatenate_and_shuffle", 4)
    module = NETWORKS["concatenate_and_shuffle"]()
    one = quantize(module, images, 3, 4, method="nearest").quantized
    other = quantize(module, images * 2, 3, 4, method="nearest").quantized
    with torch.inference_mode():
        assert not torch.equal(one(images), other(images))
        other.load_state_dict(one.state_dict())
        assert torch.equal(one(images), other(images))
    assert isinstance(one, nn.Module) and not one.training
    assert not list(one.parameters())


def test_a_weight_may_bring_its_bias() -> None:
    images = example_of("plain", 4)
    stages = quantize(NETWORKS["plain"](), images)
    given = torch.full((4,), 3.0)
    corrected = quantize_network(
        stages.folded,
        stages.placement,
        stages.ranges,
        {**stages.weights, "4": replace(stages.weights["4"], bias=given)},
        dict.fromkeys(stages.weights, 8),
    )
    own = stages.folded.tensors["4.bias"]
    with torch.inference_mode():
        change = corrected(images) - stages.quantized(images)
    torch.testing.assert_close(change, (given - own).expand(4, 4), rtol=0, atol=1e-3)


def test_float_layers_keep_their_weights() -> None:
    stages = quantize(NETWORKS["residual"](), example_of("residual", 4), float_layers=("body.0.0",))
    assert "body.0.0.weight" in stages.quantized.tensors()
    assert "body.0.0" not in stages.weights


def test_names_of_the_users_own_do_not_meet_those_of_quantizers() -> None:
    class Named(nn.Module):
        """Modules called like operators."""

        def __init__(self) -> None:
            super().__init__()
            self.conv2d, self.add = nn.Conv2d(3, 3, 1), nn.Module()
            self.add.scale, self.relu = nn.Parameter(torch.full((3, 1, 1), 2.0)), nn.Conv2d(3, 3, 1)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.relu(self.relu(torch.relu(self.conv2d(images))) + images) * self.add.scale

    module, images = Named(), torch.randn(8, 3, 4, 4)
    with torch.inference_mode():
        torch.testing.assert_close(quantize(module, images).quantized(images), module(images), rtol=0, atol=0.1)


@pytest.mark.parametrize("name", ["residual", "tokens", "moved"])
def test_it_is_pickled_and_copied_whole(name: str) -> None:
    images = example_of(name, 4)
    network = quantize(NETWORKS[name](), images, *SETTINGS["mixed"], method="nearest").quantized
    file = io.BytesIO()
    torch.save(network, file)
    file.seek(0)
    for other in (pickle.loads(pickle.dumps(network)), copy.deepcopy(network), torch.load(file, weights_only=False)):
        with torch.inference_mode():
            pairs = zip(leaves(network(images)), leaves(other(images)), strict=True)
        assert all(torch.equal(one, own) for one, own in pairs)
        assert other.quantizers == network.quantizers and not other.training
        assert {name: value.dtype for name, value in other.tensors().items()} == {
            name: value.dtype for name, value in network.tensors().items()
        }

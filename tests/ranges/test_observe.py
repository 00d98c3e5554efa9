"""Ranges of a whole network are those of its values, whatever the chunks."""

from __future__ import annotations

import importlib

import pytest
import torch
from torch import nn
from torch.nn import functional

from tests.networks import NETWORKS, block, example_of
from tests.quantized import quantize
from zeroq.deploy import verify
from zeroq.divergence import Meaning
from zeroq.errors import NumericalError
from zeroq.graph import Network, capture, fold, replay
from zeroq.numbers.values import Ranges
from zeroq.ranges import at_widths, histograms_of, observe
from zeroq.ranges.observe import CHUNK
from zeroq.simulate import Placement, place
from zeroq.simulate.kernels import is_average
from zeroq.simulate.placement import quantizer_bits


def observed(name: str, bits: int = 8, images: int = CHUNK + 3) -> tuple[Network, Placement, Ranges]:
    """Ranges of a tiny network."""
    network = fold(capture(NETWORKS[name](), example_of(name)))
    placement = place(network)
    input_bits = {layer.name: bits for layer in network.layers}
    return network, placement, observe(network, placement, example_of(name, images), input_bits)


@pytest.mark.parametrize("name", ["residual", "relu6", "concatenate_and_shuffle", "unlike_parts", "shared_head"])
def test_at_eight_bits_next_to_nothing_is_cut_off(name: str) -> None:
    network, placement, ranges = observed(name)
    of_value = placement.of_value
    values = {value for quantizer in placement.quantizers for value in quantizer.measured}
    found = {}
    replay(
        network.graph, network.tensors, {network.inputs[0]: example_of(name, CHUNK + 3)},
        visit=lambda node, value: found.update({node.name: value}) if node.name in values else None,
    )  # fmt: skip
    for value, tensor in found.items():
        chosen = ranges[of_value[value].name]
        clipped = tensor.clamp(chosen.low, chosen.high)
        assert (clipped - tensor).square().mean() <= 0.001 * tensor.square().mean().clamp(min=1e-6)
        if tensor.min() >= 0 and of_value[value].measured == (value,):
            assert chosen.low == 0


def test_rectified_values_have_unsigned_ranges_and_ceilings_hold() -> None:
    _, placement, ranges = observed("relu6")
    for quantizer in placement.quantizers:
        if quantizer.ceiling is not None:
            assert ranges[quantizer.name].low == 0
            assert ranges[quantizer.name].high <= quantizer.ceiling


def test_an_average_is_no_finer_than_averages_of_integers_are() -> None:
    """Behind an InstanceNorm all are 0 but for rounding, and onnxruntime does not compute steps as fine as that."""
    module = nn.Sequential(
        block(3, 8), nn.InstanceNorm2d(8), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)
    ).eval()  # fmt: skip
    images = example_of("plain", 8)
    stages = quantize(module, images)
    of_value, network = stages.placement.of_value, stages.folded
    average = next(node for node in network.graph.nodes if is_average(node))
    read, given = (of_value[name].name for name in (average.all_input_nodes[0].name, average.name))
    assert stages.ranges[given].scale == pytest.approx(stages.ranges[read].scale / 64)
    assert verify(stages.export(), stages.quantized, images).agreement == 1


def test_a_value_quantized_again_has_a_range_of_its_own_bits() -> None:
    _, _, ranges = observed("residual", bits=3)
    narrow = {name: value for name, value in ranges.by_name.items() if "/" in name}
    assert narrow and all(value.bits == 3 for value in narrow.values())
    for name in narrow:
        assert ranges[name.split("/")[0]].bits == 8


def test_progress_counts_chunks_and_the_source_is_noted() -> None:
    network = fold(capture(NETWORKS["plain"](), example_of("plain")))
    steps: list[tuple[int, int]] = []
    ranges = observe(
        network, place(network), example_of("plain", 2 * CHUNK + 1), dict.fromkeys(("0.0", "1.0", "4"), 8),
        source="calibration", on_step=lambda done, total: steps.append((done, total)),
    )  # fmt: skip
    assert steps == [(1, 3), (2, 3), (3, 3)]
    assert {value.source for value in ranges.by_name.values()} == {"calibration"}


def test_the_same_images_in_another_order_of_chunks_give_the_same_ranges() -> None:
    network = fold(capture(NETWORKS["plain"](), example_of("plain")))
    images, bits = example_of("plain", 3 * CHUNK), dict.fromkeys(("0.0", "1.0", "4"), 8)
    one, other = (observe(network, place(network), each, bits) for each in (images, images.flip(0)))
    assert one == other


def test_numbers_that_the_output_does_not_depend_on_weigh_nothing() -> None:
    """A large channel that the last layer ignores: with its outliers the range of the others is coarse."""

    class Ignoring(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other = nn.Conv2d(1, 2, 1, bias=False), nn.Conv2d(2, 1, 1, bias=False)
            self.one.weight.data = torch.tensor([1.0, 10.0]).reshape(2, 1, 1, 1)
            self.other.weight.data = torch.tensor([1.0, 0.0]).reshape(1, 2, 1, 1)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.other(functional.relu(self.one(images)))

    network = capture(Ignoring().eval(), torch.randn(2, 1, 8, 8))
    images, bits = torch.rand(8, 1, 8, 8), {"one": 8, "other": 8}
    alike = observe(network, place(network), images, bits)
    weighed = observe(network, place(network), images, bits, meaning=Meaning("regression"))
    assert not alike.weighed and weighed.weighed
    assert alike["relu"].high > 5
    assert weighed["relu"].high == pytest.approx(float(images.max()), rel=0.05)


@pytest.mark.parametrize("name", ["residual", "relu6", "concatenate_and_shuffle", "tokens"])
def test_what_is_counted_does_not_depend_on_gradients(name: str) -> None:
    network = fold(capture(NETWORKS[name](), example_of(name)))
    placement, images = place(network), example_of(name, CHUNK + 3)
    plain, weighed = (
        histograms_of(network, placement, images, meaning=meaning) for meaning in (None, Meaning("regression"))
    )
    for quantizer in placement.quantizers:
        one, other = plain[quantizer.name], weighed[quantizer.name]
        assert torch.equal(one.counts, other.counts) and (one.low, one.high) == (other.low, other.high)
        assert not one.weights.any() and other.weights.any()


def test_large_networks_are_followed_on_fewer_images_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    network = fold(capture(NETWORKS["plain"](), example_of("plain")))
    module = importlib.import_module("zeroq.ranges.observe")
    placement, images = place(network), example_of("plain", 6)
    whole = histograms_of(network, placement, images, meaning=Meaning("classification"))
    monkeypatch.setattr(module, "GRADIENT_BYTES", 1.0)
    assert module.followed_images(network) == 1
    steps: list[tuple[int, int]] = []
    parts = histograms_of(
        network, placement, images, meaning=Meaning("classification"), on_step=lambda done, of: steps.append((done, of))
    )
    assert len(steps) == 6
    for name, each in whole.items():
        assert torch.equal(each.counts, parts[name].counts)
        assert torch.allclose(each.weights, parts[name].weights, rtol=1e-4)


def test_a_value_that_is_never_anything_but_zero_has_a_harmless_range() -> None:
    class Dead(nn.Module):
        """A ReLU that no value passes."""

        def __init__(self) -> None:
            super().__init__()
            self.one, self.other = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1)
            nn.init.zeros_(self.one.weight)
            nn.init.constant_(self.one.bias, -1)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.other(functional.relu(self.one(images)))

    network = capture(Dead(), torch.randn(2, 3, 4, 4))
    ranges = observe(network, place(network), torch.randn(4, 3, 4, 4), {"one": 8, "other": 8})
    assert ranges["relu"].source == "neither" and ranges["relu"].low == 0


def test_values_that_overflow_are_named() -> None:
    network = fold(capture(NETWORKS["plain"](), example_of("plain")))
    with pytest.raises(NumericalError) as error:
        images = example_of("plain", 4) * torch.inf
        observe(network, place(network), images, dict.fromkeys(("0.0", "1.0", "4"), 8))
    assert str(error.value) == "The value 'input_1' holds NaN or infinity: quantize a network that computes."


def test_ranges_of_every_width_hold_those_of_any_choice() -> None:
    network, placement, _ = observed("residual")
    images, names = example_of("residual", 6), [layer.name for layer in network.layers]
    every = observe(
        network, placement, images, dict.fromkeys(names, 8), input_widths=dict.fromkeys(names[1:], (3, 4, 8))
    )
    for bits in ((8, 8, 8, 8), (8, 4, 4, 4), (8, 8, 3, 4)):
        chosen = dict(zip(names, bits, strict=True))
        picked = at_widths(every, quantizer_bits(network, placement, chosen))
        assert picked == observe(network, placement, images, chosen)

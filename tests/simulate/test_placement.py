"""Where quantizers stand, what they share, and what their ranges take in."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.networks import NETWORKS, example_of
from zeroq.graph import Network, capture, fold
from zeroq.simulate import Placement, place
from zeroq.simulate.placement import bounds, busiest, every_width, quantizer_bits


def placed(module: nn.Module, images: Tensor, float_layers: tuple[str, ...] = ()) -> tuple[Network, Placement]:
    """The folded network and its quantizers."""
    network = fold(capture(module.eval(), images))
    return network, place(network, float_layers)


def of_network(name: str) -> tuple[Network, Placement]:
    return placed(NETWORKS[name](), example_of(name))


class Calls(nn.Module):
    """A function of three convolutions of one value."""

    def __init__(self, function: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(3, 3, 1) for _ in range(3))
        self.function = function

    def forward(self, images: Tensor) -> Tensor:
        return self.function(*(layer(images) for layer in self.layers))


def of_function(function: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Placement:
    return placed(Calls(function), torch.randn(2, 3, 4, 4))[1]


def groups(placement: Placement) -> list[tuple[str, ...]]:
    """The values of each quantizer."""
    return [quantizer.values for quantizer in placement.quantizers]


def test_a_plain_chain() -> None:
    _, placement = of_network("plain")
    assert groups(placement) == [
        ("input_1",), ("relu_",), ("relu__1",), ("adaptive_avg_pool2d", "flatten")
    ]  # fmt: skip
    assert placement.absorbed == {"relu_", "relu__1"}
    # The input and what is pooled stay at 8 bits; what layers alone read may have fewer.
    assert [quantizer.wide for quantizer in placement.quantizers] == [True, False, True, False]


def test_sums_have_quantizers_at_both_inputs_and_the_output() -> None:
    _, placement = of_network("residual")
    quantized = set(placement.of_value)
    assert {"relu_", "conv2d_2", "relu"} <= quantized  # the stem, the body's end, the sum behind its ReLU
    assert "add" not in quantized


def test_a_sum_that_only_floating_point_reads_is_left_as_it_is() -> None:
    """The BatchNorm behind it cannot be folded, and makes up for channels that are unlike."""

    class Normed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.norm = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)
            self.last = nn.Conv2d(4, 2, 1)

        def forward(self, images: Tensor) -> Tensor:
            together = self.one(images) + self.two(images)
            return self.last(functional.leaky_relu(self.norm(together)))

    network, placement = placed(Normed(), torch.randn(2, 3, 4, 4))
    assert "add" not in placement.of_value
    assert {"conv2d", "conv2d_1", "leaky_relu"} <= placement.of_value.keys()


def test_a_sum_of_sums_is_in_integers_where_a_layer_reads_the_last() -> None:
    class Sums(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.last = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 2, 1)

        def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
            first = self.one(images) + images
            second = first + images
            return self.last(functional.relu(second)), second + first

    _, placement = placed(Sums(), torch.randn(2, 3, 4, 4))
    assert {"add", "add_1"} <= placement.of_value.keys() and "add_2" not in placement.of_value


@pytest.mark.parametrize("name", NETWORKS)
def test_every_operator_with_an_integer_kernel_reads_quantized_values(name: str) -> None:
    network, placement = of_network(name)
    quantized = set(placement.of_value) | {node.name for node in network.graph.nodes if node.op == "get_attr"}
    for layer in network.layers:
        for site in layer.sites:
            assert network.node(site).args[0].name in quantized
    for node in network.graph.nodes:
        kind = str(node.target).removeprefix("aten.").split(".")[0]
        if kind == "cat":
            assert quantized.issuperset(part.name for part in node.args[0])
        if kind in ("cat", "avg_pool2d", "adaptive_avg_pool2d"):
            assert node.name in quantized or any(user.name in placement.absorbed for user in node.users)


SEVERAL = (
    "residual",
    "unlike_parts",
    "rectified_late",
    "relu6",
    "moved",
    "shared_concatenation",
    "equal_sums",
    "pooling",
)


def test_no_value_has_two_quantizers_and_members_are_in_order() -> None:
    for name in SEVERAL:
        network, placement = of_network(name)
        position = {node.name: index for index, node in enumerate(network.graph.nodes)}
        values = [value for quantizer in placement.quantizers for value in quantizer.values]
        assert len(values) == len(set(values))
        for quantizer in placement.quantizers:
            assert list(quantizer.values) == sorted(quantizer.values, key=position.__getitem__)
            assert quantizer.name == quantizer.values[0] and set(quantizer.measured) <= set(quantizer.values)


def test_what_only_moves_a_value_shares_its_quantizer() -> None:
    _, placement = of_network("concatenate_and_shuffle")
    assert ("relu_", "relu__1", "cat", "view", "transpose", "reshape") in groups(placement)
    shared = placement.of_value["cat"]
    assert shared.measured == ("relu_", "relu__1")  # the others have no values of their own


def test_the_ceiling_of_relu6_bounds_the_range() -> None:
    _, placement = of_network("relu6")
    assert [quantizer.ceiling for quantizer in placement.quantizers if quantizer.name.startswith("hardtanh")] == [
        6.0,
        6.0,
    ]


def test_a_linear_output_is_left_in_floating_point_and_a_convolution_is_not() -> None:
    assert "linear" not in of_network("plain")[1].of_value
    assert "conv2d_1" in of_network("convolution_as_head")[1].of_value


def test_layers_in_floating_point_need_no_quantizers() -> None:
    module = NETWORKS["plain"]()
    _, placement = placed(module, example_of("plain"), ("0.0", "1.0"))
    assert groups(placement) == [("relu__1",), ("adaptive_avg_pool2d", "flatten")]


def test_an_input_that_only_floating_point_reads_is_left_as_it_is() -> None:
    """Columns of a table, say: the BatchNorm brings them to one scale."""
    _, placement = placed(nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 8), nn.Linear(8, 3)), torch.randn(2, 6))
    assert groups(placement) == [("batch_norm",), ("linear",)]
    normalised = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1))

    class Inside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = normalised

        def forward(self, images: Tensor) -> Tensor:
            return self.layers((images - 0.5) / 0.25)

    _, placement = placed(Inside(), torch.randn(2, 3, 4, 4))
    assert "images" not in placement.of_value and "div" in placement.of_value


@pytest.mark.parametrize(
    ("function", "joined"),
    [
        (lambda a, b, c: torch.cat([a, b, c], 1), {"conv2d", "conv2d_1", "conv2d_2"}),
        (lambda a, b, c: torch.cat([functional.relu(a), functional.relu(b)], 1), {"relu", "relu_1"}),
        # Of a rectified part beside a negative one, the range could not cut off what is below 0.
        (lambda a, b, c: torch.cat([functional.relu(a), b], 1), {"conv2d_1"}),
        (lambda a, b, c: torch.cat([functional.relu6(a), functional.relu(b)], 1), {"relu"}),
        (lambda a, b, c: torch.cat([functional.relu6(a), functional.hardtanh(b, 0, 1)], 1), {"relu6"}),
        (lambda a, b, c: torch.cat([functional.relu(a), b.sigmoid()], 1), {"relu", "sigmoid"}),
        (lambda a, b, c: torch.cat([functional.relu6(a), functional.avg_pool2d(functional.relu6(b), 1)], 1),
         {"relu6", "avg_pool2d"}),
        (lambda a, b, c: torch.cat([functional.relu(a) + functional.relu(b), functional.relu(c)], 1),
         {"add", "relu_2"}),
        (lambda a, b, c: torch.cat([functional.relu(a) * -1.0, functional.relu(c)], 1), {"mul"}),
    ],
)  # fmt: skip
def test_inputs_of_a_concatenation_share_what_one_range_can_hold(
    function: Callable[[Tensor, Tensor, Tensor], Tensor], joined: set[str]
) -> None:
    quantizer = of_function(lambda *parts: functional.avg_pool2d(function(*parts), 2)).of_value["cat"]
    assert set(quantizer.values) - {"cat"} == joined


def test_a_joined_value_with_parts_of_other_ranges_is_measured_itself() -> None:
    placement = of_function(lambda a, b, c: functional.avg_pool2d(torch.cat([functional.relu(a), b], 1), 2))
    assert placement.of_value["cat"].measured == ("conv2d_1", "cat")
    assert placement.of_value["relu"].values == ("relu",)


def test_a_concatenation_behind_all_integer_kernels_is_left_as_it_is() -> None:
    """A detector's head that writes boxes over slices of its scores, one after another (YOLOv5's)."""

    def decoded(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
        scores = a.flatten(2).sigmoid()
        scores[..., 0:2] = (scores[..., 0:2] * 2 - 0.5) * 64
        scores[..., 2:4] = (scores[..., 2:4] * 2) ** 2 * 90
        return scores.flatten(1)

    of_value = of_function(decoded).of_value
    assert not [name for name in of_value if "cat" in name or "sigmoid" in name]


def test_a_concatenation_that_gives_the_output_joins_values_of_unlike_ranges_as_they_are() -> None:
    """Boxes of hundreds beside scores of 0 to 1 under one scale: no score is left (YOLOv6 969)."""
    of_value = of_function(lambda a, b, c: torch.cat([torch.cat([a, b], 1), c], 1).flatten(2)).of_value
    assert [of_value[name].values for name in ("conv2d", "conv2d_1", "conv2d_2")] == [
        ("conv2d",), ("conv2d_1",), ("conv2d_2",)
    ]  # fmt: skip
    assert not {"cat", "cat_1", "flatten"} & set(of_value)


def test_every_absorbed_rectifier_has_a_range_that_does_its_work() -> None:
    for name in SEVERAL:
        network, placement = of_network(name)
        limits = bounds(network)
        for value in placement.absorbed:
            quantizer = placement.of_value[value]
            low, high = limits[value]
            assert all(limits[member][0] >= low and limits[member][1] <= high for member in quantizer.values)
            assert quantizer.ceiling == (None if high == float("inf") else high)


def test_bits_of_quantizers() -> None:
    network, placement = of_network("residual")
    layers = [layer.name for layer in network.layers]
    assert layers == ["stem.0", "body.0.0", "body.1", "head"]
    bits = quantizer_bits(network, placement, dict(zip(layers, (8, 4, 3, 2), strict=True)))
    stem, body, pooled = (
        placement.of_value[value].name for value in ("relu_", "relu__1", "adaptive_avg_pool2d_default")
    )
    assert bits[network.inputs[0]] == 8
    # The stem's output also feeds a sum: 8 bits there, and quantized again for the convolution.
    assert (bits[stem], bits[f"{stem}/4"]) == (8, 4)
    assert (bits[body], bits[pooled]) == (3, 2)
    assert set(bits) == {quantizer.name for quantizer in placement.quantizers} | {f"{stem}/4"}


def test_a_value_of_two_layers_has_the_wider_bits_and_is_quantized_again_for_the_other() -> None:
    network, placement = of_network("rectified_once")
    site = {layer.sites[0]: layer.name for layer in network.layers}
    left = next(name for name in site if site[name] == "right")
    value = placement.of_value[network.node(left).args[0].name]
    bits = quantizer_bits(network, placement, {layer.name: 4 for layer in network.layers})
    assert value.wide and bits[value.name] == 8 and bits[f"{value.name}/4"] == 4


def test_every_width_that_a_choice_may_ask_for_is_there() -> None:
    """Whatever is chosen, each quantizer is at its widest, or listed as NAME/BITS."""
    for name in ("residual", "shared_head", "concatenate_and_shuffle", "moved"):
        network = fold(capture(NETWORKS[name](), example_of(name)))
        placement = place(network)
        names = [layer.name for layer in network.layers]
        choice = dict.fromkeys(names[1:], (2, 4, 8))
        found = every_width(network, placement, dict.fromkeys(names, 8), choice)
        for seed in range(20):
            chosen = {each: random.Random(f"{seed} {each}").choice((2, 4, 8)) for each in names[1:]}
            for quantizer, bits in quantizer_bits(network, placement, {names[0]: 8, **chosen}).items():
                of = quantizer.split("/")[0]
                assert found[of] == bits or found[f"{of}/{bits}"] == bits
        fixed = dict.fromkeys(names, 6)
        assert every_width(network, placement, fixed, {}) == quantizer_bits(network, placement, fixed)


def test_the_busiest_bits_ask_for_as_many_quantizers_as_any() -> None:
    for name in ("residual", "shared_head", "equal_sums"):
        network = fold(capture(NETWORKS[name](), example_of(name)))
        placement = place(network)
        names = [layer.name for layer in network.layers]
        choice = dict.fromkeys(names[1:], (4, 8))
        most = max(
            len(quantizer_bits(network, placement, {names[0]: 8, **dict(zip(choice, bits, strict=True))}))
            for bits in itertools.product((4, 8), repeat=len(choice))
        )
        chosen = busiest(network, placement, choice)
        assert len(quantizer_bits(network, placement, {names[0]: 8, **chosen})) == most


def test_pooling_with_a_divisor_of_its_own_has_no_ceiling() -> None:
    limited = {
        divisor: bounds(placed(Pooled(divisor), torch.randn(2, 3, 4, 4))[0])["avg_pool2d"] for divisor in (None, 1)
    }
    assert limited == {None: (0.0, 6.0), 1: (0.0, float("inf"))}
    assert of_function(lambda one, other, third: functional.avg_pool2d(one, 2, divisor_override=1)).quantizers


class Pooled(nn.Module):
    def __init__(self, divisor: int | None) -> None:
        super().__init__()
        self.layer, self.divisor = nn.Conv2d(3, 4, 1), divisor

    def forward(self, images: Tensor) -> Tensor:
        return functional.avg_pool2d(functional.relu6(self.layer(images)), 2, divisor_override=self.divisor)

"""The stacked walk through a network against one full pass for every layer and width."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.networks import NETWORKS, example_of
from zeroq.divergence import Meaning, kl_divergence
from zeroq.errors import NumericalError
from zeroq.graph import Layer, Network, capture, fold, replay
from zeroq.sensitivity import (
    Parameters,
    Quantized,
    derivable,
    follows_batch,
    measure_sensitivity,
    measuring_costs,
    shortenable,
)


class Branches(nn.Module):
    """A residual sum, a channel shuffle, a depthwise layer, a split and a concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.left, self.right = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 6, 3, padding=1)
        self.head = nn.Linear(18, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.norm(self.stem(x)))
        x = x + self.depthwise(x)
        n, c, h, w = x.shape
        x = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        one, other = x.chunk(2, dim=1)
        x = torch.cat([functional.relu(self.left(one)), self.right(other), x], dim=1)
        return self.head(x.mean((2, 3)))


class SharedHead(nn.Module):
    """One layer at three resolutions, another between its sites."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.down = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, stride=2, padding=1)
        self.head = nn.Conv2d(4, 5, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.stem(x))
        score = self.head(x).mean((2, 3))
        for _ in range(2):
            x = functional.relu(self.down(x))
            score = score + self.head(x).mean((2, 3))
        return score / 20


class TokensFirst(nn.Module):
    """The batch on the second axis while layers run, as in attention without batch_first."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.query, self.key, self.value = (nn.Linear(4, 4) for _ in range(4))
        self.head = nn.Linear(4, 5)
        self.register_buffer("places", torch.randn(6, 1, 4))

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.embed(x.flatten(2)[:, :, :4]).transpose(0, 1) + self.get_buffer("places")  # [tokens, N, 4]
        query, key, value = (layer(tokens).transpose(0, 1) for layer in (self.query, self.key, self.value))
        weights = torch.softmax(query @ key.transpose(1, 2), dim=-1)
        return self.head((weights @ value).transpose(0, 1).mean(0) + tokens.mean(0))


def network_of(module: nn.Module, shape: tuple[int, ...] = (3, 6, 6)) -> Network:
    """Captured and folded, with weights large enough for divergences well above rounding."""
    torch.manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.6)
    return fold(capture(module, torch.randn(2, *shape)))


def rounded_in(network: Network, asked: list[tuple[str, int]] | None = None) -> Quantized:
    """A crude rounding: one scale for all."""

    def quantized(layer: Layer, width: int) -> Parameters:
        weight = network.tensors[layer.weight]
        scale = weight.abs().max() / (2 ** (width - 1) - 1)
        if asked is not None:
            asked.append((layer.name, width))
        return torch.round(weight / scale) * scale, None

    return quantized


def by_full_passes(network: Network, images: Tensor, widths: tuple[int, ...]) -> dict[str, list[float]]:
    """KL of each layer and width, each from the network's input on."""
    quantized, table = rounded_in(network), {}
    with torch.inference_mode():
        reference = network.run(images)
        for layer in network.layers:
            changed = [network.with_tensors({layer.weight: quantized(layer, width)[0]}) for width in widths]
            table[layer.name] = [kl_divergence(reference, other.run(images)).mean().item() for other in changed]
    return table


@pytest.mark.parametrize("make", [Branches, SharedHead, TokensFirst])
@pytest.mark.parametrize("chunk", [3, 8])
def test_equals_full_passes(make: type[nn.Module], chunk: int) -> None:
    shape = (6, 2, 4) if make is TokensFirst else (3, 6, 6)
    network, widths = network_of(make(), shape), (2, 3, 5)
    images = torch.randn(7, *shape, generator=torch.Generator().manual_seed(1))
    table = measure_sensitivity(network, images, widths, rounded_in(network), chunk=chunk)
    expected = by_full_passes(network, images, widths)
    assert table.measure == "kl" and table.layers == tuple(layer.name for layer in network.layers)
    for layer, values in expected.items():
        assert min(values) > 1e-4
        assert [table.of(layer, width) for width in widths] == pytest.approx(values, rel=1e-3)


def test_every_layer_of_the_hard_networks_is_there() -> None:
    assert [len(network_of(make(), shape).layers) for make, shape in HARD] == [5, 3, 5]


HARD = [(Branches, (3, 6, 6)), (SharedHead, (3, 6, 6)), (TokensFirst, (6, 2, 4))]


def test_values_with_the_batch_elsewhere_are_known() -> None:
    follow = follows_batch(network_of(TokensFirst(), (6, 2, 4)))
    assert None in follow.values() and follow["output"] is True
    assert None not in follows_batch(network_of(Branches())).values()


def test_only_layers_asked_for_are_computed_and_steps_are_told() -> None:
    network, asked, steps = network_of(Branches()), [], []
    images = torch.randn(4, 3, 6, 6)
    table = measure_sensitivity(
        network, images, (4,), rounded_in(network, asked), layers=["head", "left"], measure="nearest", chunk=2,
        on_step=lambda done, total: steps.append((done, total)),
    )  # fmt: skip
    assert table.measure == "nearest" and set(table.layers) == {"head", "left"}
    assert asked == [("left", 4), ("head", 4)] * 2
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]


@pytest.mark.parametrize(("make", "shape"), HARD)
def test_outputs_that_are_known_are_not_computed_again(make: type[nn.Module], shape: tuple[int, ...]) -> None:
    network, images = network_of(make(), shape), torch.randn(5, *shape)
    reference = network.run(images)
    expected = measure_sensitivity(network, images, (2, 4), rounded_in(network), chunk=2)
    found = measure_sensitivity(network, images, (2, 4), rounded_in(network), reference=reference, chunk=2)
    for row, known in zip(expected.values, found.values, strict=True):
        assert known == pytest.approx(row, rel=1e-4)
    unlike = measure_sensitivity(network, images, (2, 4), rounded_in(network), reference=reference.flip(0), chunk=2)
    assert unlike.values != expected.values


def test_unchanged_weights_do_no_harm() -> None:
    network = network_of(Branches())
    table = measure_sensitivity(
        network, torch.randn(3, 3, 6, 6), (8,), lambda layer, width: (network.tensors[layer.weight], None)
    )
    assert max(row[0] for row in table.values) < 1e-9


@pytest.mark.parametrize("layer", ["stem", "head"])  # one without a bias of its own once its BatchNorm is left out
def test_a_bias_that_goes_with_a_weight_is_used(layer: str) -> None:
    network, images = fold(capture(Biasless(), torch.randn(2, 3, 6, 6))), torch.randn(5, 3, 6, 6)
    shift = torch.randn(network.layer(layer).shape[0], generator=torch.Generator().manual_seed(2))

    def shifted(layer: Layer, width: int) -> Parameters:
        return network.tensors[layer.weight], shift

    found = measure_sensitivity(network, images, (4,), shifted, layers=[layer], chunk=2)
    with torch.inference_mode():
        plain = Biasless()
        plain.load_state_dict(dict(network.tensors))
        reference = plain(images)
        hook = lambda module, inputs, output: output - own(module, output) + spread(shift, output)  # noqa: E731
        plain.get_submodule(layer).register_forward_hook(hook)
        expected = kl_divergence(reference, plain(images)).mean().item()
    assert found.of(layer, 4) == pytest.approx(expected, rel=1e-3)


class Biasless(nn.Module):
    """A convolution without a bias, and a linear layer with one."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 8, 3, bias=False), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(functional.relu(self.stem(x)).mean((2, 3)))


def own(module: nn.Module, output: Tensor) -> Tensor:
    """A layer's own bias, of the output's shape."""
    bias = getattr(module, "bias", None)
    return torch.zeros_like(output) if bias is None else spread(bias, output)


def spread(bias: Tensor, output: Tensor) -> Tensor:
    """A bias along the channels of an output."""
    return bias.reshape(-1, *[1] * (output.dim() - 2)).expand_as(output)


def test_overflow_is_named_with_layer_and_width() -> None:
    network, images = network_of(Branches()), torch.randn(3, 3, 6, 6)

    def quantized(layer: Layer, width: int) -> Parameters:
        weight = network.tensors[layer.weight]
        return weight * (math.inf if (layer.name, width) == ("right", 4) else 1), None

    with pytest.raises(
        NumericalError, match="^With layer 'right' alone at 4 bits the network gives NaN or infinity: its"
    ):
        measure_sensitivity(network, images, (2, 4), quantized)
    with pytest.raises(NumericalError, match="^The network itself gives NaN or infinity: its values overflow, so no"):
        measure_sensitivity(network, images * math.nan, (2, 4), quantized)


def test_another_divergence_and_outputs_of_any_form() -> None:
    network = network_of(nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU(), nn.Conv2d(2, 2, 3)))

    def squared(reference: Tensor, output: Tensor) -> Tensor:
        return (reference - output).square().mean((1, 2, 3))

    images = torch.randn(5, 3, 6, 6)
    table = measure_sensitivity(
        network, images, (2, 8), rounded_in(network), meaning=Meaning("regression", divergence=squared)
    )
    assert all(row[0] > row[1] > 0 for row in table.values)


def test_what_follows_from_another_width_is_right_where_the_output_is_the_layers_own() -> None:
    network = network_of(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten()))
    images, asked = torch.randn(5, 3, 6, 6), []

    def squared(reference: Tensor, output: Tensor) -> Tensor:
        return (reference - output).square().mean(1)

    how = {"meaning": Meaning("regression", divergence=squared), "chunk": 2}
    measured = measure_sensitivity(network, images, (2, 3, 8), rounded_in(network), **how)
    follows = measure_sensitivity(network, images, (2, 3, 8), rounded_in(network, asked), derived=(8,), **how)
    assert follows.widths == (2, 3, 8) and follows.values[0][:2] == measured.values[0][:2]
    assert follows.values[0][2] == pytest.approx(measured.values[0][2], rel=1e-3)
    assert {width for _, width in asked} == {2, 3, 8}


def test_what_follows_comes_near_what_is_measured_behind_other_layers() -> None:
    network, widths = network_of(Branches()), (4, 6, 8)
    images = torch.randn(32, 3, 6, 6, generator=torch.Generator().manual_seed(1))
    measured = measure_sensitivity(network, images, widths, rounded_in(network))
    follows = measure_sensitivity(network, images, widths, rounded_in(network), derived=(6, 8))
    for own, other in zip(measured.values, follows.values, strict=True):
        assert own[0] == pytest.approx(other[0], rel=1e-4)
    sums = [[sum(column) for column in zip(*table.values, strict=True)] for table in (measured, follows)]
    assert all(0.5 < one / two < 2 for one, two in zip(*sums, strict=True))


def test_a_layer_that_no_width_changes_gives_zeros() -> None:
    network = network_of(Branches())

    def unchanged(layer: Layer, width: int) -> Parameters:
        return network.tensors[layer.weight], None

    table = measure_sensitivity(network, torch.randn(3, 3, 6, 6), (4, 8), unchanged, derived=(8,))
    assert all(row[1] == 0 for row in table.values)


@pytest.mark.parametrize(
    ("widths", "expected"),
    [((2, 4, 8), (8,)), ((2, 3, 4, 5, 6, 8), (5, 6, 8)), ((6, 8), (8,)), ((8,), ()), ((2, 3), ())],
)
def test_what_can_follow_has_more_than_four_bits_and_a_narrower_one(
    widths: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    assert derivable(widths) == expected


def test_a_layers_input_alone_can_be_what_is_disturbed() -> None:
    """Of a layer with three sites, each site's input is."""
    network, images = fold(capture(SharedHead().eval(), torch.randn(2, 3, 8, 8))), torch.randn(5, 3, 8, 8)

    def coarse(layer: Layer, width: int) -> Parameters:
        return network.tensors[layer.weight], None, lambda site, values: (values * width).round() / width

    table = measure_sensitivity(network, images, (1, 4), coarse, layers=["head"])
    sites, nodes = network.layer("head").sites, {node.name: node for node in network.graph.nodes}
    for column, width in enumerate((1, 4)):
        graph, live = network.graph, network.feed((images,))
        last: str | None = None
        for site in sites:
            live = replay(graph, network.tensors, live, after=last, until=nodes[site].prev.name)
            source = nodes[site].all_input_nodes[0].name
            kept = live[source]
            live[source] = (kept * width).round() / width
            live = replay(graph, network.tensors, live, after=nodes[site].prev.name, until=site) | {source: kept}
            last = site
        output = replay(graph, network.tensors, live, after=last)["output"]
        expected = float(kl_divergence(network.run(images), output).mean())
        assert table.of("head", width) == pytest.approx(expected, rel=1e-4)
        assert table.values[0][column] > 0


@pytest.mark.parametrize(("make", "shape"), HARD)
def test_coarse_widths_are_measured_in_bf16_and_others_are_not(make: type[nn.Module], shape: tuple[int, ...]) -> None:
    network, images = network_of(make(), shape), torch.randn(5, *shape)
    exact = measure_sensitivity(network, images, (2, 4, 8), rounded_in(network), derived=(8,), chunk=2)
    found = measure_sensitivity(network, images, (2, 4, 8), rounded_in(network), derived=(8,), coarse=(2,), chunk=2)
    assert (found.coarse, found.derived, found.layers) == ((2,), (8,), exact.layers)
    for expected, row in zip(exact.values, found.values, strict=True):
        assert row[1:] == pytest.approx(expected[1:], rel=1e-3)
        assert row[0] == pytest.approx(expected[0], rel=0.2) and row[0] != expected[0]


def test_a_layers_input_can_be_disturbed_in_bf16_by_what_knows_float32_alone() -> None:
    network, images = fold(capture(SharedHead().eval(), torch.randn(2, 3, 8, 8))), torch.randn(5, 3, 8, 8)

    def rough(layer: Layer, width: int) -> Parameters:
        def change(site: Any, values: Tensor) -> Tensor:
            assert values.dtype == torch.float32
            return (values * width).round() / width

        return network.tensors[layer.weight], None, change

    exact = measure_sensitivity(network, images, (1, 4), rough, layers=["head"])
    found = measure_sensitivity(network, images, (1, 4), rough, layers=["head"], coarse=(1,))
    assert found.of("head", 1) == pytest.approx(exact.of("head", 1), rel=0.2)
    assert found.of("head", 4) == pytest.approx(exact.of("head", 4), rel=1e-4)


@pytest.mark.parametrize(
    ("widths", "multiplied", "expected"),
    [
        ((2, 4, 8), 2 * 10**12, (2,)),
        ((2, 3, 8), 2 * 10**12, (2,)),
        ((2, 4, 8), 10**12, ()),  # two of the widths are run: soon done
        ((2,), 10**13, ()),
        ((2, 8), 10**13, ()),  # all that is run
        ((4, 8), 10**13, ()),
        ((1, 2, 4, 8), 10**13, (1, 2)),
    ],
)
def test_what_is_shortened_is_narrow_and_takes_long(
    widths: tuple[int, ...], multiplied: int, expected: tuple[int, ...]
) -> None:
    assert shortenable(widths, multiplied) == expected


def test_a_layer_costs_what_it_and_all_behind_it_multiply() -> None:
    layers = network_of(Branches()).layers
    costs = measuring_costs(layers)
    assert len(costs) == len(layers) == 5
    for index, layer in enumerate(layers):
        assert costs[layer.name] == sum(each.multiply_accumulates for each in layers[index:])


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"layers": ["nope"]}, "'nope' is none of the network's layers"),
        ({"derived": [2, 4]}, r"widths \[2, 4\] of which \[2, 4\] are derived"),
        ({"chunk": 0}, "0 images at a time"),
        ({"coarse": [4]}, r"widths \[2, 4\] are run, so the widest cannot be among the coarse ones \[4\]"),
    ],
)
def test_what_cannot_be_measured_is_refused(options: dict[str, Any], sentence: str) -> None:
    images = example_of("plain", 2)
    network = fold(capture(NETWORKS["plain"](), images))
    with pytest.raises(ValueError, match=sentence):
        measure_sensitivity(network, images, [2, 4], lambda layer, width: (torch.zeros(1), None), **options)

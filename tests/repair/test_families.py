"""Values whose channels can have a factor each, and that factors leave the function as it is."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some
from torch import Tensor, nn

from tests.networks import block
from zeroq.graph import Network, capture, fold, replay
from zeroq.graph.network import LIMIT
from zeroq.repair import Family, families, scaled

IMAGES = torch.randn(3, 3, 9, 9, generator=torch.Generator().manual_seed(0))


def network_of(*modules: nn.Module) -> Network:
    torch.manual_seed(0)
    return fold(capture(nn.Sequential(*modules).eval(), torch.randn(2, 3, 9, 9)))


def values_of(network: Network) -> dict[str, Tensor]:
    """What every node gives."""
    found: dict[str, Tensor] = {}
    with torch.inference_mode():
        replay(
            network.graph, network.tensors, network.feed((IMAGES,)),
            visit=lambda node, value: found.update({node.name: value}),
        )  # fmt: skip
    return found


def depthwise(channels: int = 4, **options: int) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, 3, padding=1, groups=channels, **options)


class Trunk(nn.Module):
    """Sums of depthwise layers that a depthwise one reads."""

    def __init__(self, last: nn.Module, inputs: int = 3) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Conv2d(inputs, 4, 3, padding=1), depthwise(), last

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        found: Tensor = self.last(x + torch.relu(self.second(x)))
        return found


class TwoReaders(nn.Module):
    """A value that a depthwise layer reads, and another one."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Conv2d(3, 4, 1), depthwise(), nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.first(x)
        return self.second(x), self.third(x)


class Counted(nn.Module):
    """A value whose number of images is asked for, and an operator of several outputs behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 1), depthwise()

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        start = torch.zeros(x.shape[0], 4)
        found: Tensor = self.second(x).flatten(2).max(2)[0] + start
        return found


NORM_BEHIND = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4))


@pytest.mark.parametrize(
    ("modules", "layers"),
    [
        ((nn.Conv2d(3, 4, 1), depthwise()), [("0", "1")]),
        ((nn.Conv2d(3, 4, 1, bias=False), nn.ReLU(), nn.MaxPool2d(2), depthwise(stride=2)), [("0", "3")]),
        ((NORM_BEHIND, depthwise(), nn.Conv2d(4, 2, 1)), [("0.0", "1")]),
        ((nn.Conv2d(3, 4, 1), nn.ReLU6(), depthwise(), nn.ReLU6(), nn.Conv2d(4, 2, 1)), [("0", "2")]),
        ((nn.Conv2d(3, 4, 1), nn.LeakyReLU(), depthwise(), depthwise(), nn.ReLU()), [("0", "2"), ("2", "3")]),
        ((Trunk(depthwise()),), [("0.first+0.second", "0.second+0.last")]),
        ((Counted(),), [("0.first", "0.second")]),
    ],
)  # fmt: skip
def test_depthwise_layers_alone_read_them(modules: tuple[nn.Module, ...], layers: list[tuple[str, str]]) -> None:
    found = [family for family in families(network_of(*modules)) if family.free]
    assert layers == named(found)


def named(found: Iterable[Family]) -> list[tuple[str, ...]]:
    """The layers that give each family, and those that read it."""
    return [tuple("+".join(layer.name for layer in each) for each in (family.given, family.read)) for family in found]


@pytest.mark.parametrize(
    ("modules", "layers"),
    [
        ((nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3)), ("0", "1")),
        ((nn.Conv2d(3, 4, 1), nn.PReLU(4), nn.Conv2d(4, 8, 3, groups=4)), ("0", "2")),  # two filters for each channel
        ((nn.Conv2d(3, 4, 1), nn.ReLU6(), nn.Conv2d(4, 6, 3, groups=2)), ("0", "2")),
        ((Trunk(nn.Conv2d(4, 2, 1)),), ("0.first+0.second", "0.second+0.last")),
        ((TwoReaders(),), ("0.first", "0.second+0.third")),
    ],
)
def test_of_others_the_weights_pay(modules: tuple[nn.Module, ...], layers: tuple[str, str]) -> None:
    (found,) = families(network_of(*modules))
    assert named([found]) == [layers] and not found.free


@pytest.mark.parametrize(
    "modules",
    [
        (nn.Conv2d(3, 4, 1), nn.Hardtanh(), depthwise()),
        (nn.Conv2d(3, 4, 1), nn.SiLU(), depthwise()),
        (nn.Conv2d(3, 4, 1), nn.ChannelShuffle(2), depthwise()),
        (nn.Conv2d(3, 4, 1), nn.Flatten(), nn.Linear(324, 3)),
        (depthwise(3),),  # reads the input
    ],
)
def test_others_have_none(modules: tuple[nn.Module, ...]) -> None:
    assert families(network_of(*modules)) == ()


@settings(max_examples=15, deadline=None)
@given(seed=some.integers(0, 1000))
def test_outputs_stay_and_values_are_multiplied(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    network = network_of(
        NORM_BEHIND, Trunk(depthwise(), 4) if seed % 2 else depthwise(), nn.PReLU(4), nn.AvgPool2d(2), depthwise(),
        nn.Hardtanh(0.0, 0.1), depthwise(), nn.ReLU(), nn.Conv2d(4, 4, 1), nn.LeakyReLU(), nn.Conv2d(4, 4, 1, groups=2),
    ) if seed % 3 else network_of(block(3, 4), block(4, 4, groups=4), nn.ZeroPad2d(1), depthwise())  # fmt: skip
    found = families(network)
    assert found
    factors = {family.name: torch.rand(4, generator=generator, dtype=torch.float64) * 4 + 0.1 for family in found}
    changed = scaled(network, factors)
    before, after = values_of(network), values_of(changed)
    torch.testing.assert_close(changed.run(IMAGES), network.run(IMAGES), rtol=1e-4, atol=1e-5)
    for family in found:
        for value in family.values:
            expected = before[value] * factors[family.name].float().reshape(-1, 1, 1)
            torch.testing.assert_close(after[value], expected, rtol=1e-4, atol=1e-4)


def test_of_two_relu6_the_one_with_factors_has_a_ceiling_for_each_channel() -> None:
    network = network_of(nn.Conv2d(3, 4, 1), nn.ReLU6(), depthwise(), nn.ReLU6(), depthwise())
    _, second = families(network)
    changed = scaled(network, {second.name: torch.tensor([1.0, 2.0, 4.0, 0.5], dtype=torch.float64)})
    rectifiers = [node for node in changed.graph.nodes if node.target in (LIMIT, torch.ops.aten.hardtanh.default)]
    assert [node.target == LIMIT for node in rectifiers] == [False, True]
    stored = [changed.tensors[str(bound.target)].flatten().tolist() for bound in rectifiers[1].args[1:]]  # type: ignore[union-attr]
    assert stored == [[0, 0, 0, 0], [6, 12, 24, 3]]


def test_families_without_factors_stay() -> None:
    network = network_of(nn.Conv2d(3, 4, 1), depthwise(), depthwise())
    first, second = families(network)
    changed = scaled(network, {second.name: torch.tensor([1.0, 2.0, 4.0, 0.5], dtype=torch.float64)})
    weight = first.given[0].weight
    assert torch.equal(changed.tensors[weight], network.tensors[weight])
    assert scaled(network, {}).tensors == network.tensors

"""The same function, with channels that reach equally far on both sides."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.networks import NETWORKS, example_of, settle
from zeroq.graph import Network, capture, fold, replay
from zeroq.graph.normal import normal_values
from zeroq.repair import equalize
from zeroq.repair.equalization import by_input, chains_of
from zeroq.repair.links import links


def outputs(network: Network, images: Tensor) -> list[Tensor]:
    with torch.inference_mode():
        found = network.run(images)
    return list(found) if isinstance(found, (tuple, list)) else [found]


def unequal(module: nn.Module, seed: int) -> nn.Module:
    """Output channels of every layer with weights of very different sizes; statistics of BatchNorms not yet settled."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, (nn.Conv2d, nn.Linear)):
                size = torch.exp(torch.randn(len(part.weight), generator=generator))
                part.weight *= size.reshape(-1, *[1] * (part.weight.dim() - 1))
    return module


@pytest.mark.parametrize("name", sorted(set(NETWORKS) - {"dead_channels"}))
def test_every_network_gives_what_it_gave(name: str) -> None:
    images = example_of(name, 4)
    network = fold(capture(NETWORKS[name](), example_of(name)))
    changed, _ = equalize(network, {})
    assert changed.graph is network.graph and changed.tensors.keys() == network.tensors.keys()
    for before, after in zip(outputs(network, images), outputs(changed, images), strict=True):
        torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4 * float(before.abs().max()))


ACTIVATIONS = {
    "relu": nn.ReLU, "leaky": nn.LeakyReLU, "prelu": lambda: nn.PReLU(8), "none": nn.Identity, "relu6": nn.ReLU6,
    "pool": lambda: nn.Sequential(nn.ReLU(), nn.MaxPool2d(3, 1, 1)),
}  # fmt: skip
LAYERS = {
    "plain": lambda: nn.Conv2d(8, 8, 3, padding=1), "depthwise": lambda: nn.Conv2d(8, 8, 3, padding=1, groups=8),
    "grouped": lambda: nn.Conv2d(8, 8, 1, groups=2, bias=False),
}  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(
    kinds=st.lists(st.tuples(st.sampled_from(sorted(LAYERS)), st.sampled_from(sorted(ACTIVATIONS))), max_size=4),
    flat=st.booleans(),
    seed=st.integers(0, 10**6),
)
def test_random_networks_give_what_they_gave_and_chains_reach_equally_far(
    kinds: list[tuple[str, str]], flat: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    parts = [part for kind, act in kinds for part in (LAYERS[kind](), nn.BatchNorm2d(8), ACTIVATIONS[act]())]
    ending = [nn.Flatten(), nn.Linear(8 * 36, 3)] if flat else [nn.Conv2d(8, 3, 1)]
    module = settle(unequal(nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), *parts, *ending), seed), (16, 3, 6, 6))
    images = torch.randn(3, 3, 6, 6)
    captured = capture(module, images)
    network, normals = fold(captured), normal_values(captured)
    changed, moved = equalize(network, normals)
    (before,), (after,) = outputs(network, images), outputs(changed, images)
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5 * float(before.abs().max()))
    for chain in chains_of(links(network)):
        *giving, reading = chain.layers
        ranges = [changed.tensors[layer.weight].abs().flatten(1).amax(1) for layer in giving]
        columns = by_input(changed.tensors[reading.weight], reading).abs().amax((0, 2))
        ranges.append(columns.reshape(-1, chain.repeated).amax(1))
        for each in ranges:
            torch.testing.assert_close(each, ranges[0], rtol=0.01, atol=0)
    values: dict[str, dict[str, Tensor]] = {"before": {}, "after": {}}
    for when, each in (("before", network), ("after", changed)):
        replay(
            each.graph, each.tensors, {each.inputs[0]: images},
            visit=lambda node, value, kept=values[when]: kept.update({node.name: value}),
        )  # fmt: skip
    for name, normal in normals.items():
        factor = (moved[name].deviation / normal.deviation).reshape(1, -1, 1, 1).float()
        torch.testing.assert_close(
            values["after"][name], values["before"][name] * factor,
            rtol=1e-3, atol=1e-4 * float(values["after"][name].abs().max()),
        )  # fmt: skip


def test_a_pair_is_scaled_as_the_paper_says() -> None:
    module = nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU(), nn.Conv2d(2, 4, 1)).eval()
    with torch.no_grad():
        module[0].weight.copy_(torch.tensor([[1.0, -8.0, 2.0], [0.5, 0.1, 0.2]])[:, :, None, None])
        module[2].weight.copy_(torch.tensor([[2.0, 8.0], [0.1, 1.0], [0.0, -2.0], [1.0, 3.0]])[:, :, None, None])
    network = fold(capture(module, torch.randn(2, 3, 4, 4)))
    changed, _ = equalize(network, {})
    factor = torch.tensor([(8 * 2) ** 0.5 / 2, (0.5 * 8) ** 0.5 / 8])
    torch.testing.assert_close(changed.tensors["0.weight"], network.tensors["0.weight"] / factor[:, None, None, None])
    torch.testing.assert_close(changed.tensors["0.bias"], network.tensors["0.bias"] / factor)
    torch.testing.assert_close(changed.tensors["2.weight"], network.tensors["2.weight"] * factor[None, :, None, None])


def test_channels_without_weights_are_left_alone() -> None:
    network = fold(capture(NETWORKS["dead_channels"](), example_of("dead_channels")))
    changed, _ = equalize(network, {})
    assert all(torch.isfinite(value).all() for value in changed.tensors.values())
    images = example_of("dead_channels", 4)
    torch.testing.assert_close(outputs(changed, images)[0], outputs(network, images)[0], rtol=1e-3, atol=1e-4)

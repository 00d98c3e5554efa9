"""Channels moved to lie around zero, and what reads them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some
from torch import Tensor, nn

from zeroq.graph import Network, capture, fold, replay
from zeroq.repair import centre, middles

IMAGES = torch.randn(5, 3, 7, 7, generator=torch.Generator().manual_seed(0))


def network_of(*modules: nn.Module) -> Network:
    torch.manual_seed(0)
    return fold(capture(nn.Sequential(*modules).eval(), torch.randn(2, 3, 7, 7)))


def values(network: Network, site: str, images: Tensor = IMAGES) -> Tensor:
    """What a node gives, [N, channels, positions]."""
    found: list[Tensor] = []
    with torch.inference_mode():
        replay(
            network.graph, network.tensors, network.feed((images,)),
            visit=lambda node, value: found.append(value) if node.name == site else None,
        )  # fmt: skip
    return found[0].flatten(2) if found[0].dim() > 2 else found[0][:, :, None]


CENTRED = [
    (nn.Conv2d(3, 3, 3, groups=3), nn.Conv2d(3, 8, 1)),
    (nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 4, 3, stride=2, groups=2)),
    (nn.Conv2d(3, 4, 1), nn.Flatten(), nn.Linear(4 * 49, 5)),
    (nn.Flatten(), nn.Linear(147, 6), nn.Linear(6, 5)),
    (nn.Conv2d(3, 4, 1, bias=False), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 2, 1)),
]


@pytest.mark.parametrize("modules", CENTRED)
def test_each_channel_lies_around_zero_and_outputs_stay(modules: tuple[nn.Module, ...]) -> None:
    network = network_of(*modules)
    found = middles(network, IMAGES, chunk=2)
    changed = centre(network, found)
    assert len(found) == sum(isinstance(each, (nn.Conv2d, nn.Linear)) for each in modules) - 1
    for site, amounts in found.items():
        before = values(network, site).double()
        torch.testing.assert_close(amounts, (before.amin(2) + before.amax(2)).mean(0) / 2, rtol=1e-5, atol=1e-6)
    for site in found:
        after = values(changed, site)
        torch.testing.assert_close((after.amin(2) + after.amax(2)).mean(0), torch.zeros(after.shape[1]))
    with torch.inference_mode():
        torch.testing.assert_close(changed.run(IMAGES), network.run(IMAGES), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "modules",
    [
        (nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, padding=1)),
        (nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 1)),
        (nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1, bias=False)),
        (nn.Conv2d(3, 4, 1), nn.AvgPool2d(3, 1, 1), nn.Conv2d(4, 4, 1)),
        (nn.Conv2d(3, 4, 1),),
    ],
)
def test_what_pads_or_rectifies_or_has_no_bias_is_left_alone(modules: tuple[nn.Module, ...]) -> None:
    network = network_of(*modules)
    assert middles(network, IMAGES) == {}
    assert all(torch.equal(centre(network, {}).tensors[name], each) for name, each in network.tensors.items())


@settings(max_examples=25, deadline=None)
@given(some.integers(0, 1000))
def test_the_range_of_one_image_is_no_wider_than_its_widest_channel(seed: int) -> None:
    network = network_of(nn.Conv2d(3, 6, 3), nn.Conv2d(6, 2, 1))
    image = torch.randn(1, 3, 7, 7, generator=torch.Generator().manual_seed(seed)) * (1 + seed % 7) + seed % 5
    (site,) = found = middles(network, image)
    before, after = values(network, site, image)[0], values(centre(network, found), site, image)[0]
    widest = (before.amax(1) - before.amin(1)).max()
    assert after.max() - after.min() <= widest * (1 + 1e-5) <= (before.max() - before.min()) * (1 + 2e-5)

"""Means and deviations against many random numbers."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.networks import NETWORKS, block, example_of
from zeroq.graph import capture, fold, replay
from zeroq.graph.normal import Normal, normal_values
from zeroq.repair import expected_values
from zeroq.repair.expectation import clamped

MEANS, DEVIATIONS = torch.tensor([-3.0, -0.5, 0.0, 0.4, 2.0, 9.0]).double(), torch.tensor([0.0, 0.3, 2.0]).double()
ENDS = [(0.0, math.inf), (0.0, 6.0), (-math.inf, 1.0), (-1.0, 1.0), (-math.inf, math.inf), (3.0, 4.0)]


@pytest.mark.parametrize(("low", "high"), ENDS)
def test_clamped_numbers_have_the_moments_of_a_fine_sum(low: float, high: float) -> None:
    mean, deviation = (each.flatten() for each in torch.meshgrid(MEANS, DEVIATIONS, indexing="ij"))
    found = clamped(Normal(mean, deviation), torch.tensor(low), torch.tensor(high))
    places = torch.linspace(-8, 8, 20001).double()
    share = torch.exp(-places.square() / 2)
    share /= share.sum()
    values = (mean[:, None] + deviation[:, None] * places).clamp(low, high)
    expected = values @ share
    torch.testing.assert_close(found.mean, expected, rtol=1e-5, atol=1e-5)
    variance = (values - expected[:, None]).square() @ share
    torch.testing.assert_close(found.deviation.square(), variance, rtol=1e-4, atol=1e-4)


class Joined(nn.Module):
    """Sums, products, a concatenation, pooling and a layer without BatchNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.three = block(3, 4), block(3, 4)
        self.two, self.four = (nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)) for _ in range(2))
        self.last = nn.Conv2d(8, 5, 1)

    def forward(self, images: Tensor) -> Tensor:
        one, two, three = self.one(images), self.two(images), self.three(images)
        joined = torch.cat([one + two, functional.relu6(self.four(images)) * three], 1)
        return functional.avg_pool2d(self.last(joined), 2)


def test_values_follow_from_those_of_batch_norms_as_if_independent() -> None:
    torch.manual_seed(0)
    module = Joined().eval()
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.weight.uniform_(0.3, 2)
                part.bias.normal_()
    captured = capture(module, torch.randn(2, 3, 8, 8))
    network, normals = fold(captured), normal_values(captured)
    found = expected_values(network, normals)
    generator, seen = torch.Generator().manual_seed(1), set()

    def note(node: torch.fx.Node, value: object) -> Tensor | None:
        """Independent normal numbers in place of what BatchNorms know; what follows from them as expected."""
        if node.name in normals:
            normal = normals[node.name]
            noise = torch.randn(2000, *network.shapes[node.name], generator=generator)
            return noise * normal.deviation.float()[:, None, None] + normal.mean.float()[:, None, None]
        if isinstance(value, Tensor) and node.name in found:
            pooled = 2 if "avg" in node.name else 1  # of 2 x 2 independent places
            mean, deviation = value.double().mean(0), value.double().std(0) * pooled
            torch.testing.assert_close(found[node.name].mean[0], mean, rtol=0.1, atol=0.1 * float(deviation.max()))
            torch.testing.assert_close(found[node.name].deviation[0], deviation, rtol=0.1, atol=0.1)
            seen.add(node.name.split("_")[0])
        return None

    replay(network.graph, network.tensors, {network.inputs[0]: torch.zeros(2000, 3, 8, 8)}, visit=note)
    assert {"relu", "relu6", "add", "mul", "cat", "conv2d", "avg"} <= seen


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_every_network_is_followed_as_far_as_it_can_be(name: str) -> None:
    captured = capture(NETWORKS[name](), example_of(name))
    network = fold(captured)
    inputs = {each: Normal(torch.zeros(shape[0]).double(), torch.ones(shape[0]).double())
              for each in network.inputs for shape in [network.shapes[each]]}  # fmt: skip
    for value, normal in expected_values(network, normal_values(captured) | inputs).items():
        assert normal.mean.shape == normal.deviation.shape == (1, *network.shapes[value])
        assert torch.isfinite(normal.mean).all() and (normal.deviation >= 0).all()

"""Folding is exact, takes in what it can, and leaves the rest as it was."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.networks import NETWORKS, example_of
from zeroq.graph import Network, capture, fold
from zeroq.graph.network import LIMIT, LIMITED


def folded(module: nn.Module, images: Tensor) -> Network:
    """The folded network, equal to the module."""
    network = fold(capture(module.eval(), images))
    with torch.inference_mode():
        torch.testing.assert_close(network.run(images), module(images), rtol=1e-4, atol=1e-5)
    return network


def randomised(module: nn.Module) -> nn.Module:
    """BatchNorms unlike the identity."""
    for part in module.modules():
        if isinstance(part, (nn.BatchNorm1d, nn.BatchNorm2d)):
            nn.init.normal_(part.running_mean)
            nn.init.uniform_(part.running_var, 0.1, 2)
            if part.affine:
                nn.init.normal_(part.weight)
                nn.init.normal_(part.bias)
    return module


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_weights_and_biases_are_those_of_the_equation(affine: bool, bias: bool) -> None:
    module = randomised(nn.Sequential(nn.Conv2d(3, 4, 3, bias=bias), nn.BatchNorm2d(4, eps=0.01, affine=affine)))
    network = folded(module, torch.randn(2, 3, 5, 5))
    layer, norm = module[0], module[1]
    gain = (norm.weight if affine else torch.ones(4)).double() / torch.sqrt(norm.running_var.double() + 0.01)
    shift = norm.bias.double() if affine else 0.0
    before = layer.bias.double() if bias else 0.0
    weight = (layer.weight.double() * gain[:, None, None, None]).float()
    assert set(network.tensors) == {"0.weight", "0.folded_bias"}
    torch.testing.assert_close(network.tensors["0.weight"], weight.detach())
    expected = ((before - norm.running_mean.double()) * gain + shift).float()
    torch.testing.assert_close(network.tensors["0.folded_bias"], expected.detach())


@pytest.mark.parametrize(
    ("name", "left"),
    [("residual", 0), ("linear_only", 0), ("shared_head", 0), ("shared_norm", 0), ("pre_activation", 2),
     ("norm_after_relu", 0), ("norm_first", 1)],
)  # fmt: skip
def test_what_can_be_taken_in_is_and_the_rest_is_listed(name: str, left: int) -> None:
    captured = capture(NETWORKS[name](), example_of(name))
    network = fold(captured)
    assert len(captured.norms) > 0
    assert len(network.norms) == left
    assert len(network.not_quantized) == left + sum(node.target == LIMIT for node in network.graph.nodes)
    assert dict(captured.not_quantized).keys() == dict(network.not_quantized).keys()


def test_batch_norms_that_stay_are_listed_by_their_module() -> None:
    network = fold(capture(NETWORKS["pre_activation"](), example_of("pre_activation")))
    reason = "a BatchNorm that the layer before it cannot take in is an affine step in floating point"
    assert network.not_quantized == (("body.0", reason), ("last", reason))


class Two(nn.Module):
    """A convolution with two sites, and a BatchNorm behind each."""

    def __init__(self, same: bool, others: str = "") -> None:
        super().__init__()
        self.layer, self.one, self.two = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.BatchNorm2d(3)
        self.same, self.others = same, others

    def forward(self, images: Tensor) -> Tensor:
        first = self.layer(images)
        second = self.layer(functional.relu(self.one(first)))
        result = (self.one if self.same else self.two)(second)
        return result + first if self.others == "read" else result


@pytest.mark.parametrize(("module", "left"), [(Two(True), 0), (Two(False), 2), (Two(True, "read"), 2)])
def test_several_sites_are_folded_where_one_batch_norm_follows_all(module: nn.Module, left: int) -> None:
    assert len(folded(randomised(module), torch.randn(3, 3, 4, 4)).norms) == left


@pytest.mark.parametrize("rectifier", [nn.ReLU(), nn.ReLU6(), nn.Hardtanh(-0.5, 0.25)])
def test_behind_a_rectifier_every_channel_gets_limits_of_its_own(rectifier: nn.Module) -> None:
    module = randomised(nn.Sequential(nn.Conv2d(3, 6, 3), rectifier, nn.BatchNorm2d(6), nn.Conv2d(6, 2, 1)))
    with torch.no_grad():
        module[2].weight.copy_(torch.tensor([1.0, -2.0, 0.0, 0.5, -0.1, 3.0]))
    network = folded(module, torch.randn(2, 3, 5, 5))
    assert network.norms == ()
    assert [node.target for node in network.graph.nodes].count(LIMIT) == 1
    assert network.not_quantized == (("2", LIMITED),)


def test_a_relu_with_gains_above_zero_needs_no_upper_limit() -> None:
    module = randomised(nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.BatchNorm1d(5)))
    with torch.no_grad():
        module[2].weight.abs_()
    network = folded(module, torch.randn(3, 4))
    assert {name for name in network.tensors if "limit" in name} == {"2.lower_limit"}


def test_a_rectified_value_that_is_read_twice_keeps_its_batch_norm() -> None:
    class Twice(nn.Module):
        """The rectified value goes to the BatchNorm and around it."""

        def __init__(self) -> None:
            super().__init__()
            self.layer, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

        def forward(self, images: Tensor) -> Tensor:
            rectified = functional.relu(self.layer(images))
            return self.norm(rectified) + rectified

    assert len(folded(randomised(Twice()), torch.randn(3, 3, 4, 4)).norms) == 1


def test_a_batch_norm_of_another_axis_than_the_linear_layers_stays() -> None:
    assert len(folded(randomised(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))), torch.randn(3, 4, 4)).norms) == 1


def test_a_weight_that_another_operator_reads_is_not_changed() -> None:
    class Borrowed(nn.Module):
        """A weight that a second layer uses without BatchNorm."""

        def __init__(self) -> None:
            super().__init__()
            self.layer, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

        def forward(self, images: Tensor) -> Tensor:
            return self.norm(self.layer(images)) * functional.conv2d(images.abs(), self.layer.weight).sigmoid()

    assert len(folded(randomised(Borrowed()), torch.randn(3, 3, 4, 4)).norms) == 1


def test_a_bias_that_two_layers_share_is_not_overwritten() -> None:
    class Shared(nn.Module):
        """Two convolutions with one bias, a BatchNorm behind one of them."""

        def __init__(self) -> None:
            super().__init__()
            self.one, self.other, self.norm = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
            self.other.bias = self.one.bias

        def forward(self, images: Tensor) -> Tensor:
            return self.other(functional.relu(self.norm(self.one(images))))

    assert len(folded(randomised(Shared()), torch.randn(3, 3, 4, 4)).norms) == 0


def test_dead_channels_stay_finite() -> None:
    network = fold(capture(NETWORKS["dead_channels"](), example_of("dead_channels")))
    assert all(torch.isfinite(value).all() for value in network.tensors.values())


def test_the_captured_network_is_not_changed() -> None:
    images = example_of("residual", 3)
    captured = capture(NETWORKS["residual"](), images)
    before = captured.run(images)
    nodes = [node.name for node in captured.graph.nodes]
    fold(captured)
    assert [node.name for node in captured.graph.nodes] == nodes
    assert torch.equal(captured.run(images), before)

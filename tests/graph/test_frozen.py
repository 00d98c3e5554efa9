"""Frozen BatchNorms are known as BatchNorms; everything else stays what it is."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from tests.retinanet import FrozenBatchNorm2d
from zeroq.graph import capture, fold
from zeroq.graph.frozen import thaw


class Frozen(FrozenBatchNorm2d):
    """With numbers unlike those of the identity."""

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__(channels, eps)
        generator = torch.Generator().manual_seed(channels)
        for name, low in (("weight", 0.5), ("bias", -0.5), ("running_mean", -0.5), ("running_var", 0.1)):
            getattr(self, name).copy_(torch.rand(channels, generator=generator) + low)


class FrozenWithout(Frozen):
    """As DETR writes it: the epsilon in the forward pass."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        del self.eps

    def forward(self, x: Tensor) -> Tensor:
        weight, bias, mean, variance = (
            each.reshape(1, -1, 1, 1) for each in (self.weight, self.bias, self.running_mean, self.running_var)
        )
        return (x - mean) / torch.sqrt(variance + 1e-5) * weight + bias


class Twice(Frozen):
    """The same four tensors, another function."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


class OfVectors(Frozen):
    """The same four tensors, for inputs of two axes."""

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() != 2:
            raise ValueError("vectors only")
        return x * self.weight


def net(norm: Callable[[int], nn.Module]) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False), norm(4), nn.ReLU(), nn.Conv2d(4, 5, 1), norm(5), nn.Flatten(), nn.Linear(80, 2)
    ).eval()


IMAGES = torch.randn(3, 3, 6, 6, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("norm", [Frozen, FrozenWithout, lambda channels: Frozen(channels, 0.01)])
def test_a_network_of_frozen_norms_is_one_of_batch_norms(norm: Callable[[int], nn.Module]) -> None:
    module = net(norm)
    network = capture(module, IMAGES)
    assert [found.layer for found in network.norms] == ["0", "3"]
    assert torch.equal(network.norms[0].mean, module[1].running_mean)
    assert network.norms[0].epsilon == getattr(module[1], "eps", 1e-5)
    folded = fold(network)
    assert folded.norms == () and folded.not_quantized == ()
    torch.testing.assert_close(folded.run(IMAGES), module(IMAGES))


def test_the_module_itself_is_not_changed_and_tensors_are_shared() -> None:
    module = net(Frozen)
    thawed = thaw(module)
    assert isinstance(module[1], Frozen) and isinstance(thawed[1], nn.BatchNorm2d)
    assert thawed.state_dict().keys() == module.state_dict().keys()
    assert [t.data_ptr() for t in thawed.state_dict().values()] == [t.data_ptr() for t in module.state_dict().values()]


def test_a_frozen_norm_used_twice_is_one_batch_norm() -> None:
    shared = Frozen(3)
    thawed = thaw(nn.Sequential(shared, nn.ModuleDict({"inner": shared})["inner"]))
    assert thawed[0] is thawed[1] and isinstance(thawed[0], nn.BatchNorm2d)


def test_a_frozen_norm_by_itself() -> None:
    module = Frozen(3)
    torch.testing.assert_close(thaw(module)(IMAGES), module(IMAGES))
    assert isinstance(thaw(module), nn.BatchNorm2d)


@pytest.mark.parametrize("norm", [nn.BatchNorm2d, Twice, OfVectors, lambda channels: nn.GroupNorm(1, channels)])
def test_what_is_no_frozen_norm_stays(norm: Callable[[int], nn.Module]) -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), norm(4))
    assert thaw(module) is module


def test_broken_statistics_are_no_reason_to_miss_one() -> None:
    module = net(Frozen)
    module[1].running_var[2] = float("nan")
    assert isinstance(thaw(module)[1], nn.BatchNorm2d)


def test_a_synchronised_norm_is_a_batch_norm() -> None:
    module = nn.SyncBatchNorm.convert_sync_batchnorm(net(nn.BatchNorm2d))
    assert isinstance(module[1], nn.SyncBatchNorm)
    folded = fold(capture(module, IMAGES))
    assert folded.norms == () and len(folded.layers) == 3
    torch.testing.assert_close(folded.run(IMAGES), module(IMAGES))

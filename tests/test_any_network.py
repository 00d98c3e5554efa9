"""Networks put together by chance go the whole way, and their files answer as the simulation does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from torch import Tensor, nn
from torch.nn import functional

import zeroq
from tests.networks import block, settle
from tests.runs import QUICK

CHANNELS = 8


class Step(nn.Module):
    """A function of the network's own forward pass."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, values: Tensor) -> Tensor:
        return self.function(values)


class Around(nn.Module):
    """What a module gives, added to, multiplied with, or behind what it reads."""

    def __init__(self, module: nn.Module, how: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.module, self.how = module, how

    def forward(self, values: Tensor) -> Tensor:
        return self.how(values, self.module(values))


ACTIVATIONS: list[Callable[[], nn.Module]] = [
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.SiLU, nn.Hardswish, nn.GELU, nn.Sigmoid, nn.Tanh, nn.ELU, nn.Softplus,
    nn.Identity,
]  # fmt: skip
PARTS: list[Callable[[], nn.Module]] = [  # each takes CHANNELS channels and gives as many
    lambda: block(CHANNELS, CHANNELS),
    lambda: block(CHANNELS, CHANNELS, groups=CHANNELS),
    lambda: block(CHANNELS, CHANNELS, stride=2),
    lambda: nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, padding_mode="reflect"),
    lambda: nn.ConvTranspose2d(CHANNELS, CHANNELS, 2, 2),
    lambda: nn.ConvTranspose2d(CHANNELS, CHANNELS, 3, 1, groups=2),
    lambda: Around(nn.Conv2d(CHANNELS, CHANNELS, 1), torch.add),
    lambda: Around(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(CHANNELS, CHANNELS, 1), nn.Sigmoid()), torch.mul),
    lambda: nn.Sequential(
        Around(block(CHANNELS, 4), lambda one, other: torch.cat([one, other], 1)), nn.Conv2d(CHANNELS + 4, CHANNELS, 1)
    ),
    lambda: nn.BatchNorm2d(CHANNELS),
    lambda: nn.InstanceNorm2d(CHANNELS, affine=True),
    lambda: nn.GroupNorm(2, CHANNELS),
    lambda: nn.MaxPool2d(3, 1, 1),
    lambda: nn.AvgPool2d(3, 1, 1, count_include_pad=False),
    lambda: nn.ChannelShuffle(2),
    lambda: nn.Upsample(scale_factor=2, mode="bilinear"),
    lambda: Step(lambda x: torch.cat(x.chunk(2, 1)[::-1], 1)),
    lambda: Step(lambda x: x - x.mean((2, 3), keepdim=True)),
    lambda: Step(lambda x: functional.pad(x, (1, 0, 1, 0)) * 2 - 1),
    lambda: Step(lambda x: x.transpose(2, 3).clamp(-1, 2)),
]  # fmt: skip
HEADS: list[Callable[[], nn.Module]] = [
    lambda: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(CHANNELS, 4)),
    lambda: nn.Sequential(Step(lambda x: x.amax((2, 3))), nn.Linear(CHANNELS, 4), nn.Softmax(1)),
    lambda: nn.Conv2d(CHANNELS, 4, 1),
]
ASKED: list[dict[str, Any]] = [
    {}, {"average_bits": 3}, {"weight_bits": 4, "activation_bits": 4}, {"weight_bits": 6, "activation_bits": 6}
]  # fmt: skip


@settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    parts=some.lists(some.tuples(some.sampled_from(PARTS), some.sampled_from(ACTIVATIONS)), min_size=1, max_size=4),
    head=some.sampled_from(HEADS), asked=some.sampled_from(ASKED), seed=some.integers(0, 1000),
)  # fmt: skip
def test_any_network_goes_the_whole_way(
    parts: list[tuple[Callable[[], nn.Module], Callable[[], nn.Module]]],
    head: Callable[[], nn.Module],
    asked: dict[str, Any],
    seed: int,
) -> None:
    torch.manual_seed(seed)
    body = [module for part in parts for module in (part[0](), part[1]())]
    network = settle(nn.Sequential(block(3, CHANNELS), *body, head()), (32, 3, 10, 10))
    run = zeroq.quantize(network, torch.randn(2, 3, 10, 10), **QUICK, **asked)
    assert run.result["verification"]["agreement"] == 1
    assert (run.directory / "model.onnx").is_file()

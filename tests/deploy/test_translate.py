"""Operators between quantizers mean in the file what they mean in PyTorch, above all at the edges of maps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.quantized import quantize
from zeroq.deploy import verify
from zeroq.deploy.translate import overhang, window_means
from zeroq.deploy.verify import open_session, run

AVERAGE = (
    nn.AvgPool2d(3, 2, 1),
    nn.AvgPool2d(3, 2, 1, count_include_pad=False),
    nn.AvgPool2d(3, 2, ceil_mode=True),
    nn.AvgPool2d(2, 3, 1, ceil_mode=True),
    nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False),
    nn.AvgPool2d((1, 3), 2),
    nn.AdaptiveAvgPool2d(7),
    nn.AdaptiveAvgPool2d((7, 1)),
)
IN_FLOAT = (
    nn.AvgPool2d(4, 3, 2, ceil_mode=True),
    nn.AvgPool2d(3, 2, 1, ceil_mode=True, divisor_override=5),
    nn.AdaptiveAvgPool2d((5, 2)),
    nn.ReflectionPad2d(1),
    nn.ConstantPad2d(1, 1.0),
    nn.SiLU(),
    nn.Hardswish(),
    nn.PReLU(),
    nn.Hardtanh(),
)
MOVING = (
    nn.MaxPool2d(3, 2, 1),
    nn.MaxPool2d(2, 2, 1, ceil_mode=True),
    nn.MaxPool2d(2, 3, ceil_mode=True),
    nn.MaxPool2d(3, 2, 1, dilation=2),
    nn.AdaptiveMaxPool2d(1),
    nn.Upsample(scale_factor=2),
    nn.ZeroPad2d((1, 2, 0, 3)),
    nn.ZeroPad2d(-1),
)


class Several(nn.Module):
    """Each of several steps between two convolutions."""

    def __init__(self, steps: tuple[nn.Module, ...]) -> None:
        super().__init__()
        self.stem, self.steps = nn.Conv2d(3, 4, 3, padding=1), nn.ModuleList(steps)
        self.after = nn.ModuleList(nn.Conv2d(4, 4, 1) for _ in steps)

    def forward(self, images: Tensor) -> list[Tensor]:
        stem = self.stem(images)
        return [layer(step(stem)) for step, layer in zip(self.steps, self.after, strict=True)]


@pytest.mark.parametrize("steps", [AVERAGE, IN_FLOAT, MOVING], ids=["average", "in_float", "moving"])
def test_each_step_is_the_same_in_the_file(steps: tuple[nn.Module, ...]) -> None:
    images = torch.randn(8, 3, 7, 7)
    stages = quantize(Several(steps).eval(), images)
    model = stages.export()
    verification = verify(model, stages.quantized, images, threads=1)
    assert verification.largest_steps <= 1
    assert set(stages.weight_bits) <= verification.integer_weights
    assert not verification.float_nodes or steps is IN_FLOAT
    if steps is AVERAGE:
        assert verification.integer_nodes["QLinearAveragePool"] == len(steps) - 1  # one pools single pixels
    with torch.inference_mode():
        expected = stages.quantized(images)
    for optimised in (True, False):
        for step, one, other in zip(
            steps, expected, run(open_session(model, 1, optimised=optimised), images), strict=True
        ):
            assert (one - other).abs().max() <= 0.02 * one.abs().max(), step


class Sequences(nn.Module):
    """Linear layers on [N, T, C] and [N, H, W, C], with a bias and without."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(3, 8), nn.Linear(8, 8, bias=False), nn.Linear(8, 4)

    def forward(self, images: Tensor) -> Tensor:
        maps = functional.relu(self.first(images.permute(0, 2, 3, 1)))
        return self.third(functional.relu(self.second(maps.flatten(1, 2))))


def test_linear_layers_on_sequences_run_in_integers() -> None:
    images = torch.randn(5, 3, 4, 6)
    stages = quantize(Sequences().eval(), images)
    model = stages.export()
    verification = verify(model, stages.quantized, images, threads=1)
    assert verification.integer_nodes == {"QGemm": 3}
    assert not verification.float_nodes
    for count in (1, 3):
        (output,) = run(open_session(model, 1), images[:count])
        torch.testing.assert_close(output, stages.quantized(images[:count]), rtol=0, atol=1e-5)


@pytest.mark.parametrize("windows", range(1, 8))
def test_windows_of_adaptive_pooling_are_pytorchs(windows: int) -> None:
    values = torch.randn(1, 1, 7)
    expected = functional.adaptive_avg_pool1d(values, windows)
    np.testing.assert_allclose(values.numpy() @ window_means(7, windows).T, expected.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("window", "step", "pad"), [(2, 3, 1), (3, 2, 1), (3, 2, 0), (2, 2, 1), (4, 3, 2), (1, 2, 0)])
@pytest.mark.parametrize("size", range(4, 9))
def test_the_overhang_makes_the_number_of_windows_pytorchs(size: int, window: int, step: int, pad: int) -> None:
    expected = functional.max_pool1d(torch.zeros(1, 1, size), window, step, pad, ceil_mode=True).shape[-1]
    assert (size + 2 * pad + overhang(size, window, step, pad) - window) // step + 1 == expected

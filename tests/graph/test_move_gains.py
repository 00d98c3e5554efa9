"""A BatchNorm behind a ReLU leaves its gain in the layer before it."""

from __future__ import annotations

import torch
from torch import nn

from zeroq.graph import capture, fold


def network(gains: list[float]) -> nn.Module:
    """Convolution, ReLU, BatchNorm, convolution."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 3, padding=1))
    norm = module[2]
    assert isinstance(norm, nn.BatchNorm2d) and norm.running_var is not None and norm.running_mean is not None
    norm.weight.data = torch.tensor(gains)
    norm.running_mean.normal_()
    norm.running_var.copy_(torch.tensor([1e-6, 0.1, 1.0, 100.0]))
    return module.eval()


def test_the_function_stays_with_gains_of_either_sign_and_zero() -> None:
    module = network([2.0, -3.0, 0.0, 0.5])
    inputs = torch.randn(3, 3, 8, 8)
    folded = fold(capture(module, inputs))
    expected = module(inputs)
    assert (folded.run(inputs) - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_what_is_left_of_the_gain_is_its_sign() -> None:
    folded = fold(capture(network([2.0, -3.0, 0.0, 0.5]), torch.randn(2, 3, 8, 8)))
    assert folded.tensors["2.weight"].tolist() == [1.0, -1.0, 0.0, 1.0]
    assert folded.not_quantized[0][0] == "2"

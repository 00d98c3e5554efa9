"""Networks as if trained: statistics are those of the values that pictures give."""

from __future__ import annotations

import torch
from torch import nn

from benchmarks.plausible import make_plausible
from tests.retinanet import FrozenBatchNorm2d, retinanet
from zeroq.distillation import natural_statistic
from zeroq.distillation.starts import natural_noise
from zeroq.preprocessing import imagenet


def test_running_statistics_are_those_of_the_pictures() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.Conv2d(4, 2, 1), nn.BatchNorm2d(2))
    preprocessing = imagenet((16, 16))
    assert make_plausible(module, preprocessing, seed=3, pictures=8) is module and not module.training
    generator = torch.Generator().manual_seed(3)
    for channels in (4, 4, 2, 2):  # gains and shifts come first
        torch.rand(channels, generator=generator)
    pictures = natural_noise((8, 3, 16, 16), natural_statistic(preprocessing), generator)
    for place in (1, 4):
        values = module[:place](pictures).detach()
        torch.testing.assert_close(module[place].running_mean, values.mean((0, 2, 3)), rtol=1e-2, atol=1e-3)
        torch.testing.assert_close(module[place].running_var, values.var((0, 2, 3)), rtol=1e-2, atol=0)
        assert module[place].momentum == 0.1 and 0.5 <= module[place].weight.min() < module[place].weight.max() <= 1.5


def test_frozen_norms_are_given_statistics_in_place() -> None:
    module = make_plausible(retinanet((1, 1, 1, 1), width=4, pyramid=8, classes=3), imagenet((64, 64)), pictures=2)
    norms = [part for part in module.modules() if isinstance(part, FrozenBatchNorm2d)]
    assert len(norms) == 17 and all(norm.running_var.min() != 1 and norm.running_mean.abs().max() > 0 for norm in norms)

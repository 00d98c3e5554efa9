"""Networks without trained weights as if they had been trained: their BatchNorms remember what pictures give.

Weights stay as their package initialises them; gains and shifts of BatchNorms are drawn, running statistics are those
of synthetic pictures with the spectrum of natural ones. What such a network costs in time, memory and bytes is that
of a trained one, and its file must equal its simulation just as well; its accuracy means nothing.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from zeroq.distillation import natural_statistic
from zeroq.distillation.starts import natural_noise
from zeroq.graph.frozen import thaw
from zeroq.preprocessing import Preprocessing

PICTURES = 16
GAINS, SHIFTS = (0.5, 1.5), (-0.3, 0.3)


def make_plausible(
    module: nn.Module, preprocessing: Preprocessing, *, seed: int = 0, pictures: int = PICTURES
) -> nn.Module:
    """The module itself in eval mode, its BatchNorms, frozen ones too, with statistics that fit its weights."""
    generator = torch.Generator().manual_seed(seed)
    thawed = thaw(module)  # shares its tensors with the module
    thawed.eval()  # dropout stays off
    norms = [part for part in thawed.modules() if isinstance(part, _BatchNorm)]
    moments = [norm.momentum for norm in norms]
    with torch.no_grad():
        for norm in norms:
            if norm.affine:
                norm.weight.uniform_(*GAINS, generator=generator)
                norm.bias.uniform_(*SHIFTS, generator=generator)
            norm.train()
            norm.momentum = 1.0  # of one batch, all of it
        shape = (pictures, *preprocessing.input_shape)
        thawed(natural_noise(shape, natural_statistic(preprocessing), generator))
    for norm, momentum in zip(norms, moments, strict=True):
        norm.momentum = momentum
    return module.eval()

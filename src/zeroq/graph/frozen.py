"""Frozen BatchNorms, which detectors are trained with, as the BatchNorms that they are."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

STATISTICS = ("running_mean", "running_var")
AFFINE = ("weight", "bias")
EPSILON = 1e-5  # of look-alikes that write it into their forward pass
TRIAL = (2, 3, 5)  # images, height and width on which a look-alike must equal its BatchNorm
TOLERANCE = 1e-4  # relative to the largest value: rsqrt and multiplication in place of a division


def thaw(module: nn.Module) -> nn.Module:
    """The module with an equal nn.BatchNorm2d for each frozen one; a module without any as it is.

    torchvision's FrozenBatchNorm2d and its like keep weight, bias and statistics as buffers and compute with plain
    arithmetic, in which no BatchNorm is to be seen: nothing to distil from, nothing to fold. A module is taken for
    one if it holds these four tensors alone and computes what the BatchNorm of them does. What is given back shares
    all tensors with the module, whose keys of the state_dict are kept; the module itself is not changed.
    """
    norms = {part: norm for part in module.modules() if (norm := batch_norm_of(part)) is not None}
    if module in norms:
        return norms[module]
    if not norms:
        return module
    tensors = [*module.parameters(), *module.buffers()]
    thawed: nn.Module = copy.deepcopy(module, {id(tensor): tensor for tensor in tensors})
    for name, part in module.named_modules(remove_duplicate=False):
        if part in norms:
            owner, _, attribute = name.rpartition(".")
            setattr(thawed.get_submodule(owner), attribute, norms[part])
    return thawed


def batch_norm_of(part: nn.Module) -> nn.BatchNorm2d | None:
    """The BatchNorm that a frozen one equals, with the same tensors; None for any other module."""
    tensors = dict(part.named_buffers()) | dict(part.named_parameters())
    counted = {name for name in tensors if name != "num_batches_tracked"}
    if isinstance(part, _BatchNorm) or counted != {*STATISTICS, *AFFINE}:
        return None
    channels = tensors["running_var"].numel()
    if any(tensors[name].numel() != channels or not tensors[name].is_floating_point() for name in counted):
        return None
    epsilon = getattr(part, "eps", EPSILON)
    norm = nn.BatchNorm2d(channels, eps=epsilon if isinstance(epsilon, float) else EPSILON)
    for name in STATISTICS:
        setattr(norm, name, tensors[name].detach().flatten())
    for name in AFFINE:
        setattr(norm, name, nn.Parameter(tensors[name].detach().flatten(), requires_grad=False))
    norm.num_batches_tracked = None  # else the state_dict would hold a key more
    norm.eval()
    return norm if equal(part, norm, tensors["running_var"]) else None


def equal(part: nn.Module, norm: nn.BatchNorm2d, like: Tensor) -> bool:
    """Whether two modules answer alike on random maps of like's type; one that does not run on maps does not."""
    images, height, width = TRIAL
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(images, like.numel(), height, width, generator=generator).to(like)
    try:
        with torch.no_grad():
            expected, answer = norm(maps), part(maps)
    except Exception:  # what a module raises on maps that were never meant for it is its own affair
        return False
    if not isinstance(answer, Tensor) or answer.shape != expected.shape:
        return False
    largest = expected[expected.isfinite()].abs().max() if expected.isfinite().any() else torch.tensor(1.0)
    return torch.allclose(answer, expected, rtol=TOLERANCE, atol=TOLERANCE * float(largest), equal_nan=True)

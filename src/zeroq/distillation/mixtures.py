"""Random mixtures of Gaussians over the patches of an image: where attention might lie."""

from __future__ import annotations

import math

import torch
from torch import Tensor

MOST_EXTRA = 2  # tokens before the patches: of the class, of distillation
COMPONENTS = 3  # of a mixture, at most
NARROW, BROAD = 0.08, 0.3  # deviations of a component, in sides of the image
FLOOR = 0.1  # of the attention that is spread evenly


def patch_places(tokens: int) -> Tensor:
    """Where the last tokens lie in the unit square, [patches, 2]; on a line where they are no square of patches."""
    side = math.isqrt(tokens)
    if tokens - side**2 > MOST_EXTRA or side < 2:
        line = (torch.arange(tokens) + 0.5) / tokens
        return torch.stack([line, torch.full_like(line, 0.5)], 1)
    axis = (torch.arange(side) + 0.5) / side
    return torch.cartesian_prod(axis, axis)


def mixtures(count: int, tokens: int, generator: torch.Generator) -> Tensor:
    """That many mixtures of up to COMPONENTS Gaussians over the patches among tokens, [count, patches], sums of 1."""
    places = patch_places(tokens)
    centres = torch.rand(count, COMPONENTS, 1, 2, generator=generator)
    widths = NARROW + (BROAD - NARROW) * torch.rand(count, COMPONENTS, 1, generator=generator)
    weights = torch.rand(count, COMPONENTS, 1, generator=generator)
    there = torch.arange(COMPONENTS)[:, None] <= torch.randint(COMPONENTS, (count, 1, 1), generator=generator)
    bells = torch.exp(-0.5 * (places - centres).square().sum(-1) / widths.square()) / widths.square()
    density = (bells * weights * there).sum(1) + 1e-12
    even = torch.full_like(density, 1 / len(places))
    return FLOOR * even + (1 - FLOOR) * density / density.sum(1, keepdim=True)

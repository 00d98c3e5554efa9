"""How far a layer's output reaches, by the norms of its filters: what a range rests on where no statistic does."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from zeroq.graph.network import CONVOLUTIONS

# Of ||w|| ||a||. Real pictures use 0.10 to 0.35 of it in vgg_cifar10, noise 0.07 to 0.35. Divergence of that network
# with its activations at 8 and at 4 bits (even places of its test images, ranges from noise): 0.00044 and 0.0255
# without a floor, 0.00022 and 0.0254 at 0.12, 0.00015 and 0.0242 at 0.14, 0.00013 and 0.0263 at 0.16, 0.00018 and
# 0.0375 at 0.25; ranges from real pictures 0.00011 and 0.0246. Odd places, 0.14 in place of no floor: 0.00017 in place
# of 0.00056, 0.0280 in place of 0.0278.
LEAST_SHARE = 0.14


def reach(site: fx.Node, weight: Tensor, value: Tensor) -> float:
    """The largest ||w|| ||a|| over the filters w of a layer's site and the patches a of its input.

    By Cauchy and Schwarz |w a| is never more. A filter of a grouped convolution sees the patches of its group alone.
    weight: [filters, ...].  value: what the site reads, [N, channels, ...], of a linear layer [N, ..., features].
    """
    filters = torch.linalg.vector_norm(weight.detach().flatten(1).float(), dim=1)  # [filters]
    squares = value.detach().float().square()
    if site.target not in CONVOLUTIONS:
        return float(filters.amax() * squares.sum(-1).amax().sqrt())
    operator: Any = site.target
    groups: Any = site.args[6] if len(site.args) > 6 else 1
    ones = squares.new_ones(groups, *weight.shape[1:])
    sums = operator(squares, ones, None, *site.args[3:6], *[groups][: groups > 1])
    patches = sums.transpose(0, 1).flatten(1).amax(1).clamp(min=0).sqrt()  # [groups]
    return float((filters.reshape(groups, -1).amax(1) * patches).amax())

"""The weight that a quantized layer should come near: it makes up for the errors of its inputs."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from zeroq.rounding.moments import Moments

# Of the mean variance of a layer's inputs. Weaker ones gain on distilled images, but lose on real ones: with 0.1 added
# EfficientNet-Lite0 at W4A8 diverges by 0.14 in place of 0.10.
RIDGES = (0.3, 1.0, 3.0, 10.0)
KEPT = 0.95  # of the best gain: for the same reason, the strongest ridge that keeps so much is taken
JUDGED = 64  # filters of each group that say which
# Of a filter's length, that it may change by. Beyond that it takes up what distilled images alone have: MobileNetV2 at
# W4A8 diverges on pictures by 0.09 to 0.20, without a bound by 0.13 to 0.72, as luck has it.
MOST = 0.1


def corrected(filters: Tensor, fitted: Moments, checked: Moments, every: Moments) -> Tensor:
    """Filters v that minimise E|y - v a - c|^2 + ridge |v - w|^2: the regression of a layer's outputs in floating point
    on the inputs that it has in the quantized network, drawn towards its own weight w.

    So each layer takes away what it can of the errors of those before it (as QwT, arXiv:2411.13918, does by layers of
    its own, and GPTAQ, arXiv:2504.02692, within the rounding). The ridge is chosen on images that are not fitted; where
    none gains there, the filters are returned as they are. No filter changes by more than MOST of its length.

    filters: w, [groups, filters, columns].  fitted, checked: of two sets of images.  every: of both.
    """
    if not every.cross.any():
        return filters
    chosen = chosen_ridge(filters, fitted, checked)
    return filters if chosen is None else bounded(filters, solution(filters, every, chosen))


def bounded(filters: Tensor, wanted: Tensor) -> Tensor:
    """Filters as near to the wanted ones as each can come if it changes by at most MOST of its length."""
    change = wanted - filters
    length, most = change.norm(dim=2, keepdim=True), MOST * filters.norm(dim=2, keepdim=True)
    return torch.where(length > most, filters + change * (most / length), wanted)


def chosen_ridge(filters: Tensor, fitted: Moments, checked: Moments) -> float | None:
    """The strongest ridge with KEPT of the best gain on `checked`, tried from the strongest down until the gain falls;
    None where none gains. Of each group JUDGED filters are judged, evenly spread.
    """
    among = slice(None, None, -(-filters.shape[1] // JUDGED))
    filters = filters[:, among]
    fitted, checked = (replace(each, cross=each.cross[:, among]) for each in (fitted, checked))
    own, gains = error(filters, checked), {}
    for ridge in reversed(RIDGES):
        gains[ridge] = own - error(solution(filters, fitted, ridge), checked)
        if gains[ridge] < max(gains.values()):
            break
    best = max(gains.values())
    return max(ridge for ridge, gain in gains.items() if gain >= KEPT * best) if best > 0 else None


def solution(filters: Tensor, moments: Moments, ridge: float) -> Tensor:
    """v = w + (E[y a^T] - w E[a a^T]) (E[a a^T] + ridge)^-1, inputs and outputs centred, [groups, filters, columns]."""
    variance = torch.diagonal(moments.covariance, dim1=1, dim2=2)
    mean = variance.mean(1)
    added = torch.where(mean > 0, ridge * mean, 1.0)
    matrix = moments.covariance.clone()
    torch.diagonal(matrix, dim1=1, dim2=2).add_(added[:, None])
    lower, failed = torch.linalg.cholesky_ex(matrix)
    if failed.any():
        return filters
    missing = moments.cross - filters @ moments.covariance
    return filters + torch.cholesky_solve(missing.transpose(1, 2), lower).transpose(1, 2)


def error(filters: Tensor, moments: Moments) -> float:
    """E|y - v a|^2 of centred inputs and outputs over all filters, less E|y|^2, which is the same for all."""
    squares = (filters @ moments.covariance - 2 * moments.cross) * filters
    return float(squares.double().sum())

"""How far one network's class scores are from another's."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from zeroq.divergence.channels import tensors_of
from zeroq.divergence.finite import check_finite

ROUNDED = 1e-3  # what probabilities of all classes may miss 1 by
LEAST = 1e-30  # what a probability counts as, at least


def scores_of(outputs: Any) -> Tensor:
    """The class scores [N, K, ...] among a network's outputs: the first, or its logarithm behind a softmax.

    A softmax of probabilities is almost alike for all of them, and would hide what few bits do.
    """
    return scores_alike(outputs)[0]


def scores_alike(reference: Any, *others: Any) -> list[Tensor]:
    """The class scores of several outputs, all read as the first is: what few bits give need not add up to 1."""
    firsts = [tensors_of(each)[0] for each in (reference, *others)]
    return [first.clamp(min=LEAST).log() for first in firsts] if are_probabilities(firsts[0]) else firsts


def are_probabilities(values: Tensor) -> bool:
    """Whether numbers [N, K, ...] are none below 0, and 1 over all classes, everywhere."""
    if values.dim() < 2 or values.shape[1] < 2 or bool((values < 0).any()):
        return False
    return bool(((values.sum(1) - 1).abs() < ROUNDED).all())


def kl_divergence(reference_logits: Tensor, logits: Tensor) -> Tensor:
    """KL(softmax reference || softmax logits) of each image, in nats; [N, K] and [N, K] to float64 [N].

    Of scores at many places, [N, K, ...], the mean over the places. In 64 bits by log-softmax: the divergences of 8-bit
    layers are near 1e-7, below what 32 bits resolve. Raises NumericalError where a score is NaN or infinite.
    """
    _check(reference_logits, logits)
    if reference_logits.dim() == 2:
        return _kl(reference_logits, logits)
    pairs = zip(reference_logits.split(1), logits.split(1), strict=True)  # one image at a time: maps are large
    return torch.stack([_kl(reference, other).mean() for reference, other in pairs])


def same_class(reference_logits: Tensor, logits: Tensor) -> Tensor:
    """Whether each image has the same highest class, the lowest index among equals; [N, K] and [N, K] to bool [N].

    Of scores at many places, [N, K, ...], at each of them, bool [N, ...]. Raises NumericalError where a score is NaN or
    infinite.
    """
    _check(reference_logits, logits)
    return reference_logits.argmax(dim=1) == logits.argmax(dim=1)


def agreement(reference_logits: Tensor, logits: Tensor) -> float:
    """Share of images (of places) with the same highest class; see `same_class`."""
    return same_class(reference_logits, logits).double().mean().item()


def _kl(reference_logits: Tensor, logits: Tensor) -> Tensor:
    """KL over axis 1."""
    reference = torch.log_softmax(reference_logits.double(), dim=1)
    other = torch.log_softmax(logits.double(), dim=1)
    return (reference.exp() * (reference - other)).sum(dim=1).clamp(min=0)  # rounding alone makes it negative


def _check(reference_logits: Tensor, logits: Tensor) -> None:
    if reference_logits.shape != logits.shape or logits.dim() < 2 or not logits.numel():
        raise ValueError(f"scores are {list(reference_logits.shape)} and {list(logits.shape)}, not both [N, K, ...]")
    check_finite("The reference's scores", reference_logits)
    check_finite("The network's scores", logits)

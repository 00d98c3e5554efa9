"""How far one classifier's scores are from another's."""

from __future__ import annotations

import torch
from torch import Tensor

from zeroq.errors import NumericalError


def kl_divergence(reference_logits: Tensor, logits: Tensor) -> Tensor:
    """KL(softmax reference || softmax logits) of each image, in nats; [N, K] and [N, K] to float64 [N].

    In 64 bits by log-softmax: the divergences of 8-bit layers are near 1e-7, below what 32 bits resolve. Raises
    NumericalError where a score is NaN or infinite.
    """
    _check(reference_logits, logits)
    reference = torch.log_softmax(reference_logits.double(), dim=1)
    other = torch.log_softmax(logits.double(), dim=1)
    return (reference.exp() * (reference - other)).sum(dim=1).clamp(min=0)  # rounding alone makes it negative


def same_class(reference_logits: Tensor, logits: Tensor) -> Tensor:
    """Whether each image has the same highest class, the lowest index among equals; [N, K] and [N, K] to bool [N].

    Raises NumericalError where a score is NaN or infinite.
    """
    _check(reference_logits, logits)
    return reference_logits.argmax(dim=1) == logits.argmax(dim=1)


def agreement(reference_logits: Tensor, logits: Tensor) -> float:
    """Share of images with the same highest class; see `same_class`."""
    return same_class(reference_logits, logits).double().mean().item()


def _check(reference_logits: Tensor, logits: Tensor) -> None:
    if reference_logits.shape != logits.shape or logits.dim() != 2 or not logits.numel():
        raise ValueError(f"scores are {list(reference_logits.shape)} and {list(logits.shape)}, not both [N, K]")
    for whose, scores in (("reference's", reference_logits), ("network's", logits)):
        bad = int((~torch.isfinite(scores)).any(dim=1).sum())
        if bad:
            raise NumericalError(
                f"The {whose} scores are NaN or infinite for {bad} of {len(scores)} images: its values overflow, or "
                "its weights hold such values."
            )

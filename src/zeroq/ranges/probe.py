"""What a small change of a network's values does to its output, by gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from zeroq.divergence import Meaning
from zeroq.divergence.channels import by_channel, least_variance, tensors_of
from zeroq.divergence.scores import scores_of

SCORES = ("classification", "segmentation")  # tasks whose first output is all that counts


class Probe:
    """A random sum s of the output, with gradients g of it: E[(g . e)^2] is the squared change of the output by e.

    Signs are drawn for every number of the output, so that E over them leaves squares alone (Hutchinson 1989). If the
    errors e of a value's numbers are independent, the output's squared error is sum_j E[g_j^2] e_j^2.

    Of class scores it is the error apart from what all classes have in common, which changes no probability. It, and
    not the KL, for distilled images are classified with a certainty that hides errors from the KL's own curvature.
    Of other tasks each channel counts over its deviation, which the first batch has.
    """

    def __init__(self, meaning: Meaning) -> None:
        self.scores = meaning.task in SCORES and meaning.divergence is None
        self.generator = torch.Generator().manual_seed(0)
        self.deviations: list[Tensor] | None = None

    def backward(self, outputs: Any) -> None:
        """Gradients of one batch's sum, left at the values that it was computed from."""
        total = self.of_scores(scores_of(outputs)) if self.scores else self.of_channels(tensors_of(outputs))
        if isinstance(total, Tensor) and total.requires_grad:
            total.backward()

    def signs(self, like: Tensor) -> Tensor:
        """-1 and 1 by chance."""
        return torch.randint(0, 2, like.shape, generator=self.generator).to(like) * 2 - 1

    def of_scores(self, scores: Tensor) -> Tensor:
        """[N, K, ...] to one number."""
        signs = self.signs(scores)
        return (scores * (signs - signs.mean(1, keepdim=True))).sum()

    def of_channels(self, outputs: list[Tensor]) -> Tensor | int:
        """All outputs to one number, each output and each of its channels with the same weight."""
        channels = [by_channel(output) for output in outputs]
        if self.deviations is None:
            self.deviations = [deviation(each.detach()) for each in channels]
        return sum(
            (self.signs(each) * each / side).sum() / each[0].numel() ** 0.5
            for each, side in zip(channels, self.deviations, strict=True)
        )


def deviation(output: Tensor) -> Tensor:
    """Of each channel, [N, positions, channels] to [channels]."""
    flat = output.flatten(0, 1)
    variance = flat.var(0, correction=0)
    return variance.clamp(min=least_variance(variance, flat.square().mean(0))).sqrt()

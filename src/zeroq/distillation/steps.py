"""Steps that make an objective of images smaller, each taken back if it leads astray."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn, Protocol

import torch
from torch import Tensor

from zeroq.distillation.share import WHOLE, Share
from zeroq.distillation.starts import column, shape_spectrum
from zeroq.distillation.statistics import InputStatistic
from zeroq.errors import NumericalError

LEARNING_RATE = 0.2  # of the input's deviation
MOMENTUM, SQUARES = 0.8, 0.9  # of Adam; 0.9 and 0.99 left twice the loss after 36 steps
RISE = 2.0  # a loss so many times the least so far takes a step back; what had to rise by 1.6 at first still may
BACK, FORTH = 0.25, 1.3  # factors of the step size after a step that was taken back, and after one that was not
LARGE = 128  # pixels of a side from which steps have the spectrum 1/f


class Objective(Protocol):
    """What images are optimised for."""

    @property
    def statistic(self) -> InputStatistic:
        """The images' deviation, which a step is measured in, and the values that they may have."""

    def loss(self, images: Tensor) -> Tensor:
        """What is to become small; a number, differentiable; NaN or infinity where the images have none."""

    def refuse(self, images: Tensor) -> NoReturn:
        """Raise NumericalError that says where images without a finite loss go wrong."""


@dataclass(frozen=True)
class Place:
    """Images whose loss was accepted, and the step that leads on from them."""

    images: Tensor
    loss: float
    least: float  # of this loss and all that were accepted before
    change: Tensor  # in deviations of the input, for a step size of 1


def optimise(
    batch: Tensor, objective: Objective, iterations: int, report: Callable[[], None], share: Share = WHOLE
) -> Tensor:
    """One batch after `iterations` steps of Adam, their size falling along half a cosine. Raises NumericalError.

    Adam's steps are white noise at first. For large images it works on what a filter of spectrum 1/f turns into them,
    so that steps move large areas together: a loss of 0.18 in place of 0.66 on MobileNetV1 (224 px, 36 steps; real
    pictures have 0.42). Small images are better off without: 0.11 in place of 0.45 on ResNet18 (64 px).
    A step to a loss far above the least so far, or to none, is taken back and a shorter one tried: the filter lets a
    shift of a whole image grow to 8 deviations, which left ResNet18 of untrained weights at 9.8 (0.04 with this; both
    after 12 steps) and ESPNet at 20.1 (7.5). Limits of the step's size did harm elsewhere: 4.9 to 10.4 on EtiNyNet,
    which has 3.7.
    share: each process moves its part of the batch, for a loss that all of them have together, and gives the whole.
    """
    batch = share.own(batch)
    exponent = 1.0 if max(batch.shape[2:], default=0) >= LARGE else 0.0
    low, high, deviation = (column(getattr(objective.statistic, name), batch) for name in ("low", "high", "deviation"))
    moments, images, place, factor = Adam.start(batch), batch, None, 1.0
    for step in range(iterations):
        loss, gradient = value_and_gradient(objective, images)
        if acceptable(loss, share.all(bool(gradient.isfinite().all())), place):
            factor = min(1.0, factor * FORTH)
            moments = moments.updated(shape_spectrum(gradient, exponent))
            least = loss if place is None else min(loss, place.least)
            place = Place(images, loss, least, shape_spectrum(moments.direction(), exponent))
        elif place is None and math.isfinite(loss):
            raise NumericalError("The gradient of distilled images is NaN or infinite: check the network's weights.")
        elif place is None:
            objective.refuse(images)
        else:
            factor *= BACK
        size = factor * LEARNING_RATE * (1 + math.cos(math.pi * step / iterations)) / 2
        images = torch.clamp(place.images - size * deviation * place.change, low, high)
        report()
    return share.whole(images if place is None or better(objective, images, place) else place.images)


def value_and_gradient(objective: Objective, images: Tensor) -> tuple[float, Tensor]:
    """The loss at images, and its gradient."""
    images = images.detach().requires_grad_()
    loss = objective.loss(images)
    (gradient,) = torch.autograd.grad(loss, images)
    return loss.item(), gradient


def acceptable(loss: float, finite: bool, place: Place | None) -> bool:
    """Whether a step led to numbers (its gradient: finite), and to no loss that is far above the least so far."""
    return math.isfinite(loss) and finite and (place is None or loss <= RISE * place.least)


def better(objective: Objective, images: Tensor, place: Place) -> bool:
    """Whether the last images, whose loss no step asked for, are no worse than those before."""
    with torch.no_grad():
        return objective.loss(images).item() <= place.loss


@dataclass(frozen=True)
class Adam:
    """Running means of a gradient and of its square (Kingma and Ba 2014)."""

    first: Tensor
    second: Tensor
    count: int

    @classmethod
    def start(cls, like: Tensor) -> Adam:
        return cls(torch.zeros_like(like), torch.zeros_like(like), 0)

    def updated(self, gradient: Tensor) -> Adam:
        """With one more gradient."""
        first, second = self.first.lerp(gradient, 1 - MOMENTUM), self.second.lerp(gradient.square(), 1 - SQUARES)
        return Adam(first, second, self.count + 1)

    def direction(self) -> Tensor:
        """What is to be subtracted, about 1 in size."""
        first, second = self.first / (1 - MOMENTUM**self.count), self.second / (1 - SQUARES**self.count)
        return first / (torch.sqrt(second) + 1e-20)

"""Steps of the optimisation: what leads astray is taken back, and what has no numbers from the start is refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NoReturn

import pytest
import torch
from torch import Tensor

from zeroq.distillation import InputStatistic
from zeroq.distillation.steps import BACK, Adam, optimise
from zeroq.errors import NumericalError

START = torch.full((1, 1, 2, 2), 0.5)


class Recorded:
    """An objective whose n-th value is multiplied by what `factor(n)` gives; it keeps the images it was asked for."""

    statistic = InputStatistic((0.0,), (0.5,), (-2.0,), (2.0,))

    def __init__(self, factor: Callable[[int], float] = lambda asked: 1.0) -> None:
        self.factor = factor
        self.asked: list[Tensor] = []

    def loss(self, images: Tensor) -> Tensor:
        self.asked.append(images.detach().clone())
        return images.square().sum() * self.factor(len(self.asked))

    def refuse(self, images: Tensor) -> NoReturn:
        raise NumericalError(f"no number at {images.mean():g}")


def run(objective: Recorded, iterations: int) -> Tensor:
    return optimise(START, objective, iterations, lambda: None)


@pytest.mark.parametrize("factor", [100.0, math.nan, math.inf])
def test_a_step_to_a_far_greater_loss_or_to_no_number_is_taken_back(factor: float) -> None:
    objective = Recorded(lambda asked: factor if asked == 2 else 1.0)
    run(objective, iterations=4)
    first, second = objective.asked[1] - START, objective.asked[2] - START
    falling = (1 + math.cos(math.pi / 4)) / 2  # of the step size from one step to the next
    assert first.abs().min() > 0.05
    torch.testing.assert_close(second, BACK * falling * first)


def test_a_step_to_a_somewhat_greater_loss_stays() -> None:
    objective = Recorded(lambda asked: 2.0 if asked == 2 else 1.0)
    run(objective, iterations=4)
    assert objective.asked[2].mean() < objective.asked[1].mean() < START.mean()


def test_last_images_that_are_worse_or_no_number_give_way_to_those_before() -> None:
    for factor in (3.0, math.nan):
        objective = Recorded(lambda asked, factor=factor: factor if asked == 4 else 1.0)  # type: ignore[misc]
        assert torch.equal(run(objective, iterations=3), objective.asked[2])
    objective = Recorded()
    assert torch.equal(run(objective, iterations=3), objective.asked[3])


def test_a_loss_without_numbers_from_the_start_is_refused() -> None:
    with pytest.raises(NumericalError, match=r"no number at 0\.5"):
        run(Recorded(lambda asked: math.nan), iterations=2)


class Steep(Recorded):
    """An objective that is a number where its gradient is none."""

    def loss(self, images: Tensor) -> Tensor:
        return (images - START).abs().sum().sqrt()


def test_a_gradient_without_numbers_from_the_start_is_refused_as_one() -> None:
    with pytest.raises(NumericalError, match="^The gradient of distilled images is NaN or infinite"):
        run(Steep(), iterations=2)


def test_no_steps_leave_the_images_alone() -> None:
    assert torch.equal(run(Recorded(), iterations=0), START)


def test_directions_are_those_of_torch() -> None:
    parameter = torch.zeros(4, requires_grad=True)
    theirs = torch.optim.Adam([parameter], lr=1.0, betas=(0.8, 0.9), eps=1e-20)
    ours, place = Adam.start(torch.zeros(4)), torch.zeros(4)
    for gradient in torch.randn(5, 4, generator=torch.Generator().manual_seed(0)):
        parameter.grad = gradient
        theirs.step()
        ours = ours.updated(gradient)
        place = place - ours.direction()
    torch.testing.assert_close(place, parameter.detach())

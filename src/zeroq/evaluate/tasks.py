"""Tasks: what a network's output means, how it is scored and how it is compared with another's."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from zeroq.divergence import kl_divergence, same_class
from zeroq.errors import OptionError

AWAITED = ("segmentation", "detection", "regression")


@dataclass(frozen=True)
class Task:
    """One meaning of the output.

    divergence, same: reference's and network's outputs to one number per image, [N].
    count: outputs and labels to a tensor that is added up over batches.
    metrics: that sum and the number of images to the figures, shares in fractions of one.
    """

    name: str
    divergence: Callable[[Tensor, Tensor], Tensor]
    same: Callable[[Tensor, Tensor], Tensor]
    count: Callable[[Tensor, Tensor], Tensor]
    metrics: Callable[[Tensor, int], dict[str, float]]


def task_named(name: str) -> Task:
    """The task of that name. Raises OptionError for one that is unknown or not there yet."""
    if name in TASKS:
        return TASKS[name]
    if name in AWAITED:
        raise OptionError(f"Evaluation of {name} is not there yet: today's task is classification.")
    raise OptionError(f"TASK is {name!r}: give one of {', '.join((*TASKS, *AWAITED))}.")


def guess_task(output_shape: Sequence[int]) -> tuple[str, str]:
    """The name of the task that an output of this shape, batch included, is taken for, and the warning that says so."""
    guesses = {2: ("classification", "class scores"), 4: ("segmentation", "class scores per pixel")}
    name, meaning = guesses.get(len(output_shape), ("regression", "numbers to be met"))
    shape = ", ".join(["N", *(str(side) for side in output_shape[1:])])
    warning = f"TASK is not given: the output [{shape}] is taken as {meaning} ({name}); set TASK if it is not."
    return name, warning


def _count_hits(scores: Tensor, labels: Tensor) -> Tensor:
    """How many images have their label first, and among the first five; [N, K] and [N] to float64 [2].

    A class of equal score and lower index stands before the label, so that quantized scores, which often are equal,
    are counted alike everywhere.
    """
    of_label = scores.gather(1, labels[:, None])
    lower_index = torch.arange(scores.shape[1])[None] < labels[:, None]
    rank = ((scores > of_label) | ((scores == of_label) & lower_index)).sum(dim=1)
    return torch.stack([(rank < 1).sum(), (rank < 5).sum()]).double()


def _hit_rates(hits: Tensor, images: int) -> dict[str, float]:
    top1, top5 = (hits / images).tolist()
    return {"top1": top1, "top5": top5, "standard_error": math.sqrt(top1 * (1 - top1) / images)}


TASKS = {"classification": Task("classification", kl_divergence, same_class, _count_hits, _hit_rates)}

"""The stages of one network, ours and those of the paper's recipe, timed in one run on the same number of images."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from benchmarks import recipe
from benchmarks.peaks import peak_mb
from benchmarks.speed_subject import WIDTHS, Subject, quality, reference_of, sensitivities
from benchmarks.unit import unit_seconds
from zeroq import devices
from zeroq.allocate import pareto_frontier
from zeroq.distillation import distill
from zeroq.effort import EFFORTS
from zeroq.precision import Precision, choose_precision
from zeroq.resident import forget_peak, trim

TIMED_STEPS, TIMED_PASSES = 4, 6  # of the recipe, after one that is not counted
ROUNDS = 5  # of the frontiers, which take milliseconds

T = TypeVar("T")


class Spent(NamedTuple):
    """What a computation took; the memory is that of the whole process at its peak, which a GPU's is no part of."""

    seconds: float
    peak_mb: float


def measured(subject: Subject, *, whole: bool) -> dict[str, Any]:
    """All stages; whole: the recipe's images are made to the end, so that they can be judged as well."""
    precision = choose_precision(subject.network)[0]
    unit = unit_seconds(subject.network, precision)
    images, of_images = timed(lambda: ours_distilled(subject, precision), subject.device)
    recipe_images, recipe_of_images = recipe_distilled(subject, whole=whole)
    found, of_sensitivity = timed(lambda: sensitivities(subject, images), subject.device)
    recipe_of_sensitivity = recipe_sensitivity(subject, images)
    spent = {
        "images": {"ours": of_images, "recipe": recipe_of_images},
        "sensitivity": {"ours": of_sensitivity, "recipe": recipe_of_sensitivity},
    }
    return {
        "precision": f"{precision.name} {precision.layout}",
        "unit_seconds": round(unit, 4),
        "layers": len(subject.folded.layers),
        "images": len(images),
        "whole": whole,
        "seconds": {stage: {who: round(each.seconds, 3) for who, each in both.items()} for stage, both in spent.items()}
        | {"frontier": frontier_seconds(subject, found)},
        "peak_mb": {stage: {who: each.peak_mb for who, each in both.items()} for stage, both in spent.items()},
        "quality": qualities(subject, images, found, recipe_images),
    }


def timed(function: Callable[[], T], device: torch.device = devices.CPU) -> tuple[T, Spent]:
    """What a function gives, and what it takes; device: that computes, whose work is waited for."""
    trim()
    forget_peak()
    devices.finish(device)
    begin = time.perf_counter()
    value = function()
    devices.finish(device)
    return value, Spent(time.perf_counter() - begin, peak_mb())


def ours_distilled(subject: Subject, precision: Precision) -> Tensor:
    """As many images as the recipe has, with the iterations of --effort balanced."""
    return distill(
        subject.network, subject.statistic, count=recipe.IMAGES, iterations=EFFORTS["balanced"].iterations, seed=0,
        precision=precision,
    )  # fmt: skip


def recipe_distilled(subject: Subject, *, whole: bool) -> tuple[Tensor | None, Spent]:
    """The recipe's images if they are made to the end, and what its iterations take."""
    begin = recipe.start(subject.network)
    if whole:
        return timed(lambda: recipe.distilled(begin, subject.network, recipe.ITERATIONS), subject.device)
    recipe.distilled(begin, subject.network, 1)
    _, spent = timed(lambda: recipe.distilled(begin, subject.network, TIMED_STEPS), subject.device)
    return None, Spent(spent.seconds / TIMED_STEPS * recipe.ITERATIONS, spent.peak_mb)


def recipe_sensitivity(subject: Subject, images: Tensor) -> Spent:
    """A full pass for every layer and width, from a few of them spread over the layers."""
    layers = subject.folded.layers
    chosen = [layers[int(place)] for place in np.linspace(0, len(layers) - 1, TIMED_PASSES)]
    with torch.inference_mode():
        reference = subject.folded.run(images)
    passes = []
    for layer in chosen:
        one_pass = partial(recipe.sensitivity, subject.folded, layer, 4, images, reference, subject.weight)
        passes.append(timed(one_pass, subject.device)[1])
    of_one = statistics.median(each.seconds for each in passes)
    return Spent(of_one * len(layers) * len(WIDTHS), max(each.peak_mb for each in passes))


def frontier_seconds(subject: Subject, costs: list[list[float]]) -> dict[str, float]:
    """Of our exact frontier and of the recipe's bins, medians."""
    sizes = [[width * layer.parameters for width in WIDTHS] for layer in subject.folded.layers]
    both: dict[str, Callable[[], Any]] = {
        "ours": lambda: pareto_frontier(sizes, costs),
        "recipe": lambda: recipe.binned(sizes, costs),
    }
    return {
        who: round(statistics.median(timed(each)[1].seconds for _ in range(ROUNDS)), 5) for who, each in both.items()
    }


def qualities(
    subject: Subject, images: Tensor, found: list[list[float]], recipe_images: Tensor | None
) -> dict[str, dict[str, float]]:
    """Of our images, whose sensitivities are found, and of the recipe's where there are any."""
    reference = reference_of(subject)
    judged = {"ours": quality(subject, images, found, reference)}
    if recipe_images is not None:
        theirs = None if reference is None else sensitivities(subject, recipe_images)
        judged["recipe"] = quality(subject, recipe_images, theirs, reference)
    return judged

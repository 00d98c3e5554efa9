"""One step of distillation beside what it cannot do without on this machine: its seconds, its floor, where they go."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.speed_subject import Subject
from benchmarks.step_counts import KINDS, Pass, passes_of
from benchmarks.step_shares import shares_of_step
from benchmarks.unit import IMAGES, one_unit
from zeroq.distillation.images import batch_size, prepare
from zeroq.distillation.starts import natural_noise
from zeroq.distillation.steps import Objective, optimise
from zeroq.precision import Precision, choose_precision

ROUNDS = 7  # of a step and a unit in turns, behind a first one of each that does not count
SIDE = 2048  # of the matrices whose product tells the most operations a second
COPIED = 1 << 28  # bytes of the copy that tells the most bytes a second, beyond any cache
TRIES = 5


@dataclass(frozen=True)
class Peaks:
    """The most that the machine gives: multiply-accumulates in the run's precision, and bytes read or written."""

    multiply_accumulates: float  # a second
    bytes_moved: float  # a second

    def floor(self, each: Pass, images: int) -> float:
        """Least seconds of a pass of one operator."""
        computing = images * each.multiply_accumulates / self.multiply_accumulates
        return max(computing, each.bytes_moved(images) / self.bytes_moved)


def measured(subject: Subject) -> dict[str, Any]:
    """A step of 32 images on a CPU; where memory bounds a batch, of fewer and multiplied."""
    precision = choose_precision(subject.network)[0]
    size = batch_size(subject.network, IMAGES, precision)
    shape = (size, *subject.network.example[0].shape[1:])
    images = natural_noise(shape, subject.statistic, torch.Generator().manual_seed(0))
    objective = prepare(subject.network, subject.statistic, precision)
    peaks = peaks_of(precision)
    steps, units = in_turns(images, objective, lambda: one_unit(subject.network, precision))
    shares = shares_of_step(images, objective)
    passes = passes_of(subject.network, precision.dtype.itemsize)
    parts = {kind: part([each for each in passes if each.kind == kind], peaks, size) for kind in KINDS}
    return {
        "precision": f"{precision.name} {precision.layout}",
        "batch": size,
        "unit_seconds": round(statistics.median(units), 5),
        "step_seconds": round(statistics.median(steps) * IMAGES / size, 5),
        "peaks": {name: round(value) for name, value in dataclasses.asdict(peaks).items()},
        "parts": {kind: least | {"share": round(shares[kind], 4)} for kind, least in parts.items()},
    }


def part(passes: list[Pass], peaks: Peaks, size: int) -> dict[str, float]:
    """What one kind of operators cannot do without, for 32 images in batches of that size."""
    batches = IMAGES / size
    return {
        "multiply_accumulates": IMAGES * sum(each.multiply_accumulates for each in passes),
        "bytes_moved": round(batches * sum(each.bytes_moved(size) for each in passes)),
        "floor_seconds": round(batches * sum(peaks.floor(each, size) for each in passes), 6),
    }


def in_turns(images: Tensor, objective: Objective, unit: Callable[[], float]) -> tuple[list[float], list[float]]:
    """Seconds of steps from images on, and of units between them."""
    steps: list[float] = []
    units: list[float] = []
    begin = time.perf_counter()

    def report() -> None:
        nonlocal begin
        steps.append(time.perf_counter() - begin)
        units.append(unit())
        begin = time.perf_counter()

    optimise(images, objective, ROUNDS + 1, report)
    return steps[1:], units[1:]


def peaks_of(precision: Precision) -> Peaks:
    """Of this machine and as many threads as torch has, by a product of two matrices and a copy."""
    left, right = (torch.randn(SIDE, SIDE).to(precision.dtype) for _ in range(2))
    source, target = (torch.ones(COPIED // 4) for _ in range(2))
    product, copy = least_seconds(lambda: left @ right), least_seconds(lambda: target.copy_(source))
    return Peaks(SIDE**3 / product, 2 * COPIED / copy)


def least_seconds(function: Callable[[], Any]) -> float:
    """Of some calls, behind one that does not count."""
    function()
    spent = []
    for _ in range(TRIES):
        begin = time.perf_counter()
        function()
        spent.append(time.perf_counter() - begin)
    return min(spent)

"""Which part of a step of distillation goes where, by torch's profiler on a CPU."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NoReturn

from torch import Tensor
from torch.profiler import ProfilerActivity, profile, record_function

from benchmarks.step_counts import (
    ACTIVATIONS,
    CONVOLUTIONS,
    DEPTHWISE,
    KINDS,
    OPTIMISER,
    RECTIFYING,
    REST,
    STATISTICS,
    letters,
)
from zeroq.distillation.statistics import InputStatistic
from zeroq.distillation.steps import Objective, optimise

STEPS = 4  # that are profiled; the first does not count
FORWARD = "loss of a step"  # the range that a pass forward is recorded in
BACKWARD = "autograd::engine::evaluate_function: "  # before the name of an operator's gradient
MULTIPLYING = {"linear", "addmm", "mm", "matmul", "bmm", "mkldnnlinear"}  # beside convolutions
MEASURING = {"normaliseandmeasure", "batchnorm", "nativebatchnorm"}


@dataclass(frozen=True)
class Recorded:
    """An objective whose passes forward the profiler finds."""

    objective: Objective

    @property
    def statistic(self) -> InputStatistic:
        return self.objective.statistic

    def loss(self, images: Tensor) -> Tensor:
        with record_function(FORWARD):
            return self.objective.loss(images)

    def refuse(self, images: Tensor) -> NoReturn:
        self.objective.refuse(images)


def shares_of_step(images: Tensor, objective: Objective) -> dict[str, float]:
    """Share of each of KINDS in the time of a step, sum 1; images: of one batch, to begin with."""
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as profiler:
        optimise(images, Recorded(objective), STEPS, lambda: None)
    return shares([event for event in profiler.events() or () if event.cpu_parent is None])


def shares(roots: Iterable[Any]) -> dict[str, float]:
    """Of recorded operators that no other called: from the second pass forward to the last, which only judges."""
    ordered = sorted(roots, key=lambda event: event.time_range.start)
    passes = [event for event in ordered if event.name == FORWARD]
    begin, end = passes[1].time_range.start, passes[-1].time_range.start
    spent = dict.fromkeys(KINDS, 0.0)
    for event in ordered:
        if begin <= event.time_range.start < end:
            add(event, kind_of_root(event), spent)
    spent[REST] = 0.0  # with the time between operators, in which Python runs
    spent[REST] = max(0.0, end - begin - sum(spent.values()))
    return {kind: spent[kind] / sum(spent.values()) for kind in KINDS}


def kind_of_root(event: Any) -> str:
    """Of passes, what their parts do not claim is the rest; all beside passes is the optimiser's."""
    return REST if event.name == FORWARD or event.name.startswith(BACKWARD) else OPTIMISER


def add(event: Any, kind: str, spent: dict[str, float]) -> None:
    """An operator's own time, and that of those it calls, which are of its kind once it has one.

    What the engine itself calls behind a gradient is the sum of gradients of one value.
    """
    spent[kind] += event.self_cpu_time_total
    for child in event.cpu_children:
        summing = event.name.startswith(BACKWARD) and child.name.startswith("aten::")
        add(child, kind if kind != REST or summing else kind_of(child), spent)


def kind_of(event: Any) -> str:
    """Of an operator in a pass: "aten::relu_", "ConvolutionBackward0" or the like."""
    operator, backward, _ = letters(event.name.removeprefix("aten::")).partition("backward")
    if operator.startswith("conv"):
        # A gradient's operands are the gradient of the result, the value and the weight.
        value, weight = event.cpu_children[0].input_shapes[1:3] if backward else event.input_shapes[:2]
        return DEPTHWISE if weight[1] == 1 and value[1] > 1 else CONVOLUTIONS
    if operator in MULTIPLYING:
        return CONVOLUTIONS
    if operator in MEASURING:
        return STATISTICS
    return ACTIVATIONS if operator in RECTIFYING else REST

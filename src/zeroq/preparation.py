"""What every stage needs of a network, computed anew in each run: graph, folded graph, quantizers, plan of layers."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import Tensor

from zeroq.allocate import budget_in_weight_bits
from zeroq.distillation import (
    InputStatistic,
    Trust,
    can_match,
    examine,
    few_batches,
    natural_statistic,
    warnings_of,
)
from zeroq.errors import DataError, OptionError
from zeroq.evaluate import calibration_pictures, guess_task, task_named
from zeroq.graph import Network, capture, fold
from zeroq.guidance import guidance, unknown_outputs
from zeroq.models import LoadedModel
from zeroq.options import Options
from zeroq.setting import LayerPlan, plan_layers
from zeroq.simulate import Placement, place

CALIBRATION_PICTURES = 64
FEWEST_PICTURES = 4  # unless fewer are asked for: one of four is held out from all fitting


@dataclass(frozen=True)
class Prepared:
    """A model and its options, understood."""

    model: LoadedModel
    options: Options
    task: str
    network: Network  # as captured, with its BatchNorms
    folded: Network
    placement: Placement
    plan: LayerPlan
    statistic: InputStatistic
    trust: Trust  # in the running statistics; empty where they are not used
    pictures: Tensor | None  # of --calibration, [N, C, H, W]
    warnings: tuple[str, ...]
    seconds: float


def prepare(model: LoadedModel, options: Options) -> Prepared:
    """Capture, fold, and resolve what the options say of tasks, layers and pictures.

    Raises whatever can be wrong with them, before anything is written or takes long.
    """
    start = time.perf_counter()
    generator = torch.Generator().manual_seed(0)
    network = capture(model.module, torch.randn(2, *model.input_shape, generator=generator))
    folded = fold(network)
    task, guessed = resolve_task(model, network)
    plan = plan_layers(folded, options)
    check_target(plan, options)
    warnings = [*model.warnings, *guessed]
    statistic = input_statistic(model, options)
    trust, doubted = believed(model, network, statistic, options)
    warnings += doubted
    placement = place(folded, plan.floating)
    if options.calibration is None:
        warnings += [*guidance(network), *unknown_outputs(network, folded, placement)]
    seconds = round(time.perf_counter() - start, 3)
    pictures = own_pictures(model, options)
    return Prepared(
        model, options, task, network, folded, placement, plan, statistic, trust, pictures, tuple(warnings), seconds
    )


def believed(
    model: LoadedModel, network: Network, statistic: InputStatistic, options: Options
) -> tuple[Trust, list[str]]:
    """Which running statistics the distillation may match, and what is to be said of the others."""
    if options.calibration is not None or not can_match(network):
        return Trust({}, ()), []
    trust = examine(network, statistic)
    return trust, [*warnings_of(trust), *few_batches(model.module.state_dict())]


def check_target(plan: LayerPlan, options: Options) -> None:
    """Refuse a mean width that no setting reaches; what a size in megabytes leaves is known when files can be made."""
    budget_in_weight_bits(
        least=sum(min(plan.widths[name]) * count for name, count in plan.parameters.items()),
        weights=sum(plan.parameters.values()),
        average_bits=options.average_bits,
        compression=options.compression,
    )


def own_pictures(model: LoadedModel, options: Options) -> Tensor | None:
    """Pictures of --calibration, as many as images would be distilled; None without that option."""
    if (source := options.calibration) is None:
        return None
    count = options.images or CALIBRATION_PICTURES
    found = calibration_pictures(source, model.preprocessing, count, options.seed)
    if len(found) < min(count, FEWEST_PICTURES):
        raise DataError(
            f"{source} holds {len(found)} picture(s): give at least {FEWEST_PICTURES}, better {CALIBRATION_PICTURES}."
        )
    return found


def resolve_task(model: LoadedModel, network: Network) -> tuple[str, list[str]]:
    """The task that the model names, or the one that its output looks like, with a warning."""
    if model.task is not None:
        task_named(model.task)
        return model.task, []
    with torch.inference_mode():
        output = network.run(*network.example)
    task, warning = guess_task(tuple(output.shape) if isinstance(output, torch.Tensor) else ())
    task_named(task)
    return task, [warning]


def input_statistic(model: LoadedModel, options: Options) -> InputStatistic:
    """What pixels are like: as the options say, as the model brings it, or as in natural pictures."""
    given = (options.input_mean, options.input_std) if options.input_mean is not None else model.input_statistic
    mean, std = given or (None, None)
    if mean is not None and len(mean) != model.input_shape[0]:
        raise OptionError(
            f"--input-mean has {len(mean)} values and the network's input {model.input_shape[0]} channels: "
            "give one per channel."
        )
    return natural_statistic(model.preprocessing, mean, std)

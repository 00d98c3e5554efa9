"""What every stage needs of a network, computed anew in each run: graph, folded graph, quantizers, plan of layers."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, fx

from zeroq.bounds import limits_of
from zeroq.distillation import (
    InputStatistic,
    Trust,
    Units,
    examine,
    few_batches,
    natural_statistic,
    neutral_statistic,
    units_of,
    warnings_of,
)
from zeroq.divergence import Meaning, guess_task
from zeroq.effort import EFFORTS, Effort
from zeroq.errors import DataError, OptionError
from zeroq.evaluate import calibration_pictures
from zeroq.graph import Network, capture, fold
from zeroq.guidance import guidance, unguided, unknown_outputs
from zeroq.models import LoadedModel
from zeroq.models.meaning import meaning_of
from zeroq.models.outputs import check_outputs
from zeroq.models.several import pictures_among, preprocess_dict
from zeroq.numbers.values import ActivationRange, BitSetting, Ranges
from zeroq.options import Options
from zeroq.repair import Family, centre, families, scaled
from zeroq.setting import LayerPlan, plan_layers
from zeroq.simulate import Placement, place
from zeroq.simulate.peak import Memory, memory_of
from zeroq.simulate.placement import WIDE_BITS, quantizer_bits, with_ceilings_times
from zeroq.version import __version__

CALIBRATION_PICTURES = 64
FEWEST_PICTURES = 4  # unless fewer are asked for: one of four is held out from all fitting


@dataclass(frozen=True)
class Prepared:
    """A model and its options, understood."""

    model: LoadedModel
    options: Options
    meaning: Meaning
    network: Network  # as captured, with its BatchNorms
    folded: Network
    placement: Placement
    memory: Memory
    plan: LayerPlan
    statistics: tuple[InputStatistic, ...]  # one for each input
    trust: Trust  # in the running statistics; empty where they are not used
    pictures: Tensor | None  # of --calibration, [N, C, H, W]
    warnings: tuple[str, ...]
    seconds: float
    centres: Mapping[str, Tensor] = field(default_factory=dict)  # by site, what the folded network's outputs are less
    factors: Mapping[str, Tensor] = field(default_factory=dict)  # by site, what they are multiplied by then

    def centred(self, centres: Mapping[str, Tensor]) -> Prepared:
        """With so much taken off the channels of what some layers give, float64 [channels] (repair/centring.py)."""
        return replace(self, folded=centre(self.folded, centres), centres=centres)

    def scaled(self, factors: Mapping[str, Tensor]) -> Prepared:
        """With the channels of some families times factors, float64 [channels], by their names (repair/families.py)."""
        own = [family for family in families(self.folded) if family.name in factors]
        device = self.folded.example[0].device
        by_site = {layer.sites[0]: factors[family.name].to(device) for family in own for layer in family.given}
        least = {value: float(factors[family.name].min()) for family in own for value in family.values}
        placement = with_ceilings_times(self.placement, least)
        return replace(self, folded=scaled(self.folded, factors), placement=placement, factors=by_site)

    @cached_property
    def scalable(self) -> dict[Family, list[str]]:
        """Values whose quantizers measure them and whose channels may have factors, by their families.

        Those that weights pay for only where inputs have fewer than 8 bits, and no more than weights may have.
        """
        measured = {value for quantizer in self.placement.quantizers for value in quantizer.measured}
        least = min(self.plan.input_bits.values())
        narrow = least < WIDE_BITS and least <= self.options.candidate_widths[-1]
        found = {
            family: [each for each in family.values if each in measured]
            for family in families(self.folded) if family.free or narrow
        }  # fmt: skip
        return {family: values for family, values in found.items() if values}

    @property
    def effort(self) -> Effort:
        """What the level of effort means for inputs of this size."""
        return EFFORTS[self.options.effort].for_inputs(max(value[0].numel() for value in self.network.example))

    def at(self, setting: BitSetting) -> Prepared:
        """With the inputs' bits of a setting."""
        return replace(self, plan=self.plan.at(setting))

    def to(self, device: torch.device) -> Prepared:
        """With what is computed with on a device; the user's pictures, which become images, stay where they are."""
        network, folded, trust = self.network.to(device), self.folded.to(device), self.trust.to(device)
        centres = {site: amounts.to(device) for site, amounts in self.centres.items()}
        factors = {site: amounts.to(device) for site, amounts in self.factors.items()}
        return replace(self, network=network, folded=folded, trust=trust, centres=centres, factors=factors)


def understood(model: LoadedModel, network: Network) -> tuple[Meaning, list[str]]:
    """What the output means, and a warning where that was guessed: behind a sigmoid stand labels of which none wins."""
    output = network.run(*network.example)
    check_outputs(output, model.task)
    if model.task is None and ends_in_sigmoid(network):
        task, warning = guess_task(tuple(output.shape), behind_sigmoid=True)
        return meaning_of(task, model.reading, output)[0], [warning]
    return meaning_of(model.task, model.reading, output)


def ends_in_sigmoid(network: Network) -> bool:
    """Whether the network's only output is a tensor that a sigmoid gives."""
    output = next(node for node in network.graph.nodes if node.op == "output")
    return isinstance(output.args[0], fx.Node) and output.args[0].target == torch.ops.aten.sigmoid.default


def prepare(model: LoadedModel, options: Options) -> Prepared:
    """Capture, fold, and resolve what the options say of tasks, layers and pictures.

    Raises whatever can be wrong with them, before anything is written or takes long.
    """
    start = time.perf_counter()
    network = capture(model.module, example_of(model))
    folded = fold(network)
    with torch.inference_mode():
        meaning, guessed = understood(model, network)
    plan = plan_layers(folded, options)
    placement = place(folded, plan.floating)
    statistics, of_units = in_units(model, options, network, input_statistics(model, options, network))
    trust, doubted = believed(model, network, statistics, options)
    warnings = [*model.warnings, *guessed]
    memory = memory_of(folded, placement, plan.input_bits)
    limits_of(plan, options, None, memory)  # what a size in megabytes leaves is known when files can be made
    if options.calibration is None:
        guided = guidance(network, optimised=options.iterations != 0) if model.example is None else unguided(network)
        warnings += [*of_units, *doubted, *guided, *unknown_outputs(network, folded, placement)]
    seconds = round(time.perf_counter() - start, 3)
    pictures = own_pictures(model, options)
    return Prepared(
        model, options, meaning, network, folded, placement, memory, plan, statistics, trust, pictures, tuple(warnings),
        seconds,
    )  # fmt: skip


def in_units(
    model: LoadedModel, options: Options, network: Network, statistics: tuple[InputStatistic, ...]
) -> tuple[tuple[InputStatistic, ...], list[str]]:
    """Statistics in the units that the network's input comes in, where nobody says them, and what is to be said."""
    found, said = list(statistics), []
    for index, taken in enumerate(statistics):
        units = units_of(network, index, taken)
        if units is None or not units.other:
            continue
        told = options.input_mean is not None or model.input_statistic is not None
        told |= taken.picture and not model.guessed
        found[index] = taken if told else units.statistic
        said.append(other_units(units, told))
    return tuple(found), said


def other_units(units: Units, told: bool) -> str:
    """What is said of an input whose deviation is not what it is taken for."""
    deviations, means = (sum(each) / len(each) for each in (units.statistic.deviation, units.statistic.mean))
    known = f"By {units.source} the input's deviation is about {deviations:.3g} and its mean {means:.3g}"
    if told:
        return (
            f"{known}, which is {units.times:.3g} times the deviation that its preprocessing gives: see whether that "
            "is right."
        )
    return f"{known}: images are made so, as nothing says what it is like."


def believed(
    model: LoadedModel, network: Network, statistics: tuple[InputStatistic, ...], options: Options
) -> tuple[Trust, list[str]]:
    """Which running statistics the distillation may match, and what is to be said of the others."""
    if options.calibration is not None or not network.norms:
        return Trust({}, ()), []
    trust = examine(network, statistics)
    measurable = model.example is None and model.given is not None
    return trust, [*warnings_of(trust), *few_batches(model.module.state_dict(), measurable=measurable)]


def any_ranges(prepared: Prepared) -> Ranges:
    """Ranges of the right widths, for what hangs on no number: what a network holds, and how long it takes."""
    bits = quantizer_bits(prepared.folded, prepared.placement, prepared.plan.input_bits)
    return Ranges({name: ActivationRange(-1.0, 1.0, width, "neither") for name, width in bits.items()})


def metadata_of(prepared: Prepared, setting: BitSetting) -> dict[str, Any]:
    """What the files of a network say of themselves, at the inputs' bits of `prepared`."""
    return {
        "version": __version__,
        "model": prepared.model.source,
        "task": prepared.meaning.task,
        "ignore": prepared.meaning.ignore,
        "seed": prepared.options.seed,
        "preprocess": preprocess_dict(prepared.model.preprocessing),
        "input_shape": prepared.model.shapes,
        "bits": dict(setting.bits),
        "activation_bits": dict(prepared.plan.input_bits),
    }


def example_of(model: LoadedModel) -> tuple[Tensor, ...]:
    """Inputs to capture the network with."""
    if model.example is not None:
        return model.example
    return (torch.randn(2, *model.input_shape, generator=torch.Generator().manual_seed(0)),)


def own_pictures(model: LoadedModel, options: Options) -> Tensor | None:
    """Pictures of --calibration, as many as images would be distilled; None without that option."""
    if (source := options.calibration) is None:
        return None
    count = options.images or EFFORTS[options.effort].images
    found = calibration_pictures(source, model.picture(), count, options.seed)
    if len(found) < min(count, FEWEST_PICTURES):
        raise DataError(
            f"{source} holds {len(found)} picture(s): give at least {FEWEST_PICTURES}, better {count}."
        )
    return found


def input_statistics(model: LoadedModel, options: Options, network: Network) -> tuple[InputStatistic, ...]:
    """What each input is like: pixels as the options say, as the model brings it, or as in natural pictures.

    Of an input that is no picture, what a BatchNorm that reads it says, or what the options say if it is the only
    one, else mean 0 and deviation 1.
    """
    given = (options.input_mean, options.input_std) if options.input_mean is not None else model.input_statistic
    mean, std = given or (None, None)
    pictures = pictures_among(network.example, model.preprocessing)
    found = []
    for name, value, picture in zip(network.inputs, network.example, pictures, strict=True):
        channels = int(value.shape[1]) if value.dim() > 1 else 1
        if mean is not None and (picture or not any(pictures)) and len(mean) != channels:
            raise OptionError(
                f"--input-mean has {len(mean)} values and the network's input {channels} channels: "
                "give one per channel."
            )
        if picture:
            assert model.preprocessing is not None, "pictures are those that fit the preprocessing"
            found.append(natural_statistic(model.preprocessing, mean, std))
        else:
            own = mean is not None and not any(pictures)
            found.append(neutral_statistic(network, name, channels, mean if own else None, std if own else None))
    return tuple(found)

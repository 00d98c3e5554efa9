"""Every layer rounded at every width that it may have, and what whole networks of them give on held-out images."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

import zeroq.devices as devices
from zeroq.distillation import starts, variants
from zeroq.divergence import Comparison, Meaning, places_of
from zeroq.effort import EFFORTS
from zeroq.graph import Inputs, Layer, as_inputs, as_tuple, chunks, count_images, slice_images
from zeroq.graph.live import IN_MEMORY, Room
from zeroq.graph.walk import CHUNK
from zeroq.numbers.operators import QUANTIZE_DEQUANTIZE
from zeroq.numbers.values import BitSetting, IntegerWeight, Ranges
from zeroq.preparation import Prepared
from zeroq.ranges import at_widths
from zeroq.ranks import ALONE, Ranks
from zeroq.rounding import ROWS_PER_IMAGE, Rounded, round_weights
from zeroq.sensitivity import Parameters, Quantized, rows
from zeroq.simulate import Placement, QuantizedNetwork, quantize_activations, quantize_network
from zeroq.simulate.placement import quantizer_bits

METHOD = "gptq"
# What is corrected by rounding: errors of the layers before as well, or of a layer's own the mean alone.
ERRORS, MEANS = "errors", "means"
Weights = Mapping[str, IntegerWeight]  # by layer
OnStep = Callable[[int, int], None]  # done, total
HELD_OUT = 4  # one image of so many is held out from all fitting
NOISE = 3  # one of so many of the images that ranges are fitted on is noise
PER_WEIGHT, PER_COLUMN = 25, 1.7e7  # of a layer rounded at three widths, in multiplications; from layers of ResNet18
UNLIKE_IMAGES = 16  # noise that what is fitted is judged on
# Places of all outputs together that candidates are judged on, at least, and images, where there are as many: an image
# of class scores is one place, a map of them has a place for each pixel and says as much as many images.
JUDGED_PLACES, JUDGED_IMAGES = 1 << 20, 16


@dataclass(frozen=True)
class Images:
    """Network inputs [N, C, H, W]: those that everything is fitted on, and those that choices are verified on.

    Of a network of several inputs a tuple of such tensors.
    """

    all: Inputs
    source: str  # as in Ranges: "distilled", "calibration", "neither"
    variants: Inputs | None = None  # of those that weights are rounded on, to round them on as well
    noise: Inputs | None = None  # of natural spectrum, to fit ranges on as well
    unlike: Inputs | None = None  # other noise, to judge what was fitted on
    most_rounded: int = EFFORTS["balanced"].rounded

    def to(self, device: torch.device) -> Images:
        """The same on a device, in the order in memory that networks run forward fastest in there."""
        given = {"all": self.all, "variants": self.variants, "noise": self.noise, "unlike": self.unlike}
        moved: dict[str, Any] = {
            name: as_inputs([devices.ordered(part.to(device)) for part in as_tuple(images)])
            for name, images in given.items() if images is not None
        }  # fmt: skip
        return replace(self, **moved)

    @property
    def fitting(self) -> Inputs:
        count = count_images(self.all)
        return slice_images(self.all, None, count - count // HELD_OUT)

    @property
    def rounding(self) -> Inputs:
        """Those of the fitting images whose values are kept layer after layer while weights are rounded."""
        return slice_images(self.fitting, None, self.most_rounded)

    @property
    def observed(self) -> Inputs:
        """Those that ranges are fitted on: noise takes the place of the last of the fitting images."""
        if self.noise is None:
            return self.fitting
        kept = max(1, count_images(self.fitting) - count_images(self.noise))
        return joined(slice_images(self.fitting, None, kept), self.noise)

    @property
    def held_out(self) -> Inputs:
        """The last quarter; a set of fewer than four images is verified on itself."""
        count = count_images(self.all)
        return slice_images(self.all, count - count // HELD_OUT, None) if count >= HELD_OUT else self.all


def accompanied(images: Images, prepared: Prepared, seed: int) -> Images:
    """Distilled images, and what is made beside them in no time."""
    example, statistics = prepared.network.example, prepared.statistics
    noise = max(1, count_images(images.fitting) // NOISE)
    return replace(
        images,
        variants=as_inputs(variants(as_tuple(images.rounding), statistics, seed + 1)),
        noise=as_inputs(starts(example, statistics, noise, seed + 3)),
        unlike=as_inputs(starts(example, statistics, UNLIKE_IMAGES, seed + 2)),
    )


@dataclass(frozen=True)
class Misfit:
    """Divergences of a network that was fitted. For that, held-out images alone are no judges: they were made like
    those that it is fitted to.
    """

    held_out: float
    with_noise: float  # and on noise, added


@dataclass(frozen=True, eq=False)
class Candidates:
    """Layers rounded at every width that they may have, and whole networks of them; computed when asked, then kept.

    ranks: processes that share layers and corrections out.
    """

    prepared: Prepared
    images: Images
    ranges: Ranges
    on_step: OnStep
    room: Room = IN_MEMORY  # for values
    ranks: Ranks = ALONE
    _by_method: dict[str, Rounded] = field(default_factory=dict)
    _settled: dict[tuple[Any, ...], Weights] = field(default_factory=dict)
    _reference: list[Any] = field(default_factory=list)  # one, once it is known

    def at(self, setting: BitSetting) -> Candidates:
        """With the inputs' bits of a setting."""
        if not setting.inputs:
            return self
        prepared = self.prepared.at(setting)
        bits = quantizer_bits(prepared.folded, prepared.placement, prepared.plan.input_bits)
        return replace(self, prepared=prepared, ranges=at_widths(self.ranges, bits), _by_method={})

    def rounded(self, method: str) -> Rounded:
        """By layer and width, each layer alone, on inputs of unrounded weights; every process is to ask."""
        if method not in self._by_method:
            widths = self.prepared.plan.widths
            given = self.images.rounding, self.images.variants
            images = sum(count_images(each) for each in given if each is not None)
            share = self.ranks.fair({each.name: rounding_cost(each, images) for each in self.prepared.plan.layers})
            own = {name: each for name, each in widths.items() if name in share}
            found = self.round(own, method=method, settle=False, correct=method == METHOD, on_step=self.on_step)
            every = self.ranks.merged(found)
            self._by_method[method] = {name: every[name] for name in widths}
        return self._by_method[method]

    def settled(self, setting: BitSetting, correction: str = ERRORS, on_step: OnStep | None = None) -> Weights:
        """By layer: with ERRORS one after another, each on what those before it give, with MEANS each alone, as
        `rounded` has it; by this process alone.
        """
        key = self.key(setting, correction)
        if key not in self._settled:
            widths = {name: (bits,) for name, bits in setting.bits.items()}
            rounded = self._by_method.get(METHOD) if correction == MEANS else None
            if rounded is None:
                settle = correction == ERRORS
                rounded = self.round(
                    widths, method=METHOD, settle=settle, correct=True,
                    reference=self.prepared.folded if settle else None, on_step=on_step,
                )  # fmt: skip
            self._settled[key] = {name: rounded[name][bits] for name, bits in setting.bits.items()}
        return self._settled[key]

    def key(self, setting: BitSetting, correction: str) -> tuple[Any, ...]:
        """What settled weights are kept under."""
        plan = self.prepared.plan
        return correction, *((setting[layer.name], plan.input_bits[layer.name]) for layer in plan.layers)

    def tried(
        self, setting: BitSetting, corrections: Sequence[str], on_step: OnStep
    ) -> dict[str, tuple[Weights, Misfit]]:
        """By correction: settled weights, and the misfit of the network that they make; every process is to ask."""
        for correction in corrections:  # one of the processes may have settled it to verify the setting
            key = self.key(setting, correction)
            for weights in self.ranks.gathered([self._settled.get(key)]):
                if weights is not None:
                    self._settled[key] = weights

        def judged(correction: str) -> tuple[Weights, Misfit]:
            weights = self.settled(setting, correction, on_step)
            return weights, self.misfit(self.network(weights))

        new_first = sorted(corrections, key=lambda each: self.key(setting, each) in self._settled)
        return dict(zip(new_first, self.ranks.mapped(judged, new_first), strict=True))

    def round(self, widths: Mapping[str, tuple[int, ...]], **how: Any) -> Rounded:
        """Layers at some widths; how: as in round_weights."""
        prepared = self.prepared
        graph, tensors, _ = quantize_activations(
            prepared.folded, prepared.placement, self.ranges, prepared.plan.input_bits
        )
        return round_weights(
            graph, tensors, prepared.plan.layers, widths, joined(self.images.rounding, self.images.variants),
            portable=prepared.options.portable, room=self.room, **how,
        )  # fmt: skip

    def parameters(self, method: str) -> Quantized:
        """A layer's weight at a width and the bias that goes with it, as measure_sensitivity asks for them."""
        rounded = self.rounded(method)

        def look_up(layer: Layer, width: int) -> Parameters:
            weight = rounded[layer.name][width]
            return weight.dequantized(), weight.bias

        return look_up

    def inputs(self, layer: Layer, width: int) -> Parameters:
        """A layer's own weight with its input at a width, as measure_sensitivity asks for it."""
        of_value = self.prepared.placement.of_value

        def quantized(site: fx.Node, values: Tensor) -> Tensor:
            name = of_value[site.all_input_nodes[0].name].name
            each = at_widths(self.ranges, {name: width})[name]
            scale, zero_point = torch.tensor(each.scale), torch.tensor(each.zero_point, dtype=torch.uint8)
            found: Tensor = QUANTIZE_DEQUANTIZE(values, scale, zero_point, each.grid.high)
            return found

        return self.prepared.folded.tensors[layer.weight], None, quantized

    def network(
        self, weights: Weights, placement: Placement | None = None, weight_only: Collection[str] = ()
    ) -> QuantizedNetwork:
        """The whole quantized network of some weights; placement: of its quantizers, where not all of them stand.

        weight_only: layers that compute in floating point.
        """
        prepared = self.prepared
        return quantize_network(
            prepared.folded, placement or prepared.placement, self.ranges, weights, prepared.plan.input_bits,
            weight_only,
        )  # fmt: skip

    @cached_property
    def judges(self) -> Inputs:
        """Held-out images that whole networks are compared with floating point on."""
        folded = self.prepared.folded
        with torch.inference_mode():
            places = places_of(self.prepared.meaning, folded.run(*folded.example))
        return slice_images(self.images.held_out, None, max(JUDGED_IMAGES, math.ceil(JUDGED_PLACES / places)))

    def divergence(self, network: Callable[..., Any]) -> float:
        """Of a whole network, mean over its judges."""
        return divergence_of(self.prepared.meaning, self.reference, network, self.judges, self.room.chunk)

    def misfit(self, network: Callable[..., Any]) -> Misfit:
        """Of a whole network."""
        held_out = self.divergence(network)
        if self.images.unlike is None:
            return Misfit(held_out, held_out)
        chunk = self.room.chunk
        reference = outputs(self.prepared.folded.run, self.images.unlike, chunk)
        return Misfit(
            held_out,
            held_out + divergence_of(self.prepared.meaning, reference, network, self.images.unlike, chunk),
        )

    def divergence_at(self, setting: BitSetting) -> float:
        """Of the whole quantized network with a setting, each layer rounded alone."""
        candidates = self.at(setting)
        return candidates.divergence(candidates.network(candidates.settled(setting, MEANS)))

    @property
    def reference(self) -> Any:
        """Outputs in floating point that every setting is compared with, whatever the bits of its inputs."""
        if not self._reference:
            self._reference.append(outputs(self.prepared.folded.run, self.judges, self.room.chunk))
        return self._reference[0]


def rounding_cost(layer: Layer, images: int) -> float:
    """What it takes to round a layer, in multiplications: the moments of its inputs, then its columns in turn."""
    columns, positions = layer.parameters // layer.shape[0], layer.multiply_accumulates // layer.parameters
    rows = images * min(positions, ROWS_PER_IMAGE)
    return columns * (rows * columns * layer.groups + PER_WEIGHT * layer.parameters + PER_COLUMN)


def joined(images: Inputs, others: Inputs | None) -> Inputs:
    """Some images behind others, input by input."""
    if others is None:
        return images
    return as_inputs([torch.cat(pair) for pair in zip(as_tuple(images), as_tuple(others), strict=True)])


def outputs(network: Callable[..., Any], images: Inputs, chunk: int = CHUNK) -> Any:
    """Outputs of a network for many images: one tensor [N, ...], or several in the form in which it gives them."""
    with torch.inference_mode():
        parts = [network(*part) for part in chunks(images, chunk)]
    return pytree.tree_map(lambda *each: torch.cat(each), *parts)


def compare(
    meaning: Meaning, reference: Any, network: Callable[..., Any], images: Inputs, chunk: int = CHUNK
) -> dict[str, Any]:
    """Divergence of a network from reference outputs and agreement with them, as result.json has them."""
    found = compared(Comparison(meaning), reference, network, images, chunk)
    return {"mean": found.divergence, "agreement": found.agreement, "images": count_images(images)}


def divergence_of(
    meaning: Meaning, reference: Any, network: Callable[..., Any], images: Inputs, chunk: int = CHUNK
) -> float:
    """Divergence alone, where agreement need not be computed."""
    return compared(Comparison(meaning, agreement=False), reference, network, images, chunk).divergence


def compared(
    comparison: Comparison, reference: Any, network: Callable[..., Any], images: Inputs, chunk: int
) -> Comparison:
    """All images added to a comparison, some at a time."""
    with torch.inference_mode():
        for index, part in enumerate(chunks(images, chunk)):
            comparison.add(rows(reference, index * chunk, len(part[0])), network(*part))
    return comparison

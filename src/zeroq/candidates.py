"""Every layer rounded at every width that it may have, and what whole networks of them give on held-out images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from zeroq.divergence import Comparison, Meaning
from zeroq.graph import Inputs, Layer, chunks, count_images, slice_images
from zeroq.graph.walk import CHUNK
from zeroq.numbers.values import BitSetting, Ranges
from zeroq.preparation import Prepared
from zeroq.rounding import Rounded, round_weights
from zeroq.simulate import quantize_activations, quantize_network

METHOD = "gptq"
HELD_OUT = 4  # one image of so many is held out from all fitting
ROUNDED_IMAGES = 96  # that weights are rounded on, at most (all of --effort best): their values are kept in memory


@dataclass(frozen=True)
class Images:
    """Network inputs [N, C, H, W]: those that everything is fitted on, and those that choices are verified on.

    Of a network of several inputs a tuple of such tensors.
    """

    all: Inputs
    source: str  # as in Ranges: "distilled", "calibration", "neither"

    @property
    def fitting(self) -> Inputs:
        count = count_images(self.all)
        return slice_images(self.all, None, count - count // HELD_OUT)

    @property
    def rounding(self) -> Inputs:
        """Those of the fitting images whose values are kept layer after layer while weights are rounded."""
        return slice_images(self.fitting, None, ROUNDED_IMAGES)

    @property
    def held_out(self) -> Inputs:
        """The last quarter; a set of fewer than four images is verified on itself."""
        count = count_images(self.all)
        return slice_images(self.all, count - count // HELD_OUT, None) if count >= HELD_OUT else self.all


@dataclass(frozen=True, eq=False)
class Candidates:
    """Every layer rounded at every width that it may have, on inputs of unrounded weights; computed when asked."""

    prepared: Prepared
    images: Images
    ranges: Ranges
    on_step: Callable[[int, int], None]
    _by_method: dict[str, Rounded] = field(default_factory=dict)

    def rounded(self, method: str) -> Rounded:
        """By layer and width; what was computed is kept as long as this object."""
        if method not in self._by_method:
            self._by_method[method] = self.round(method)
        return self._by_method[method]

    def round(self, method: str) -> Rounded:
        """By layer and width."""
        plan, prepared = self.prepared.plan, self.prepared
        graph, tensors, _ = quantize_activations(prepared.folded, prepared.placement, self.ranges, plan.input_bits)
        return round_weights(
            graph, tensors, plan.layers, plan.widths, self.images.rounding, method=method,
            portable=prepared.options.portable, settle=False, on_step=self.on_step,
        )  # fmt: skip

    def weight(self, method: str) -> Callable[[Layer, int], Tensor]:
        """A layer's weight at a width, as measure_sensitivity asks for it."""
        return lambda layer, width: self.rounded(method)[layer.name][width].dequantized()

    def divergence(self, setting: BitSetting) -> float:
        """Of the whole quantized network with a setting, mean over held-out images."""
        prepared = self.prepared
        weights = {name: self.rounded(METHOD)[name][bits] for name, bits in setting.bits.items()}
        network = quantize_network(prepared.folded, prepared.placement, self.ranges, weights, prepared.plan.input_bits)
        return divergence_of(prepared.meaning, self.reference, network, self.images.held_out)

    @cached_property
    def reference(self) -> Any:
        """Outputs in floating point that every setting is compared with."""
        return outputs(self.prepared.folded.run, self.images.held_out)


def outputs(network: Callable[..., Any], images: Inputs) -> Any:
    """Outputs of a network for many images: one tensor [N, ...], or several in the form in which it gives them."""
    with torch.inference_mode():
        parts = [network(*part) for part in chunks(images, CHUNK)]
    return pytree.tree_map(lambda *each: torch.cat(each), *parts)


def compare(meaning: Meaning, reference: Any, network: Callable[..., Any], images: Inputs) -> dict[str, Any]:
    """Divergence of a network from reference outputs and agreement with them, as result.json has them."""
    found = compared(Comparison(meaning), reference, network, images)
    return {"mean": found.divergence, "agreement": found.agreement, "images": count_images(images)}


def divergence_of(meaning: Meaning, reference: Any, network: Callable[..., Any], images: Inputs) -> float:
    """Divergence alone, where agreement need not be computed."""
    return compared(Comparison(meaning, agreement=False), reference, network, images).divergence


def compared(comparison: Comparison, reference: Any, network: Callable[..., Any], images: Inputs) -> Comparison:
    """All images added to a comparison, some at a time."""
    first = 0
    with torch.inference_mode():
        for part in chunks(images, CHUNK):
            rows = slice(first, first := first + len(part[0]))
            comparison.add(pytree.tree_map(lambda each, rows=rows: each[rows], reference), network(*part))
    return comparison

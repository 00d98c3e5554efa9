"""Of two kinds of ranges the better one on held-out images is taken."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

import zeroq.fitted_ranges
from tests.networks import NETWORKS, example_of
from zeroq.candidates import Images, divergence_of, outputs
from zeroq.fitted_ranges import fit_ranges
from zeroq.models import from_module
from zeroq.numbers.values import Ranges
from zeroq.options import Options
from zeroq.preparation import prepare
from zeroq.simulate import quantize_activations


@pytest.mark.parametrize("bits", [3, 8])
@pytest.mark.parametrize("name", ["residual", "relu6", "concatenate_and_shuffle"])
def test_no_other_kind_diverges_less(name: str, bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = prepare(from_module(NETWORKS[name](), example_of(name)), Options(activation_bits=bits))
    images = Images(example_of(name, 32, seed=1), "distilled")
    tried: list[Ranges] = []
    original = zeroq.fitted_ranges.ranges_of

    def noting(*arguments: Any, **named: Any) -> Ranges:
        tried.append(original(*arguments, **named))
        return tried[-1]

    monkeypatch.setattr(zeroq.fitted_ranges, "ranges_of", noting)
    found, least = fit_ranges(prepared, images)
    reference = outputs(prepared.folded.run, images.held_out)

    def divergence(ranges: Ranges) -> float:
        graph, tensors, _ = quantize_activations(
            prepared.folded, prepared.placement, ranges, prepared.plan.input_bits
        )
        network = replace(prepared.folded, graph=graph, tensors=tensors)
        return divergence_of(prepared.meaning, reference, network.run, images.held_out)

    assert [each.weighed for each in tried] == [False, True]
    assert divergence(found) == least == min(map(divergence, tried))


def test_images_and_network_are_left_as_they_were() -> None:
    prepared = prepare(from_module(NETWORKS["residual"](), example_of("residual")), Options())
    images = Images(example_of("residual", 16), "distilled")
    before = {name: tensor.clone() for name, tensor in prepared.folded.tensors.items()}
    fit_ranges(prepared, images)
    assert isinstance(images.all, torch.Tensor) and not images.all.requires_grad
    for name, tensor in prepared.folded.tensors.items():
        assert torch.equal(tensor, before[name]) and tensor.grad is None


def test_values_that_noise_alone_reaches_are_within_the_ranges() -> None:
    prepared = prepare(from_module(NETWORKS["relu6"](), example_of("relu6")), Options())
    images = Images(example_of("relu6", 16), "distilled")
    quantizer = prepared.placement.quantizers[0].name
    alone = fit_ranges(prepared, images)[0][quantizer]
    beside = fit_ranges(prepared, replace(images, noise=3 * example_of("relu6", 4)))[0][quantizer]
    assert beside.low < 1.5 * alone.low < 0 < 1.5 * alone.high < beside.high

"""Candidates of every layer and width, and the images that they are compared on."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace

import pytest
import torch
from torch import nn

import zeroq.candidates
from tests.runs import QUICK, loaded, prepare_once
from zeroq.candidates import (
    ERRORS,
    MEANS,
    METHOD,
    NOISE,
    UNLIKE_IMAGES,
    Candidates,
    Images,
    Misfit,
    accompanied,
    compare,
    outputs,
    rounding_cost,
)
from zeroq.fitted_ranges import fit_ranges
from zeroq.graph import count_images
from zeroq.models import from_module
from zeroq.numbers.values import BitSetting
from zeroq.options import Options
from zeroq.preparation import Prepared, prepare
from zeroq.ranges import observe
from zeroq.rounding import ROWS_PER_IMAGE
from zeroq.stages import MEASURES


@pytest.fixture
def prepared() -> Prepared:
    return prepare_once(loaded("residual"), Options.of(**QUICK, average_bits=4))


@pytest.fixture
def candidates(prepared: Prepared) -> Candidates:
    return candidates_of(prepared)


def candidates_of(prepared: Prepared) -> Candidates:
    """Of random images, ranges measured on them."""
    images = Images(torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(1)), "distilled")
    ranges = observe(prepared.folded, prepared.placement, images.fitting, prepared.plan.input_bits)
    return Candidates(prepared, images, ranges, lambda done, total: None)


@pytest.mark.parametrize(("count", "fitting", "held_out"), [(1, 1, 1), (3, 3, 3), (4, 3, 1), (40, 30, 10), (7, 6, 1)])
def test_the_last_quarter_is_held_out(count: int, fitting: int, held_out: int) -> None:
    images = Images(torch.arange(count).float(), "distilled")
    assert (len(images.fitting), len(images.held_out)) == (fitting, held_out)
    if count >= 4:
        assert torch.equal(torch.cat([images.fitting, images.held_out]), images.all)


def test_a_layer_is_rounded_once_for_each_method(candidates: Candidates, monkeypatch: pytest.MonkeyPatch) -> None:
    by_method = {method: candidates.rounded(method) for method in MEASURES.values()}
    monkeypatch.setattr(zeroq.candidates, "round_weights", None)
    for method, rounded in by_method.items():
        assert candidates.rounded(method) is rounded
        assert {name: tuple(each) for name, each in rounded.items()} == candidates.prepared.plan.widths
    layer = candidates.prepared.plan.layers[0]
    weight = candidates.prepared.folded.tensors[layer.weight]
    errors = [float((candidates.parameters("nearest")(layer, bits)[0] - weight).norm()) for bits in (2, 4, 8)]
    assert errors == sorted(errors, reverse=True) and errors[-1] < 0.02 * errors[0]


def test_bits_of_inputs_are_those_of_a_setting() -> None:
    """Ranges, rounding and network of each setting are as if its bits had been asked for from the start."""
    prepared = prepare_once(loaded("residual"), Options.of(**QUICK, bit_operations=0.003, activation_bits=(4, 8)))
    images = Images(torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(1)), "distilled")
    plan, folded, placement = prepared.plan, prepared.folded, prepared.placement
    ranges = observe(folded, placement, images.fitting, plan.input_bits, input_widths=plan.input_widths)
    candidates = Candidates(prepared, images, ranges, lambda done, total: None)
    inputs = {"body.0.0": 4, "body.1": 8, "head": 4}
    setting = BitSetting(dict.fromkeys(plan.widths, 4), inputs)
    direct = prepared.at(setting)
    own = Candidates(
        direct, images, observe(folded, placement, images.fitting, direct.plan.input_bits), lambda done, total: None
    )
    assert candidates.at(setting).ranges == own.ranges
    assert candidates.divergence_at(setting) == own.divergence_at(BitSetting(setting.bits))
    assert candidates.divergence_at(setting) != candidates.divergence_at(BitSetting(setting.bits))
    values = images.held_out[0, :1]
    weight, bias, quantized = candidates.inputs(folded.layer("body.1"), 4)  # type: ignore[misc]
    assert torch.equal(weight, folded.tensors[folded.layer("body.1").weight]) and bias is None
    assert len(quantized(folded.node(folded.layer("body.1").sites[0]), values).unique()) <= 16


def test_the_reference_is_computed_once_for_all_settings(candidates: Candidates) -> None:
    prepared = prepare_once(loaded("residual"), Options.of(**QUICK, activation_bits=[4, 8], bit_operations=0.01))
    every = replace(candidates, prepared=prepared)
    inputs = {name: widths[0] for name, widths in (prepared.plan.input_widths or {}).items()}
    ranges = fit_ranges(prepared, candidates.images)[0]
    every = replace(every, ranges=ranges)
    own = every.at(BitSetting({layer.name: 8 for layer in prepared.plan.layers}, inputs))
    assert own is not every and own.reference is every.reference


def test_weights_are_rounded_on_images_and_their_variants(
    prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = candidates_of(prepared)
    variants = torch.randn(6, 3, 8, 8)
    asked: list[torch.Tensor] = []
    monkeypatch.setattr(zeroq.candidates, "round_weights", lambda *given, **how: asked.append(given[4]))
    for images in (plain.images, replace(plain.images, variants=variants)):
        replace(plain, images=images).round({})
    assert torch.equal(asked[0], plain.images.fitting)
    assert torch.equal(asked[1], torch.cat([plain.images.fitting, variants]))


def test_rounding_costs_by_the_rows_that_moments_take_in(prepared: Prepared) -> None:
    """Of a layer of many positions no more than moments draw; each image adds as much as the one before."""
    layer = prepared.plan.layers[0]
    one, two, three = (rounding_cost(layer, images) for images in (1, 2, 3))
    assert three - two == two - one > 0
    rows = ROWS_PER_IMAGE * layer.parameters  # multiply-accumulates of as many positions as are drawn
    few, drawn, many = (
        rounding_cost(replace(layer, multiply_accumulates=count), 1) for count in (rows // 2, rows, rows * 9)
    )
    assert few < drawn == many


def test_beside_distilled_images_are_variants_and_noise_of_two_kinds(prepared: Prepared) -> None:
    """Of noise that ranges are fitted on as many as NOISE says; what is judged on is other noise."""
    images = accompanied(Images(torch.randn(16, 3, 8, 8), "distilled"), prepared, seed=0)
    assert isinstance(images.noise, torch.Tensor) and isinstance(images.unlike, torch.Tensor)
    assert images.variants is not None and count_images(images.variants) == count_images(images.rounding) == 12
    assert (len(images.noise), len(images.unlike)) == (12 // NOISE, UNLIKE_IMAGES)
    assert not torch.cdist(images.noise.flatten(1), images.unlike.flatten(1)).lt(1e-3).any()


@pytest.mark.parametrize(("count", "noise", "kept"), [(16, 4, 8), (4, 1, 2), (2, 1, 1), (1, 1, 1)])
def test_ranges_are_fitted_on_noise_in_the_place_of_the_last_images(count: int, noise: int, kept: int) -> None:
    plain, other = Images(torch.randn(count, 3, 8, 8), "distilled"), torch.randn(noise, 3, 8, 8)
    assert torch.equal(plain.observed, plain.fitting)  # type: ignore[arg-type]
    mixed = replace(plain, noise=other)
    assert torch.equal(mixed.observed, torch.cat([plain.all[:kept], other]))  # type: ignore[arg-type]


def test_an_image_of_many_places_judges_for_many(monkeypatch: pytest.MonkeyPatch) -> None:
    maps = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 1))
    prepared = prepare(from_module(maps, torch.randn(2, 3, 8, 8)), Options())
    images = Images(torch.randn(80, 3, 8, 8), "distilled")
    ranges = fit_ranges(prepared, images)[0]
    monkeypatch.setattr(zeroq.candidates, "JUDGED_IMAGES", 3)
    for places, count in ((64 * 21, 20), (64 * 5 - 1, 5), (1, 3)):
        monkeypatch.setattr(zeroq.candidates, "JUDGED_PLACES", places)
        candidates = Candidates(prepared, images, ranges, lambda done, total: None)
        assert torch.equal(candidates.judges, images.held_out[:count])
        assert len(candidates.reference) == count


def test_a_misfit_is_the_divergence_on_held_out_images_and_on_noise(prepared: Prepared) -> None:
    plain = candidates_of(prepared)
    network = plain.network(plain.settled(BitSetting(dict.fromkeys(prepared.plan.widths, 4))))
    held_out = plain.divergence(network)
    assert plain.misfit(network) == Misfit(held_out, held_out) and held_out > 0
    noise = torch.randn(5, 3, 8, 8)
    judged = replace(plain, images=replace(plain.images, unlike=noise)).misfit(network)
    beside = compare(prepared.meaning, outputs(prepared.folded.run, noise), network, noise)["mean"]
    assert judged.held_out == held_out and judged.with_noise == pytest.approx(held_out + beside)


def test_corrections_differ(candidates: Candidates) -> None:
    setting = BitSetting(dict.fromkeys(candidates.prepared.plan.widths, 4))
    errors, means = (candidates.settled(setting, each) for each in (ERRORS, MEANS))
    assert all(kind[name].bias is not None for kind in (errors, means) for name in setting.bits)
    assert any(not torch.equal(errors[name].integers, means[name].integers) for name in setting.bits)


def test_layers_rounded_alone_are_those_that_sensitivities_are_measured_with(prepared: Prepared) -> None:
    """Whether these are there already, as in a run, or not, as in one that is resumed."""
    setting = BitSetting(dict.fromkeys(prepared.plan.widths, 4))
    before, after = candidates_of(prepared), candidates_of(prepared)
    fresh = before.settled(setting, MEANS)
    kept = {name: by_width[4] for name, by_width in after.rounded(METHOD).items()}
    assert all(after.settled(setting, MEANS)[name] is kept[name] for name in kept)
    for name, weight in kept.items():
        assert torch.equal(fresh[name].integers, weight.integers) and torch.equal(fresh[name].scale, weight.scale)
        assert weight.bias is not None and torch.equal(fresh[name].bias, weight.bias)  # type: ignore[arg-type]


def test_what_was_rounded_goes_with_its_run(prepared: Prepared) -> None:
    """A notebook makes many runs."""
    candidates = candidates_of(prepared)
    kept = weakref.ref(candidates.rounded("nearest")["head"][2].integers)
    assert kept() is not None
    del candidates
    gc.collect()
    assert kept() is None


def test_fewer_bits_diverge_more(candidates: Candidates) -> None:
    names = [layer.name for layer in candidates.prepared.plan.layers]
    found = [candidates.divergence_at(BitSetting(dict.fromkeys(names, bits))) for bits in (2, 4, 8)]
    assert found[0] > 2 * max(found[1:]) and found[2] < 0.001


def test_a_network_does_not_diverge_from_itself(prepared: Prepared) -> None:
    images = torch.randn(9, 3, 8, 8)
    same = compare(prepared.meaning, outputs(prepared.folded.run, images), prepared.folded.run, images)
    assert same == {"mean": pytest.approx(0.0, abs=1e-6), "agreement": 1.0, "images": 9}

"""Channels of a whole run are centred and scaled before its ranges are fitted, once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest
import torch

import zeroq.channels
from tests.networks import NETWORKS, example_of
from tests.runs import QUICK, assert_same, contents, loaded, prepare_once
from zeroq.candidates import Images
from zeroq.channels import factors_of, helpful_factors, narrowest
from zeroq.fitted_ranges import fit_ranges
from zeroq.numbers.values import Ranges
from zeroq.options import Options
from zeroq.pipeline import quantize_model
from zeroq.preparation import Prepared
from zeroq.ranges.channels import MOST_AT_A_COST, ChannelBins
from zeroq.repair import families, middles
from zeroq.whole_files import read_json

ASKED = Options.of(**QUICK, average_bits=4)


def assert_resumed(name: str, directory: Path, finder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run of a network that lacks its file alone ends as it was, without what finds numbers of channels."""
    before = contents(directory)

    def never(*_: Any) -> None:
        raise AssertionError(f"{finder} is asked again")

    monkeypatch.setattr(zeroq.channels, finder, never)
    (directory / "model.onnx").unlink()
    assert_same(contents(quantize_model(loaded(name), ASKED, directory).directory), before)


def test_a_run_takes_up_the_centres_that_it_has_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = quantize_model(loaded("linear_depthwise"), ASKED, tmp_path / "run")
    before = contents(first.directory)
    (site,) = before[zeroq.channels.CENTRES]
    assert len(before[zeroq.channels.CENTRES][site]) == 8
    spent = read_json(first.directory / "run.json")["seconds"]
    assert first.result["seconds"]["ranges"] == pytest.approx(spent["ranges"] + spent["centres"], abs=2e-3)
    assert first.result["verification"]["agreement"] == 1
    assert_resumed("linear_depthwise", first.directory, "middles", monkeypatch)


@pytest.mark.parametrize(("name", "files"), [("depthwise", {zeroq.channels.FACTORS}), ("residual", set())])
def test_a_network_without_such_channels_has_no_such_file(name: str, files: set[str], tmp_path: Path) -> None:
    run = quantize_model(loaded(name), ASKED, tmp_path / "run")
    found = {path.name for path in run.directory.iterdir()}
    assert found & {zeroq.channels.CENTRES, zeroq.channels.FACTORS} == files
    assert "centres" not in read_json(run.directory / "run.json")["stages"]


def divergences(monkeypatch: pytest.MonkeyPatch, *, scaled: float, plain: float) -> None:
    """Say how far the network diverges with factors and without."""

    def told(*arguments: Any, **named: Any) -> tuple[Ranges, float]:
        return fit_ranges(*arguments, **named)[0], scaled if arguments[0].factors else plain

    monkeypatch.setattr(zeroq.channels, "fit_ranges", told)


@pytest.mark.parametrize(("name", "channels"), [("depthwise", 8), ("relu6", 12)])
def test_factors_are_kept_where_they_help_and_then_known(
    name: str, channels: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    divergences(monkeypatch, scaled=0.1, plain=0.2)
    first = quantize_model(loaded(name), ASKED, tmp_path / "run")
    before = contents(first.directory)
    (factors,) = before[zeroq.channels.FACTORS].values()
    assert len(factors) == channels
    assert set(factors) != {1.0}
    assert first.result["verification"]["agreement"] == 1
    operators = {node.op_type for node in onnx.load(first.directory / "model.onnx").graph.node}
    assert operators.isdisjoint({"Max", "Min", "Clip"})
    assert_resumed(name, first.directory, "factors_of", monkeypatch)


@pytest.mark.parametrize("scaled", [0.2, 0.191])
def test_factors_that_do_not_help_clearly_are_left(
    scaled: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    divergences(monkeypatch, scaled=scaled, plain=0.2)
    run = quantize_model(loaded("depthwise"), ASKED, tmp_path / "run")
    assert read_json(run.directory / zeroq.channels.FACTORS) == {}


def test_ranges_are_those_of_scaled_channels() -> None:
    prepared = prepare_once(loaded("depthwise"), ASKED)
    images = Images(example_of("depthwise", 32, seed=1), "distilled")
    (family,) = (each for each in families(prepared.folded) if each.free)
    scaled = prepared.scaled({family.name: torch.full((8,), 2.0, dtype=torch.float64)})
    value = prepared.placement.of_value[family.values[-1]].name
    before, after = (fit_ranges(each, images)[0][value].high for each in (prepared, scaled))
    assert after == pytest.approx(2 * before, rel=1e-3)
    inputs = example_of("depthwise", 5, seed=3)
    with torch.inference_mode():
        torch.testing.assert_close(scaled.folded.run(inputs), NETWORKS["depthwise"]()(inputs), rtol=1e-4, atol=1e-5)


def test_no_range_reaches_beyond_the_ceiling_of_any_channel() -> None:
    prepared = prepare_once(loaded("relu6"), ASKED)
    images = Images(1000 * example_of("relu6", 32, seed=1), "distilled")
    (family,) = (each for each in families(prepared.folded) if each.free)
    scaled = prepared.scaled({family.name: torch.linspace(0.5, 3, 12, dtype=torch.float64)})
    quantizer = scaled.placement.of_value[family.values[-1]]
    assert quantizer.ceiling == 3
    assert fit_ranges(scaled, images)[0][quantizer.name].high == pytest.approx(3)
    others = {each for each in prepared.placement.quantizers if each.name != quantizer.name}
    assert others < set(scaled.placement.quantizers)
    inputs = 1000 * example_of("relu6", 5, seed=3)
    with torch.inference_mode():
        torch.testing.assert_close(scaled.folded.run(inputs), NETWORKS["relu6"]()(inputs), rtol=1e-4, atol=1e-5)


def test_values_that_share_a_quantizer_have_factors_together() -> None:
    prepared = prepare_once(loaded("depthwise"), ASKED)
    images = Images(example_of("depthwise", 32, seed=1), "distilled")
    bins = {value: ChannelBins(value) for values in prepared.scalable.values() for value in values}
    fit_ranges(prepared, images, chunk=16, beside=bins)
    found = factors_of(prepared, {value: each.numbers for value, each in bins.items()})
    (family,) = prepared.scalable
    assert family.free and [(name, len(each), each.dtype) for name, each in found.items()] == [
        (family.name, 8, torch.float64)
    ]
    assert narrowest({"x": 8, "x/4": 4, "x_1/2": 2}, "x") == 4


@pytest.mark.parametrize(
    ("asked", "paid_for"),
    [
        ({"average_bits": 4}, 0), ({"weight_bits": 8, "activation_bits": 8}, 0),
        ({"weight_bits": 4, "activation_bits": 6}, 0), ({"weight_bits": 4, "activation_bits": 4}, 1),
        ({"average_bits": 6, "activation_bits": 6}, 1),
        ({"average_bits": 6, "activation_bits": (4, 8), "activation_mb": 1.0}, 0),
    ],
)  # fmt: skip
def test_weights_pay_for_factors_where_inputs_have_the_fewer_bits(asked: dict[str, Any], paid_for: int) -> None:
    prepared = prepare_once(loaded("depthwise"), Options.of(**QUICK, **asked))
    assert [family.free for family in prepared.scalable] == [True, False][: 1 + paid_for]


@pytest.mark.parametrize(
    ("divergences", "kept"),
    [((1.0, 0.9, 0.8), 2), ((1.0, 0.9, 0.83), 1), ((1.0, 0.99, 0.89), 2), ((1, 0.99, 0.92), 0), ((1, 1.1, 0.96), 0)],
)
def test_what_weights_pay_for_must_gain_a_tenth_again(
    divergences: tuple[float, ...], kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In turn: without factors, with those of depthwise layers' inputs, and with all."""
    prepared = prepare_once(loaded("depthwise"), Options.of(**QUICK, weight_bits=6, activation_bits=6))
    images = Images(example_of("depthwise", 32, seed=1), "distilled")

    def told(one: Prepared, *arguments: Any, **named: Any) -> tuple[Ranges, float]:
        return fit_ranges(one, *arguments, **named)[0], divergences[len(one.factors)]

    monkeypatch.setattr(zeroq.channels, "fit_ranges", told)
    factors, ranges = helpful_factors(prepared, images)
    free, dear = prepared.scalable
    assert list(factors) == [free.name, dear.name][:kept]
    assert ranges == fit_ranges(prepared.scaled(factors), images)[0]
    if kept == 2:
        assert MOST_AT_A_COST >= factors[dear.name].max() > factors[dear.name].min() >= 1 / MOST_AT_A_COST


def test_ranges_are_those_of_centred_channels() -> None:
    prepared = prepare_once(loaded("linear_depthwise"), ASKED)
    images = Images(example_of("linear_depthwise", 32, seed=1), "distilled")
    centres = middles(prepared.folded, images.observed)
    (site,) = centres
    plain, centred = (fit_ranges(each, images)[0][site] for each in (prepared, prepared.centred(centres)))
    assert centred.high - centred.low < plain.high - plain.low
    inputs = example_of("linear_depthwise", 5, seed=3)
    with torch.inference_mode():
        expected = NETWORKS["linear_depthwise"]()(inputs)
        torch.testing.assert_close(prepared.centred(centres).folded.run(inputs), expected, rtol=1e-4, atol=1e-5)

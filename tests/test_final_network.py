"""What is decided about a network last; whole runs are in test_pipeline.py."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from torch import nn

import zeroq.final_network
from tests.runs import QUICK, loaded, prepare_once, quick_run
from zeroq.candidates import ERRORS, MEANS, METHOD, NOTHING, Candidates, Images, Weights
from zeroq.effort import EFFORTS
from zeroq.final_network import chosen_correction, keeps_peak, reconstructed
from zeroq.models.resolve import from_module
from zeroq.numbers.values import BitSetting, Ranges
from zeroq.options import Options
from zeroq.preparation import prepare
from zeroq.ranges import observe
from zeroq.simulate.outputs import output_quantizers


@pytest.mark.parametrize(
    ("errors", "means", "nothing", "expected"),
    [
        (0.5, 1.0, 2.0, ERRORS), (0.8, 1.0, 2.0, ERRORS), (0.85, 1.0, 2.0, MEANS), (3.0, 1.0, 2.0, MEANS),
        (0.85, 1.0, 0.9, NOTHING), (0.5, 1.0, 0.4, NOTHING), (0.0, 0.0, 0.0, ERRORS),
    ],
)  # fmt: skip
def test_errors_are_corrected_where_that_is_clearly_better(
    errors: float, means: float, nothing: float, expected: str
) -> None:
    assert chosen_correction({ERRORS: errors, MEANS: means, NOTHING: nothing}) == expected


@pytest.mark.parametrize(("asked", "allowed"), [(0.001, False), (0.0024, True), (None, True)])
def test_outputs_in_floating_point_are_held_to_the_peak(asked: float | None, allowed: bool) -> None:
    """A map of 8 channels leaves, made from one of 4: at 8 bits they take 768 bytes, with the one at 32 bits 2,304."""
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 8, 1)).eval()
    prepared = prepare(from_module(network, torch.randn(2, 3, 8, 8)), Options.of(**QUICK, activation_mb=asked))
    quantizers = list(output_quantizers(prepared.folded, prepared.placement).values())
    assert quantizers
    assert keeps_peak(prepared, quantizers) is allowed and keeps_peak(prepared, [])


def candidates_with(effort: str) -> Candidates:
    """Of a tiny network, images by chance."""
    prepared = prepare_once(loaded("residual"), Options.of(**QUICK, weight_bits=(2, 8), average_bits=4, effort=effort))
    images = Images(torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(1)), "distilled")
    ranges = observe(prepared.folded, prepared.placement, images.fitting, prepared.plan.input_bits)
    return Candidates(prepared, images, ranges, lambda done, total: None)


@pytest.mark.parametrize(("before", "after", "kept"), [(2, 8, True), (8, 2, False), (8, 8, False)])
def test_what_is_reconstructed_is_kept_where_the_whole_network_is_clearly_better(
    before: int, after: int, kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    candidates = candidates_with("best")
    settled, learned = (
        candidates.settled(BitSetting(dict.fromkeys(candidates.prepared.plan.widths, bits))) for bits in (before, after)
    )
    ranges = Ranges(dict(candidates.ranges.by_name))
    monkeypatch.setattr(Candidates, "reconstructed", lambda *given: (ranges, learned))
    misfit = candidates.misfit(candidates.network(settled))
    found, weights = reconstructed(candidates, settled, misfit, lambda done, total: None)
    assert weights is (learned if kept else settled)
    assert found.ranges is (ranges if kept else candidates.ranges)
    _, unchanged = reconstructed(candidates, settled, misfit / 1e6, lambda done, total: None)
    assert unchanged is settled, "the misfit may not rise"


def test_only_the_best_effort_reconstructs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Candidates, "reconstructed", None)
    for effort in ("fast", "balanced"):
        candidates = candidates_with(effort)
        settled = candidates.settled(BitSetting(dict.fromkeys(candidates.prepared.plan.widths, 2)))
        assert reconstructed(candidates, settled, 1.0, lambda done, total: None) == (candidates, settled)


def test_a_run_says_what_was_reconstructed(monkeypatch: pytest.MonkeyPatch) -> None:
    def learned(
        candidates: Candidates, weights: Weights, steps: int, on_step: Callable[[int, int], None]
    ) -> tuple[Ranges, Weights]:
        on_step(steps, steps)
        ranges, own = dict(candidates.ranges.by_name), replace(weights["body.1"], rounding=f"{METHOD}, reconstructed")
        ranges["images"] = replace(ranges["images"], high=2 * ranges["images"].high)
        return Ranges(ranges), {**weights, "body.1": own}

    monkeypatch.setattr(Candidates, "reconstructed", learned)
    monkeypatch.setattr(zeroq.final_network, "CLEARLY", 1e9)
    monkeypatch.setattr(Candidates, "misfit", lambda *given: 1.0)
    steps: list[tuple[int, int]] = []
    run = quick_run(
        "residual", weight_bits=3, activation_bits=4, effort="best",
        on_progress=lambda stage, *done: steps.append(done) if stage == "rounding" else None,
    )  # fmt: skip
    words = {layer["name"]: layer["rounding"].endswith("corrected, reconstructed") for layer in run.result["layers"]}
    assert words == {"stem.0": False, "body.0.0": False, "body.1": True, "head": False}
    assert steps[-1] == (EFFORTS["best"].reconstruction,) * 2
    with safe_open(run.directory / "model.safetensors", "pt") as file:
        said = json.loads(file.metadata()["learned_ranges"])
    fitted = json.loads((run.directory / "ranges.json").read_text())["quantizers"]["images"]
    assert said == {"images": [fitted["low"], 2 * fitted["high"]]}

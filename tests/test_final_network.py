"""What is decided about a network last; whole runs are in test_pipeline.py."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import zeroq
from tests.networks import NETWORKS, example_of
from tests.runs import QUICK
from zeroq.candidates import ERRORS, MEANS, Misfit
from zeroq.final_network import chosen_correction, clearly_less, keeps_peak
from zeroq.models.resolve import from_module
from zeroq.options import Options
from zeroq.precision import Precision
from zeroq.preparation import prepare
from zeroq.simulate.outputs import output_quantizers


@pytest.mark.parametrize(
    ("errors", "means", "expected"),
    [((1.0, 2.0), (2.0, 3.0), ERRORS), ((1.0, 2.0), (0.9, 1.9), MEANS), ((1.0, 2.0), (0.9, 2.1), MEANS),
     ((1.0, 2.0), (1.1, 1.9), ERRORS), ((0.0, 0.0), (0.0, 0.0), ERRORS)],
)  # fmt: skip
def test_means_alone_are_corrected_where_held_out_images_say_so(
    errors: tuple[float, float], means: tuple[float, float], expected: str
) -> None:
    assert chosen_correction({ERRORS: Misfit(*errors), MEANS: Misfit(*means)}) == expected


@pytest.mark.parametrize(
    ("learned", "helps"), [((0.95, 2.0), True), ((0.96, 2.0), False), ((0.5, 2.1), False), ((1.0, 1.0), False)]
)
def test_what_was_learned_is_kept_where_it_clearly_serves_other_images(
    learned: tuple[float, float], helps: bool
) -> None:
    assert clearly_less(Misfit(*learned), Misfit(1.0, 2.0)) is helps


def test_a_run_is_reconstructed_where_that_helps_and_else_as_it_would_be_without(
    monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zeroq.stages.choose_precision", lambda *_: (Precision(), {}))  # not by time, for equal images
    asked = {**QUICK, "weight_bits": 4, "activation_bits": 4}

    def run(**further: object) -> tuple[set[str], dict[str, Tensor]]:
        found = zeroq.quantize(NETWORKS["residual"](), example_of("residual"), **asked, **further)
        assert found.result["verification"]["agreement"] == 1
        return {layer["rounding"] for layer in found.result["layers"]}, dict(found.model.named_buffers())

    (plain,), before = run()
    for helps, said in ((True, "reconstructed"), (False, "not reconstructed, as held-out images do not speak for it")):
        monkeypatch.setattr("zeroq.final_network.clearly_less", lambda *_, helps=helps: helps)
        (words,), after = run(reconstruct=20)
        assert words == f"{plain}, {said}"
        assert all(torch.equal(before[name], after[name]) for name in before) is not helps


@pytest.mark.parametrize(("asked", "allowed"), [(0.001, False), (0.0024, True), (None, True)])
def test_outputs_in_floating_point_are_held_to_the_peak(asked: float | None, allowed: bool) -> None:
    """A map of 8 channels leaves, made from one of 4: at 8 bits they take 768 bytes, with the one at 32 bits 2,304."""
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 8, 1)).eval()
    prepared = prepare(from_module(network, torch.randn(2, 3, 8, 8)), Options.of(**QUICK, activation_mb=asked))
    quantizers = list(output_quantizers(prepared.folded, prepared.placement).values())
    assert quantizers
    assert keeps_peak(prepared, quantizers) is allowed and keeps_peak(prepared, [])

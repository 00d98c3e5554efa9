"""Networks that are translated without tracing come out as those that are traced, to the last byte."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import zeroq.deploy.translate as translate_module
from tests.deploy.test_translate import AVERAGE, MOVING, Several
from tests.networks import NETWORKS, example_of
from tests.quantized import Stages, quantize
from zeroq.deploy.program import program_of

DIRECT = (
    "residual", "relu6", "norm_after_relu", "shared_head", "linear_only", "max_pool", "moved", "asymmetric_padding",
    "rectified_concatenation",
)  # fmt: skip


@pytest.mark.parametrize("name", DIRECT)
def test_equals_the_traced_network(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_equals_traced(quantize(NETWORKS[name](), example_of(name, 8), 4), monkeypatch)


@pytest.mark.parametrize("steps", [AVERAGE, MOVING[:4] + MOVING[5:]], ids=["average", "moving"])
def test_equals_the_traced_steps(steps: tuple[nn.Module, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    assert_equals_traced(quantize(Several(steps).eval(), torch.randn(8, 3, 7, 7)), monkeypatch)


@pytest.mark.parametrize("name", ["concatenate_and_shuffle", "attention", "pre_activation"])
def test_leaves_to_the_tracer_what_it_writes_with_other_operators(name: str) -> None:
    stages = quantize(NETWORKS[name](), example_of(name, 8))
    assert program_of(stages.quantized, stages.folded.example) is None


def assert_equals_traced(stages: Stages, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is the same both ways."""
    assert program_of(stages.quantized, stages.folded.example) is not None
    found = stages.export()
    monkeypatch.setattr(translate_module, "program_of", lambda network, example: None)
    assert found.SerializeToString(deterministic=True) == stages.export().SerializeToString(deterministic=True)

"""Quantizers that gradients pass, against the operator and against definitions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.networks import NETWORKS, example_of
from tests.quantized import quantize as quantized
from zeroq.graph import replay
from zeroq.numbers.operators import QUANTIZE_DEQUANTIZE
from zeroq.rounding.dropping import Dropping, RoundedStraightThrough, quantize, with_gradients
from zeroq.simulate import quantize_activations


def dropping(share: float) -> Dropping:
    return Dropping.of(share, 100_000, torch.device("cpu"), seed=0)


def rounded(values: Tensor, scale: Tensor, zero: int, high: int, share: float) -> Tensor:
    return quantize(values, scale, torch.tensor(zero), high, zero=float(zero), dropping=dropping(share))


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**31), st.integers(0, 15), st.floats(0.05, 2.0))
def test_what_is_not_dropped_is_rounded_as_the_operator_does(seed: int, zero: int, step: float) -> None:
    """And what is dropped is clamped, no more."""
    values = 4 * torch.randn(200, generator=torch.Generator().manual_seed(seed))
    scale = torch.tensor(step)
    expected = QUANTIZE_DEQUANTIZE(values, scale, torch.tensor(zero, dtype=torch.uint8), 15)
    assert torch.equal(rounded(values, scale, zero, 15, 0.0), expected)
    clamped = (values / scale).clamp(-zero, 15 - zero) * scale
    assert torch.equal(rounded(values, scale, zero, 15, 1.0), clamped)
    half = rounded(values, scale, zero, 15, 0.5)
    assert ((half == expected) | (half == clamped)).all()


def test_8_bits_are_always_rounded() -> None:
    values, scale = torch.rand(100), torch.tensor(0.01)
    assert torch.equal(rounded(values, scale, 0, 255, 1.0), rounded(values, scale, 0, 255, 0.0))


@pytest.mark.parametrize("share", [0.25, 0.5, 0.75])
def test_the_share_is_dropped_anew_each_time(share: float) -> None:
    one = dropping(share)
    first, second = (one.kept(torch.zeros(20_000)) for _ in range(2))
    assert first is not None and second is not None and not torch.equal(first, second)
    assert set(first.tolist()) == {0, 1}
    assert abs(1 - float(first.mean()) - share) < 0.02


def test_what_is_kept_lies_in_memory_as_the_values_do() -> None:
    values = torch.zeros(2, 3, 4, 5).to(memory_format=torch.channels_last)
    for like in (values, values[:, 1:], values[..., 0]):
        kept = dropping(0.5).kept(like)
        assert kept is not None and kept.shape == like.shape
        assert kept.stride() == torch.empty_like(like).stride()
    assert dropping(0.0).kept(values) is None


@pytest.mark.parametrize("dropped", [False, True])
def test_gradients_are_those_of_the_definition(dropped: bool) -> None:
    """LSQ, equation 3: of the step, what rounding adds in steps, or the end that a value is clamped to."""
    values = torch.tensor([-3.0, -0.6, 0.2, 0.7, 1.3, 9.0], requires_grad=True)
    scale = torch.tensor(0.5, requires_grad=True)
    zero, high = 2, 7  # so from -1 to 2.5
    kept = torch.zeros(6) if dropped else None
    found: Any = RoundedStraightThrough.apply(values, scale, float(zero), high, kept)
    weights = torch.arange(1.0, 7.0)
    (found * weights).sum().backward()
    assert torch.equal(values.grad, weights * torch.tensor([0.0, 1, 1, 1, 1, 0]))  # type: ignore[arg-type]
    steps = (values / scale).detach()
    slopes = torch.tensor([-2.0, *((0 * steps if dropped else steps.round() - steps)[1:5]), 5.0])
    torch.testing.assert_close(scale.grad, (slopes * weights).sum())


@pytest.mark.parametrize("name", ["max_pool", "residual", "moved", "concatenate_and_shuffle"])
def test_a_graph_with_gradients_computes_the_same(name: str) -> None:
    images = example_of(name, 4)
    stages = quantized(NETWORKS[name](), images, 4, 4)
    bits = dict.fromkeys(stages.weights, 4)
    graph, tensors, _ = quantize_activations(stages.folded, stages.placement, stages.ranges, bits)
    inputs = {stages.folded.inputs[0]: images}
    changed = with_gradients(graph, tensors, dropping(0.0))
    assert torch.equal(replay(changed, tensors, inputs)["output"], replay(graph, tensors, inputs)["output"])


def test_what_is_moved_is_not_rounded_after_it_was_dropped() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 4, 1), nn.Flatten()).eval()
    images = torch.randn(4, 3, 8, 8)
    stages = quantized(network, images, 4, 4)
    graph, tensors, names = quantize_activations(
        stages.folded, stages.placement, stages.ranges, dict.fromkeys(stages.weights, 4)
    )
    found: dict[str, Tensor] = {}
    changed = with_gradients(graph, tensors, dropping(1.0))
    inputs = {stages.folded.inputs[0]: images}
    replay(changed, tensors, inputs, visit=lambda node, value: found.update({node.name: value}))
    (moved,) = (name for name in names if "pool" in name)
    step = next(node for node in graph.nodes if node.name == moved).args[1].target
    steps = found[moved] / tensors[step]
    assert (steps - steps.round()).abs().max() > 0.1

"""BatchNorms that also measure: values, gradients, and the part of the graph that is run."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.networks import NETWORKS, example_of
from zeroq.distillation.measuring import NormaliseAndMeasure, measuring_graph, moments
from zeroq.graph import capture, replay


def has_norm(name: str) -> bool:
    return any(isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)) for module in NETWORKS[name]().modules())


NORMED = [name for name in NETWORKS if has_norm(name)]


@pytest.mark.parametrize("shape", [(4, 3), (4, 3, 5), (4, 3, 5, 6), (2, 3, 2, 3, 2), (1, 3, 1, 1)])
@pytest.mark.parametrize("affine", [True, False])
def test_values_and_gradients_are_those_of_the_plain_formulas(shape: tuple[int, ...], affine: bool) -> None:
    value = torch.randn(shape).requires_grad_()
    mean, variance = torch.randn(3), torch.rand(3) + 0.5
    weight, bias = (torch.randn(3), torch.randn(3)) if affine else (None, None)
    axes = [axis for axis in range(len(shape)) if axis != 1]
    expected = [
        nn.functional.batch_norm(value, mean, variance, weight, bias, False, 0.0, 1e-5),
        value.mean(axes),
        value.var(axes, correction=0),
    ]
    found = NormaliseAndMeasure.apply(value, weight, bias, mean, variance, 1e-5)
    factors = [torch.randn_like(part) for part in expected]
    gradients = []
    for parts in (expected, found):
        total = sum((factor * part).sum() for factor, part in zip(factors, parts, strict=True))
        gradients.append(torch.autograd.grad(total, value, retain_graph=True)[0])
    for one, other in zip(expected, found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)


def test_statistics_of_half_precision_are_taken_in_32_bits() -> None:
    value = (torch.randn(8, 3, 16, 16) + 100).bfloat16()
    mean, variance = moments(value)
    expected = torch.var_mean(value.double(), (0, 2, 3), correction=0)
    assert mean.dtype == variance.dtype == torch.float32
    torch.testing.assert_close(mean.double(), expected[1], rtol=1e-6, atol=0)
    torch.testing.assert_close(variance.double(), expected[0], rtol=1e-3, atol=0)


@pytest.mark.parametrize("name", NORMED)
def test_the_graph_gives_the_statistics_of_each_norms_input(name: str) -> None:
    images = example_of(name, 3)
    network = capture(NETWORKS[name](), images)
    inputs: dict[str, torch.Tensor] = {}
    replay(
        network.graph,
        network.tensors,
        {network.inputs[0]: images},
        visit=lambda node, value: inputs.update({node.name: value}),
    )
    graph = measuring_graph(network)
    found = replay(graph, network.tensors, {network.inputs[0]: images})["output"]
    assert len(found) == len(network.norms) > 0
    for norm, (mean, variance) in zip(network.norms, found, strict=True):
        value = inputs[norm.input]
        axes = [axis for axis in range(value.dim()) if axis != 1]
        torch.testing.assert_close(mean, value.mean(axes), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(variance, value.var(axes, correction=0), rtol=1e-4, atol=1e-5)


def test_what_comes_after_the_last_norm_is_not_run() -> None:
    graph = measuring_graph(capture(NETWORKS["plain"](), example_of("plain")))
    targets = {node.target for node in graph.nodes}
    assert torch.ops.aten.conv2d.default in targets and torch.ops.aten.linear.default not in targets

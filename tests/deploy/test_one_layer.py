"""Models of one layer: what they are made of, and that integers and floating point compute the same."""

from __future__ import annotations

from pathlib import Path

import numpy
import onnx
import pytest

import zeroq.deploy.one_layer
from tests.networks import NETWORKS, example_of
from zeroq.deploy.one_layer import (
    BARE,
    BETWEEN,
    CLIPPED,
    INTEGERS,
    NARROWED,
    Kernel,
    KernelTimes,
    channels_last,
    kernel_of,
    measure_kernel,
    model_of,
    shape_of,
    time_kinds,
)
from zeroq.deploy.timing import Timing
from zeroq.deploy.verify import open_session
from zeroq.graph import capture, fold

KERNELS = {
    "depthwise": Kernel((8, 6, 5), (8, 1, 3, 3), True, (1, 1), (1, 1), (1, 1), 8),
    "grouped": Kernel((8, 6, 5), (12, 4, 3, 3), True, (2, 1), (1, 0), (1, 2), 2),
    "no bias": Kernel((3, 8, 8), (4, 3, 1, 1), False, (1, 1), (0, 0), (1, 1)),
    "sequence": Kernel((4, 20), (8, 4, 5), True, (2,), (2,), (1,)),
    "volume": Kernel((2, 5, 6, 7), (4, 2, 3, 3, 3), True, (1, 1, 1), (1, 1, 1), (1, 1, 1)),
    "linear": Kernel((5, 16), (4, 16), True),
}


def operators(kernel: Kernel, kind: str, folder: Path) -> list[str]:
    """Of the graph that onnxruntime makes."""
    open_session(model_of(kernel, kind), 1, keep=folder / "kept.onnx")
    return [node.op_type for node in onnx.load(folder / "kept.onnx").graph.node]


@pytest.mark.parametrize("name", KERNELS)
def test_one_in_integers_and_one_that_goes_from_integers_through_floating_point_back(name: str, tmp_path: Path) -> None:
    kernel = KERNELS[name]
    values = numpy.random.default_rng(1).integers(0, 255, channels_last(kernel), dtype=numpy.uint8)
    one, other = (
        open_session(model_of(kernel, kind), 1).run(None, {"input": values})[0] for kind in (INTEGERS, BETWEEN)
    )
    assert one.shape == other.shape and numpy.abs(one.astype(int) - other.astype(int)).max() <= 1
    assert len(numpy.unique(one)) > 10, "not all is cut off"
    assert operators(kernel, INTEGERS, tmp_path) == ["QGemm" if kernel.linear else "QLinearConv"]
    floating = operators(kernel, BETWEEN, tmp_path)
    assert not any(name.startswith("QLinear") or name == "QGemm" for name in floating)
    assert {"DequantizeLinear", "QuantizeLinear"} <= set(floating)
    bare = operators(kernel, BARE, tmp_path)
    assert not {"DequantizeLinear", "QuantizeLinear", "Transpose"} & set(bare)
    floats = numpy.ones(shape_of(kernel), numpy.float32)
    assert open_session(model_of(kernel, BARE), 1).run(None, {"input": floats})[0].shape[0] == shape_of(kernel)[0]


@pytest.mark.parametrize("name", KERNELS)
def test_fewer_bits_come_before_the_same_integer_kernel(name: str, tmp_path: Path) -> None:
    kernel = KERNELS[name]
    values = numpy.random.default_rng(1).integers(0, 255, channels_last(kernel), dtype=numpy.uint8)
    plain, clipped, narrowed = (open_session(model_of(kernel, kind), 1) for kind in (INTEGERS, CLIPPED, NARROWED))
    assert (clipped.run(None, {"input": values})[0] == plain.run(None, {"input": values.clip(0, 15)})[0]).all()
    again = numpy.round(values * numpy.float32(0.0012) / numpy.float32(0.02)).astype(numpy.uint8).clip(0, 15)
    assert len(numpy.unique(again)) == 16
    assert (narrowed.run(None, {"input": values})[0] == plain.run(None, {"input": again})[0]).all()
    layer = "QGemm" if kernel.linear else "QLinearConv"
    assert operators(kernel, CLIPPED, tmp_path) == ["Clip", layer]
    assert operators(kernel, NARROWED, tmp_path) == ["DequantizeLinear", "QuantizeLinear", "Clip", layer]


def test_kinds_are_timed_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    timed: list[list[str]] = []

    def interleaved(sessions: dict[str, object], feed: object, seconds: float) -> dict[str, Timing]:
        timed.append(list(sessions))
        return {name: Timing(float(len(name)), 0.0, 9.0) for name in sessions}

    monkeypatch.setattr(zeroq.deploy.one_layer, "interleaved", interleaved)
    assert time_kinds(KERNELS["linear"], (INTEGERS, NARROWED), 1) == {INTEGERS: 8.0, NARROWED: 8.0}
    assert timed == [[INTEGERS, NARROWED]]


@pytest.mark.parametrize("name", ["grouped", "depthwise", "same_padding", "long_kernels", "tokens", "linear_only"])
def test_shapes_are_those_of_the_network(name: str) -> None:
    """Outputs of the bare model have as many values as the layer's site."""
    network = fold(capture(NETWORKS[name](), example_of(name)))
    nodes = {node.name: node for node in network.graph.nodes}
    for layer in network.layers:
        for site in layer.sites:
            kernel = kernel_of(network, nodes[site])
            assert (kernel.weight, kernel.groups) == (layer.shape, layer.groups)
            floats = numpy.ones(shape_of(kernel), numpy.float32)
            (found,) = open_session(model_of(kernel, BARE), 1).run(None, {"input": floats})
            assert found.size == numpy.prod(network.shapes[site])


def test_the_three_are_timed_and_times_of_sites_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    median = {INTEGERS: 3.0, BETWEEN: 2.0, BARE: 1.0}
    monkeypatch.setattr(
        zeroq.deploy.one_layer, "interleaved",
        lambda sessions, feed, seconds: {name: Timing(median[name], 0.0, 9.0) for name in sessions},
    )  # fmt: skip
    times = measure_kernel(KERNELS["depthwise"], 1)
    assert times == KernelTimes(3.0, 2.0, 1.0)
    assert times + times == KernelTimes(6.0, 4.0, 2.0)

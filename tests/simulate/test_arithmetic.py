"""The simulation is onnxruntime's file to the bit, and its kernels are their definitions."""

from __future__ import annotations

from collections.abc import Callable

import numpy
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from tests.networks import NETWORKS, example_of
from tests.quantized import SETTINGS, quantize
from zeroq.deploy.verify import open_session, run
from zeroq.numbers.operators import QUANTIZE_DEQUANTIZE
from zeroq.simulate import arithmetic

aten = torch.ops.aten

TRIALS = 30
HIGH = 255


@pytest.mark.parametrize("setting", ["w8a8", "mixed"])
@pytest.mark.parametrize(
    "name", ["max_pool", "linear_only", "long_kernels", "norm_after_relu", "residual", "relu6", "attention"]
)
def test_a_file_answers_to_the_bit_as_its_simulation(name: str, setting: str) -> None:
    images = example_of(name, 16)
    stages = quantize(NETWORKS[name](), images, *SETTINGS[setting])
    (output,) = run(open_session(stages.export(seed=7, task="classification"), 1), images)
    with torch.inference_mode():
        expected = stages.quantized(images)
    equal = (output == expected).all(1)
    # A sum's rounding is its CPU's, and so is a LayerNorm's; all else is the same everywhere.
    assert equal.all() or (name in ("residual", "relu6", "attention") and equal.float().mean() > 0.5)


def test_quantizers_keep_their_names_and_layers_become_kernels() -> None:
    graph = quantize(NETWORKS["residual"](), example_of("residual", 8), 8, 8).quantized.graph
    changed = arithmetic.with_integer_arithmetic(graph)
    names = {node.name for node in changed.nodes}
    assert {node.name for node in graph.nodes if node.target == QUANTIZE_DEQUANTIZE} <= names
    targets = {node.target for node in changed.nodes}
    assert {arithmetic.layer, arithmetic.add, arithmetic.global_average, arithmetic.linear_sums} <= targets
    assert not targets & {aten.conv2d.default, aten.linear.default, aten.add.Tensor}
    assert [node.target for node in graph.nodes].count(aten.conv2d.default) > 0, "the exported graph is not changed"


@pytest.mark.parametrize("magnitude", [3, 127])  # sums that 32-bit floats hold, and sums that they do not
def test_sums_are_those_of_integers(magnitude: int) -> None:
    generator = torch.Generator().manual_seed(magnitude)
    integers = torch.randint(-100, 156, (2, 700, 3, 3), generator=generator)
    weight = torch.randint(-magnitude, magnitude + 1, (4, 700, 3, 3), generator=generator).to(torch.int8)
    bias = torch.randint(-(2**30), 2**30, (4,), generator=generator).int()
    scale = torch.tensor(0.037)
    sums = arithmetic.integer_sums(integers * scale, scale, weight, bias, aten.conv2d.default, ())
    exact = torch.einsum("nchw,ochw->no", integers, weight.long()) + bias
    assert torch.equal(sums[:, :, 0, 0], exact.float())


def alone(
    operator: str, operands: dict[str, NDArray[numpy.generic]], read: tuple[str, ...], domain: str = "com.microsoft",
    **attributes: int,
) -> NDArray[numpy.uint8]:
    """What one of onnxruntime's operators gives; `read` are its inputs, the others constants."""
    node = helper.make_node(operator, list(operands), ["y"], domain=domain, **attributes)
    inputs = [helper.make_tensor_value_info(name, TensorProto.UINT8, None) for name in read]
    constants = [numpy_helper.from_array(value, name) for name, value in operands.items() if name not in read]
    output = helper.make_tensor_value_info("y", TensorProto.UINT8, None)
    graph = helper.make_graph([node], "alone", inputs, [output], constants)
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    result: NDArray[numpy.uint8] = session.run(None, {name: operands[name] for name in read})[0]
    return result


def some_grid(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A scale and a zero point."""
    zero_point = torch.randint(0, 200, (), generator=generator).to(torch.uint8)
    return torch.rand((), generator=generator) * 0.09 + 0.01, zero_point


@pytest.mark.parametrize(("operator", "kernel"), [("QLinearAdd", arithmetic.add), ("QLinearMul", arithmetic.multiply)])
def test_sums_and_products_round_as_in_onnxruntime(operator: str, kernel: Callable[..., Tensor]) -> None:
    generator = torch.Generator().manual_seed(1)
    first, second = (each.to(torch.uint8) for each in torch.meshgrid(*[torch.arange(256)] * 2, indexing="ij"))
    wrong = 0
    for _ in range(TRIALS):
        (scale_a, zero_a), (scale_b, zero_b) = some_grid(generator), some_grid(generator)
        largest = scale_a + scale_b if kernel is arithmetic.add else scale_a * scale_b * 150
        scale, zero = largest * (torch.rand((), generator=generator) + 0.4), some_grid(generator)[1]
        constants = (scale_a, zero_a, scale_b, zero_b, scale, zero)
        a_scale, a_zero, b_scale, b_zero, y_scale, y_zero = (each.numpy() for each in constants)
        expected = alone(
            operator,
            {"a": first.numpy(), "as": a_scale, "az": a_zero, "b": second.numpy(), "bs": b_scale, "bz": b_zero,
             "ys": y_scale, "yz": y_zero},
            ("a", "b"),
        )  # fmt: skip
        values = [(each.float() - z) * s for each, z, s in ((first, zero_a, scale_a), (second, zero_b, scale_b))]
        further = {"zero_points": (zero_a, zero_b)} if kernel is arithmetic.add else {}
        found = kernel(values[0], scale_a, values[1], scale_b, scale, zero, HIGH, **further)
        steps = torch.round(found / scale) + zero - torch.from_numpy(expected).float()
        assert steps.abs().max() <= 1
        wrong += int((steps != 0).sum())
    assert wrong <= 1e-5 * TRIALS * first.numel()


@pytest.mark.parametrize("inner", [16, 700])  # sums that 32-bit floats hold, and sums that they do not
def test_matrix_products_round_as_in_onnxruntime(inner: int) -> None:
    generator = torch.Generator().manual_seed(inner)
    for _ in range(TRIALS):
        first = torch.randint(0, 256, (2, 3, 5, inner), generator=generator).to(torch.uint8)
        second = torch.randint(0, 256, (2, 3, inner, 7), generator=generator).to(torch.uint8)
        (scale_a, zero_a), (scale_b, zero_b) = some_grid(generator), some_grid(generator)
        scale, zero = scale_a * scale_b * 80 * inner**0.5, some_grid(generator)[1]
        constants = (scale_a, zero_a, scale_b, zero_b, scale, zero)
        a_scale, a_zero, b_scale, b_zero, y_scale, y_zero = (each.numpy() for each in constants)
        expected = alone(
            "QLinearMatMul",
            {"a": first.numpy(), "as": a_scale, "az": a_zero, "b": second.numpy(), "bs": b_scale, "bz": b_zero,
             "ys": y_scale, "yz": y_zero},
            ("a", "b"), domain="",
        )  # fmt: skip
        values = [(each.float() - z) * s for each, z, s in ((first, zero_a, scale_a), (second, zero_b, scale_b))]
        found = arithmetic.product(values[0], scale_a, values[1], scale_b, scale, zero, HIGH)
        assert torch.equal(torch.round(found / scale) + zero, torch.from_numpy(expected).float())


def test_means_round_as_in_onnxruntime() -> None:
    generator = torch.Generator().manual_seed(2)
    for _ in range(TRIALS):
        integers = torch.randint(0, 256, (3, 8, 7, 5), generator=generator).to(torch.uint8)
        (scale, zero), (mean_scale, mean_zero) = some_grid(generator), some_grid(generator)
        x_scale, x_zero, y_scale, y_zero = (each.numpy() for each in (scale, zero, mean_scale, mean_zero))
        operands = {"x": integers.numpy(), "xs": x_scale, "xz": x_zero, "ys": y_scale, "yz": y_zero}
        expected = alone("QLinearGlobalAveragePool", operands, ("x",))
        found = arithmetic.global_average((integers.float() - zero) * scale, scale, mean_scale, mean_zero, HIGH)
        assert torch.equal(torch.round(found / mean_scale) + mean_zero, torch.from_numpy(expected).float())


@pytest.mark.parametrize(("axis", "length"), [(-1, 64), (1, 7)])
def test_softmax_rounds_as_in_onnxruntime(axis: int, length: int) -> None:
    """Its table and its whole number of steps in 1 are onnxruntime's own; the plain softmax differs in many values."""
    generator = torch.Generator().manual_seed(length)
    wrong = values = 0
    for _ in range(TRIALS):
        shape = [3, 5, 4, length] if axis == -1 else [3, length, 4, 5]
        integers = torch.randint(0, 256, shape, generator=generator).to(torch.uint8)
        scale, zero = some_grid(generator)
        share = (torch.rand((), generator=generator) * 0.8 + 0.2) / HIGH  # ranges that end between 0.2 and 1
        nothing = torch.tensor(0, dtype=torch.uint8)
        operands = {"x": integers.numpy(), "xs": scale.numpy(), "xz": zero.numpy(),
                    "ys": share.numpy(), "yz": nothing.numpy()}  # fmt: skip
        expected = torch.from_numpy(alone("QLinearSoftmax", operands, ("x",), axis=axis, opset=18)).float()
        found = arithmetic.softmax((integers.float() - zero) * scale, scale, share, nothing, HIGH, axis=axis)
        steps = torch.round(found / share) - expected
        assert steps.abs().max() <= 1
        wrong, values = wrong + int((steps != 0).sum()), values + steps.numel()
    assert wrong <= 1e-4 * values


def test_integers_above_the_highest_are_cut_off() -> None:
    values, scale, zero = torch.tensor([[[[9.0]]]]), torch.tensor(1.0), torch.tensor(2, dtype=torch.uint8)
    assert arithmetic.global_average(values, scale, scale, zero, 7).item() == 5

"""Packed weights in a file: equal to int8 ones, small, and integer kernels after loading."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy
import onnx
import onnxruntime
import pytest
from onnx import NodeProto, TensorProto, helper, numpy_helper

from zeroq.deploy.unpack import PREFIX, SHIFTING, tables_bytes, unpack_initializers, unpack_weight
from zeroq.numbers.grid import SHIFTED_BITS
from zeroq.numbers.packing import packed_bytes

STEP = 0.05  # of every activation
PACKED_WIDTHS = range(2, 8)
SHIFTED = range(2, SHIFTED_BITS + 1)
LAYERS = {  # operator, shape of the weight, groups; elements 5 * 3 * 3 * 3 and the like are no multiple of 8
    "convolution": ("Conv", (16, 8, 3, 3), 1),
    "odd convolution": ("Conv", (5, 3, 3, 3), 1),
    "depthwise": ("Conv", (7, 1, 3, 3), 7),
    "linear": ("Gemm", (12, 16), 1),
    "odd linear": ("Gemm", (3, 5), 1),
}


def draw_integers(shape: Sequence[int], bits: int) -> numpy.ndarray:
    high = 2 ** (bits - 1)
    return numpy.random.default_rng(bits).integers(-high + (bits == 8), high, shape, dtype=numpy.int8)


def draw_shifted(shape: Sequence[int], bits: int) -> numpy.ndarray:
    """Every filter's integers in a row of their own that holds 0."""
    lowest = numpy.linspace(1 - 2**bits, 0, shape[0]).round().reshape(-1, *[1] * (len(shape) - 1))
    codes = numpy.random.default_rng(bits).integers(0, 2**bits, shape)
    return (codes + lowest).astype(numpy.int8)


def layer(index: int, operator: str, integers: numpy.ndarray, groups: int) -> tuple[list[TensorProto], list[NodeProto]]:
    """x{index} -> quantized layer with int32 bias -> x{index + 1}, each value between quantizers."""
    channels = len(integers)
    scale = numpy.linspace(0.01, 0.02, channels, dtype=numpy.float32)
    constants = {
        f"w{index}": integers,
        f"s{index}": scale,
        f"z{index}": numpy.zeros(channels, numpy.int8),
        f"b{index}": numpy.arange(channels, dtype=numpy.int32) * 100,
        f"bs{index}": scale * numpy.float32(STEP),
        f"bz{index}": numpy.zeros(channels, numpy.int32),
    }
    options = {"pads": [integers.shape[-1] // 2] * 4, "group": groups} if operator == "Conv" else {"transB": 1}
    nodes = [
        helper.make_node("DequantizeLinear", [f"w{index}", f"s{index}", f"z{index}"], [f"wd{index}"], axis=0),
        helper.make_node("DequantizeLinear", [f"b{index}", f"bs{index}", f"bz{index}"], [f"bd{index}"], axis=0),
        helper.make_node(operator, [f"x{index}", f"wd{index}", f"bd{index}"], [f"y{index}"], **options),
        *quantizer(f"y{index}", f"x{index + 1}"),
    ]
    return [numpy_helper.from_array(values, name) for name, values in constants.items()], nodes


def quantizer(value: str, result: str) -> list[NodeProto]:
    return [
        helper.make_node("QuantizeLinear", [value, "step", "middle"], [f"{result}q"]),
        helper.make_node("DequantizeLinear", [f"{result}q", "step", "middle"], [result]),
    ]


def build_model(layers: Sequence[tuple[str, numpy.ndarray, int]]) -> onnx.ModelProto:
    """A chain of layers, weights w0, w1, ... as int8 initializers."""
    initializers = [
        numpy_helper.from_array(numpy.array(STEP, numpy.float32), "step"),
        numpy_helper.from_array(numpy.array(128, numpy.uint8), "middle"),
    ]
    nodes = quantizer("input", "x0")
    for index, (operator, integers, groups) in enumerate(layers):
        made, more = layer(index, operator, integers, groups)
        initializers += made
        nodes += more
    operator, integers, groups = layers[0]
    shape = ["n", integers.shape[1] * groups, *([6, 6] if operator == "Conv" else [])]
    last = f"x{len(layers)}"
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(last, TensorProto.FLOAT, ["n", *[None] * (len(shape) - 1)])],
        initializers,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def packed_copy(model: onnx.ModelProto, bits: dict[str, int]) -> onnx.ModelProto:
    packed = onnx.ModelProto()
    packed.CopyFrom(model)
    unpack_initializers(packed, bits)
    onnx.checker.check_model(packed, full_check=True)
    return packed


def run(model: onnx.ModelProto, optimised: Path | None = None) -> numpy.ndarray:
    """Output for one batch; without a path for the optimised file the graph runs as it stands."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3  # a warning that an optimised file is for this machine only
    if optimised:
        options.optimized_model_filepath = str(optimised)
    else:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    shape = [3, *session.get_inputs()[0].shape[1:]]
    values = numpy.random.default_rng(0).uniform(-5, 5, shape).astype(numpy.float32)
    return session.run(None, {"input": values})[0]


@pytest.mark.parametrize(
    ("bits", "draw"), [*((bits, draw_integers) for bits in PACKED_WIDTHS), *((bits, draw_shifted) for bits in SHIFTED)]
)
@pytest.mark.parametrize("kind", LAYERS)
def test_a_packed_layer_runs_as_the_same_integer_kernel(
    kind: str, bits: int, draw: Callable[[Sequence[int], int], numpy.ndarray], tmp_path: Path
) -> None:
    operator, shape, groups = LAYERS[kind]
    plain = build_model([(operator, draw(shape, bits), groups)])
    packed = packed_copy(plain, {"w0": bits})
    expected = run(plain, tmp_path / "int8.onnx")
    assert len(numpy.unique(expected)) > 5
    assert numpy.array_equal(run(packed, tmp_path / "packed.onnx"), expected)
    assert numpy.array_equal(run(packed), run(plain))
    kernels = Counter(node.op_type for node in onnx.load(tmp_path / "packed.onnx").graph.node)
    assert kernels == Counter(node.op_type for node in onnx.load(tmp_path / "int8.onnx").graph.node)
    assert kernels["QLinearConv"] + kernels["QGemm"] == 1
    assert set(kernels) - {"QLinearConv", "QGemm"} <= {"QuantizeLinear", "DequantizeLinear", "Transpose"}


def test_eight_bits_stay_one_initializer() -> None:
    integers = draw_integers((4, 3, 3, 3), 8)
    plain = build_model([("Conv", integers, 1)])
    assert packed_copy(plain, {"w0": 8}).SerializeToString() == plain.SerializeToString()
    (tensor,), nodes = unpack_weight("w", integers, 8)
    assert (tensor.name, numpy_helper.to_array(tensor).tolist(), nodes) == ("w", integers.tolist(), [])


def test_a_file_of_many_weights_is_hardly_larger_than_its_bits() -> None:
    layers = [("Conv", draw_integers((24, 24, 1, 1), 2), 1) for _ in range(50)]
    plain = build_model(layers)
    for bits in PACKED_WIDTHS:
        widths = {f"w{index}": bits for index in range(50)}
        saved = 50 * (24 * 24 - packed_bytes(24 * 24, bits))
        overhead = packed_copy(plain, widths).ByteSize() - (plain.ByteSize() - saved)
        assert overhead < 50 * (200 if bits in (2, 4) else 600), (bits, overhead)


def test_shifted_filters_take_a_byte_each_and_a_few_nodes() -> None:
    def size(integers: numpy.ndarray) -> int:
        return packed_copy(build_model([("Conv", integers, 1)]), {"w0": bits}).ByteSize()

    for bits in SHIFTED:
        around, apart = draw_integers((24, 24, 1, 1), bits), draw_shifted((24, 24, 1, 1), bits)
        assert 24 < size(apart) - size(around) <= 24 + SHIFTING


def test_shared_constants_are_equal_under_equal_names() -> None:
    found: dict[str, bytes] = {}
    for bits in PACKED_WIDTHS:
        for shape in [(4, 3, 3, 3), (5, 3), (16, 8)]:
            for tensor in unpack_weight("w", draw_integers(shape, bits), bits)[0]:
                if tensor.name.startswith(PREFIX):
                    assert found.setdefault(tensor.name, tensor.SerializeToString()) == tensor.SerializeToString()
                assert tensor.HasField("raw_data")
    assert sum(map(len, found.values())) < 10_000


@pytest.mark.parametrize("widths", [(8,), (4, 8), (2, 4, 8), (2, 3, 4, 5, 6, 7, 8)])
def test_tables_of_several_widths_take_what_is_said(widths: tuple[int, ...]) -> None:
    made = [each for bits in widths for each in unpack_weight("w", draw_integers((8, 8), bits), bits)[0]]
    tables = {each.name: each for each in made if each.name.startswith(PREFIX) and "bit" in each.name}
    taken = sum(each.ByteSize() for each in tables.values())
    assert taken <= tables_bytes(widths) <= taken + 8 * len(tables)


def test_two_widths_in_one_file(tmp_path: Path) -> None:
    layers = [("Conv", draw_integers((6, 6, 3, 3), 2), 1), ("Conv", draw_integers((6, 6, 1, 1), 5), 1)]
    plain = build_model(layers)
    packed = packed_copy(plain, {"w0": 2, "w1": 5})
    assert numpy.array_equal(run(packed, tmp_path / "packed.onnx"), run(plain, tmp_path / "int8.onnx"))


def test_a_name_that_is_not_there_is_a_defect() -> None:
    with pytest.raises(ValueError, match=r"no initializers of these names: \['w9'\]"):
        unpack_initializers(build_model([("Gemm", draw_integers((3, 5), 4), 1)]), {"w9": 4})

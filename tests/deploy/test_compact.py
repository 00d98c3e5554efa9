"""What a file need not hold goes, and nothing else."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper, numpy_helper

from zeroq.deploy.compact import compact
from zeroq.deploy.verify import open_session


def wasteful() -> ModelProto:
    """A convolution with every attribute spelled out, equal constants, and names of some length."""
    constants = {
        "a.zero_point": np.array(3, np.uint8),
        "b.zero_point": np.array(3, np.uint8),
        "of_one_element": np.array([3], np.uint8),
        "scale": np.array(0.5, np.float32),
        "weight_integers": np.ones((2, 1, 3, 3), np.int8),
        "weight_scale": np.array([0.1, 0.2], np.float32),
        "zeros": np.zeros(2, np.int8),
        "shape_one": np.array([-1, 8], np.int64),
        "shape_two": np.array([-1, 8], np.int64),
        "unread": np.array(1, np.float32),
    }
    plain = {"dilations": [1, 1], "strides": [1, 1], "group": 1, "auto_pad": "NOTSET", "kernel_shape": [3, 3]}
    nodes = [
        helper.make_node("QuantizeLinear", ["input", "scale", "a.zero_point"], ["integers"], axis=1),
        helper.make_node("DequantizeLinear", ["integers", "scale", "b.zero_point"], ["values"], axis=1),
        helper.make_node("DequantizeLinear", ["weight_integers", "weight_scale", "zeros"], ["a_long_name"], axis=0),
        helper.make_node("Conv", ["values", "a_long_name"], ["maps"], pads=[0, 0, 0, 0], doc_string="debug", **plain),
        helper.make_node(
            "Conv", ["values", "a_long_name"], ["strided"], pads=[0, 1, 0, 0], **{**plain, "strides": [1, 2]}
        ),
        helper.make_node("Reshape", ["maps", "shape_one"], ["rows"], allowzero=0),
        helper.make_node("Reshape", ["strided", "shape_two"], ["output"], name="last"),
    ]
    graph = helper.make_graph(
        nodes,
        "debug",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 1, 4, 6])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", 8]) for name in ("rows", "output")],
        [numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def test_numbers_of_constants_are_taken_by_nothing_else() -> None:
    nodes = [
        helper.make_node("Add", ["one", "one"], ["two"]),
        helper.make_node("Add", ["input", "two"], ["c0"]),
        helper.make_node("Add", ["one", "two"], ["three"]),
        helper.make_node("Add", ["c0", "three"], ["output"]),
    ]
    graph = helper.make_graph(
        nodes, "debug", [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1])],
        [numpy_helper.from_array(np.ones(1, np.float32), "one")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    compact(model, [])
    assert [node.output[0] for node in model.graph.node] == ["c1", "c0", "c2", "output"]
    assert open_session(model, 1).run(None, {"input": np.ones(1, np.float32)})[0] == [6]


def test_outputs_that_are_left_out_have_no_name() -> None:
    constants = [numpy_helper.from_array(np.arange(4, dtype=np.float32), "numbers")]
    nodes = [
        helper.make_node("TopK", ["numbers", "two"], ["", "places_of_the_most"]),
        helper.make_node("Clip", ["input", "", "six"], ["clipped"]),
        helper.make_node("Gather", ["clipped", "places_of_the_most"], ["output"]),
    ]
    graph = helper.make_graph(
        nodes, "debug", [helper.make_tensor_value_info("input", TensorProto.FLOAT, [4])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [2])],
        [*constants, numpy_helper.from_array(np.array([2]), "two"), numpy_helper.from_array(np.float32(6), "six")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    compact(model, [])
    assert list(model.graph.node[0].output) == ["", "c0"] and model.graph.node[1].input[1] == ""


def attributes(model: ModelProto) -> list[set[str]]:
    return [{attribute.name for attribute in node.attribute} for node in model.graph.node]


def test_the_file_computes_what_it_did_before() -> None:
    images = np.random.default_rng(0).normal(size=(2, 1, 4, 6)).astype(np.float32)
    model = wasteful()
    expected = open_session(model, 1, optimised=False).run(None, {"input": images})
    compact(model, ["weight_integers"])
    onnx.checker.check_model(model, full_check=True)
    for one, other in zip(expected, open_session(model, 1, optimised=False).run(None, {"input": images}), strict=True):
        np.testing.assert_array_equal(one, other)


def test_attributes_of_default_value_go() -> None:
    model = wasteful()
    compact(model, [])
    kept = [set(), set(), {"axis"}, {"kernel_shape"}, {"kernel_shape", "pads", "strides"}, set(), set()]
    assert attributes(model) == kept


def test_small_integers_of_equal_value_are_one_constant() -> None:
    model = wasteful()
    compact(model, [])
    names = {tensor.name for tensor in model.graph.initializer}
    assert {"zero_point_3", "shape-1x8"} <= names
    assert not names & {"a.zero_point", "b.zero_point", "shape_one", "shape_two", "unread"}


def test_computed_constants_get_short_names_unless_they_are_kept() -> None:
    short, kept = wasteful(), wasteful()
    compact(short, [])
    compact(kept, ["a_long_name"])
    assert short.graph.node[2].output[0] == short.graph.node[3].input[1] == "c0"
    assert kept.graph.node[2].output[0] == "a_long_name"
    assert short.graph.node[0].output[0] == "integers"


def test_debugging_data_go() -> None:
    model = wasteful()
    helper.set_model_props(model, {"exporter": "debug"})
    compact(model, [])
    assert not model.metadata_props and model.graph.name == "zeroq"
    assert not any(node.name or node.doc_string for node in model.graph.node)

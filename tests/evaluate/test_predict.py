"""ONNX files as functions, and what their metadata say."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from zeroq.errors import DataError, ModelError
from zeroq.evaluate import metadata_of, onnx_predictor, preprocessing_of
from zeroq.preprocessing import imagenet

WEIGHT = np.random.default_rng(0).normal(size=(48, 5)).astype(np.float32)


def write(
    path: Path,
    shape: tuple[int | str, ...] = ("batch", 3, 4, 4),
    kind: int = TensorProto.FLOAT,
    metadata: dict[str, str] | None = None,
) -> Path:
    """A file of one linear layer: [N, 3, 4, 4] to [N, 5]."""
    nodes = [helper.make_node("Flatten", ["x"], ["flat"]), helper.make_node("MatMul", ["flat", "weight"], ["y"])]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", kind, (shape[0], 5))],
        [numpy_helper.from_array(WEIGHT.astype(helper.tensor_dtype_to_np_dtype(kind)), "weight")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    helper.set_model_props(model, metadata or {})
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("optimised", [True, False])
def test_gives_what_the_file_computes(tmp_path: Path, optimised: bool) -> None:
    predict = onnx_predictor(write(tmp_path / "model.onnx"), threads=1, optimised=optimised)
    assert predict.input_shape == ("batch", 3, 4, 4) and predict.output_shape == ("batch", 5)
    for count in (1, 7):
        inputs = torch.randn(count, 3, 4, 4)
        expected = inputs.flatten(1) @ torch.from_numpy(WEIGHT)
        with torch.inference_mode():
            assert torch.allclose(predict(inputs), expected, atol=1e-5)


def test_runs_on_the_cpu_with_the_threads_asked_for(tmp_path: Path) -> None:
    session = onnx_predictor(write(tmp_path / "model.onnx"), threads=1).session
    assert session.get_providers() == ["CPUExecutionProvider"]
    assert session.get_session_options().intra_op_num_threads == 1


def test_inputs_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "model.onnx")
    with pytest.raises(DataError) as caught:
        onnx_predictor(path, 1)(torch.zeros(2, 1, 8, 8))
    assert str(caught.value) == (
        f"{path} takes inputs [batch, 3, 4, 4] and was given [2, 1, 8, 8]: its preprocessing must have the size and "
        "channels that it takes."
    )


def test_a_fixed_batch_says_which(tmp_path: Path) -> None:
    path = write(tmp_path / "model.onnx", shape=(1, 3, 4, 4))
    predict = onnx_predictor(path, 1)
    assert predict(torch.zeros(1, 3, 4, 4)).shape == (1, 5)
    with pytest.raises(DataError) as caught:
        predict(torch.zeros(32, 3, 4, 4))
    assert str(caught.value) == (
        f"{path} takes exactly 1 image(s) at a time and was given 32: give --batch 1, or export it with a "
        "dynamic batch."
    )


def test_a_file_that_cannot_be_loaded_is_named(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    with pytest.raises(ModelError) as missing:
        onnx_predictor(path, 1)
    assert str(missing.value) == f"{path} is not there: give an ONNX file."
    whole = write(path).read_bytes()
    for content in (b"", b"no model", whole[: len(whole) // 2], whole[:-3]):
        path.write_bytes(content)
        with pytest.raises(ModelError) as damaged:
            onnx_predictor(path, 1)
        assert f"cannot load {path} (" in str(damaged.value)
        assert str(damaged.value).endswith("): the file is damaged, or needs another version.")


def test_a_file_of_other_inputs_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "model.onnx", kind=TensorProto.DOUBLE)
    with pytest.raises(ModelError) as caught:
        onnx_predictor(path, 1)
    assert str(caught.value) == (
        f"{path} takes x tensor(double) [batch, 3, 4, 4]: one float32 input [N, C, H, W] is needed."
    )


def test_the_output_is_the_first_of_floating_point(tmp_path: Path) -> None:
    """Those of integers, as indices of what a detector found, come along."""
    model = onnx.load(str(write(tmp_path / "model.onnx")))
    model.graph.node.append(helper.make_node("ArgMax", ["y"], ["best"], axis=1, keepdims=0))
    model.graph.output.insert(0, helper.make_tensor_value_info("best", TensorProto.INT64, ("batch",)))
    onnx.save(model, tmp_path / "model.onnx")
    predict = onnx_predictor(tmp_path / "model.onnx", 1)
    best, scores = predict(torch.randn(3, 3, 4, 4))
    assert predict.output_shape == ("batch", 5) and torch.equal(best, scores.argmax(1))
    model.graph.node.append(helper.make_node("Cast", ["y"], ["fine"], to=TensorProto.DOUBLE))
    model.graph.output.insert(1, helper.make_tensor_value_info("fine", TensorProto.DOUBLE, ("batch", 5)))
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(ModelError, match=r"gives fine tensor\(double\): a float32 output is needed."):
        onnx_predictor(tmp_path / "model.onnx", 1)
    del model.graph.output[1:]
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(ModelError, match=r"gives best tensor\(int64\): a float32 output is needed."):
        onnx_predictor(tmp_path / "model.onnx", 1)


def test_metadata_and_preprocessing_are_read(tmp_path: Path) -> None:
    stored = {"preprocess": json.dumps(imagenet((4, 4)).to_dict()), "task": "classification", "seed": "0"}
    path = write(tmp_path / "model.onnx", metadata=stored)
    assert metadata_of(path) == stored
    assert preprocessing_of(path) == imagenet((4, 4))
    assert preprocessing_of(write(tmp_path / "other.onnx")) is None


@pytest.mark.parametrize("text", ["{", "[1, 2]", '"RGB"', '{"size": [1]}', '{"size": [4, 4], "mean": [0], "std": [0]}'])
def test_preprocessing_that_makes_no_sense_is_refused(tmp_path: Path, text: str) -> None:
    path = write(tmp_path / "model.onnx", metadata={"preprocess": text})
    with pytest.raises(ModelError) as caught:
        preprocessing_of(path)
    assert str(caught.value).startswith(f"The preprocessing in {path} cannot be understood (")
    assert str(caught.value).endswith("): give --preprocess.")


def test_metadata_of_what_is_no_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("no model")
    for name in ("text.onnx", "missing.onnx"):
        with pytest.raises(ModelError, match=rf"{name} cannot be read as an ONNX file \(.*\): give another\.$"):
            metadata_of(tmp_path / name)

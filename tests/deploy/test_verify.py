"""A file that does not equal its simulation is found out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from onnx import ModelProto, TensorProto, helper, numpy_helper

from tests.networks import NETWORKS, example_of
from tests.quantized import quantize
from zeroq.deploy import verify
from zeroq.deploy.verify import agreement_of, open_session, refuse_differences
from zeroq.divergence import Meaning
from zeroq.errors import ModelError, VerificationError


def changed(model: ModelProto, name: str, factor: float) -> ModelProto:
    """The same file with one constant multiplied."""
    copy = ModelProto()
    copy.CopyFrom(model)
    tensor = next(each for each in copy.graph.initializer if each.name == name)
    values = numpy_helper.to_array(tensor)
    tensor.CopyFrom(numpy_helper.from_array((values * factor).astype(values.dtype), name))
    return copy


def test_a_changed_weight_is_named_by_its_operator() -> None:
    images = example_of("residual", 8)
    stages = quantize(NETWORKS["residual"](), images)
    model = stages.export()
    wrong = changed(model, "body.1.weight_integers", -1)
    with pytest.raises(VerificationError) as error:
        verify(wrong, stages.quantized, images, threads=1)
    assert str(error.value).startswith(
        "QLinearConv 'conv2d_2_quantized' of the file differs from its simulation by up to "
    )
    assert str(error.value).endswith("% of the values; one step on 5% is allowed.")
    lenient = verify(wrong, stages.quantized, images, strict=False, threads=1)
    assert lenient.largest_steps > 1 and lenient.share_over_one_step > 0 and lenient.largest_share > 0.05
    right = verify(model, stages.quantized, images, threads=1)
    assert (right.largest_steps, right.share_over_one_step, right.agreement) == (0, 0.0, 1.0)
    assert right.load_seconds > 0


def test_a_changed_scale_is_found_as_well() -> None:
    images = example_of("plain", 8)
    stages = quantize(NETWORKS["plain"](), images)
    with pytest.raises(VerificationError, match="QLinearConv 'relu__quantized' of the file differs"):
        verify(changed(stages.export(), "relu__quantized.scale", 1.1), stages.quantized, images, threads=1)


def test_one_step_on_a_few_values_is_allowed_and_on_many_is_not() -> None:
    few = np.zeros(10_000, np.int16)
    few[:500] = 1
    refuse_differences([("few", few)])
    many = np.ones(10_000, np.int16)
    with pytest.raises(VerificationError) as error:
        refuse_differences([("QLinearAdd 'add'", many)])
    assert str(error.value) == (
        "QLinearAdd 'add' of the file differs from its simulation by up to 1 steps, on 100.0% of the values; "
        "one step on 5% is allowed."
    )
    with pytest.raises(VerificationError):
        refuse_differences([("two steps", np.eye(1, 100, dtype=np.int16) * 2)])


def test_what_onnxruntime_cannot_run_is_said() -> None:
    value = helper.make_tensor_value_info("input", TensorProto.DOUBLE, [2])
    graph = helper.make_graph(
        [helper.make_node("Erf", ["input"], ["output"])], "of doubles", [value],
        [helper.make_tensor_value_info("output", TensorProto.DOUBLE, [2])],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    with pytest.raises(ModelError, match=r"^onnxruntime .* cannot run the network's file .Could not find .*Erf"):
        open_session(model, 1)


def test_agreement_is_that_of_the_meaning() -> None:
    maps = torch.zeros(1, 2, 2, 2)
    other = maps.clone()
    other[0, 1, 0, 0] = 1.0
    assert agreement_of(Meaning("segmentation"), maps, other) == 0.75
    boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0, 0.9, 0.0]])
    detection = Meaning("detection", decode=lambda outputs: [boxes] if float(outputs[0].sum()) > 0 else [boxes[:0]])
    assert [agreement_of(detection, (each,), (maps + 1,)) for each in (maps + 2, maps)] == [1.0, 0.0]


def test_a_network_of_several_outputs_is_verified() -> None:
    images = example_of("shared_head", 8)
    stages = quantize(NETWORKS["shared_head"](), images)
    assert verify(stages.export(), stages.quantized, images, threads=1).agreement == 1.0

"""Every tiny network from module to file: in integer kernels, equal to its simulation, for any batch, no leftovers."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import ModelProto, TensorProto, helper, numpy_helper
from torch import Tensor, nn

from tests.networks import NETWORKS, example_of
from tests.quantized import SETTINGS, Stages, quantize
from zeroq.deploy import verify
from zeroq.deploy.fused import count_nodes
from zeroq.deploy.model_file import load_network, serialise
from zeroq.deploy.onnx_file import check
from zeroq.deploy.verify import open_session, run
from zeroq.divergence import Meaning
from zeroq.errors import ModelError
from zeroq.simulate import quantize_network
from zeroq.simulate.idle import without_idle

leaves = torch.utils._pytree.tree_leaves

# An export takes a second: half of the networks at 8 bits, half with layers of five widths, two at every setting.
CASES = [(name, ("w8a8", "mixed")[index % 2]) for index, name in enumerate(NETWORKS)]
CASES += [(name, setting) for name in ("residual", "concatenate_and_shuffle") for setting in SETTINGS]
CASES = list(dict.fromkeys(CASES))

# What onnxruntime computes in floating point, by design; nowhere else is a single operator.
IN_FLOAT: dict[str, set[str]] = {
    "norm_after_relu": {"Max"},
    **dict.fromkeys(("rectified_concatenation", "equal_sums", "moved"), {"Add"}),  # that gives the output
    "pre_activation": {"BatchNormalization", "Add"},  # in front of it
    "norm_first": {"BatchNormalization", "Max", "Min"},
    "unlike_parts": {"Mul"},  # by a number
    "split": {"Mul", "Slice"},
    "squeeze_excite": {"HardSigmoid", "Mul"},
    "gated": {"Sigmoid", "Mul", "Sub", "PRelu"},
    "recurrent": {"LSTM", "Expand", "Slice", "ReduceMean"},  # its first state; the last column; the mean of rows
    "largest": {"TopK"},
    "tokens": {"Add", "ReduceMean"},  # of a stored table; of sequences
    "attention": {"Add", "ReduceMean", "LayerNormalization", "Mul", "Softmax", "Div", "Erf"},  # the last two: GELU
    "norm_free": {"Mul", "Div", "Relu"},  # by numbers, around ReLUs
}


@pytest.mark.parametrize(("name", "setting"), CASES)
def test_a_file_is_what_its_simulation_is(name: str, setting: str, tmp_path: Path) -> None:
    images = example_of(name, 16)
    stages = quantize(NETWORKS[name](), images, *SETTINGS[setting])
    model = stages.export(seed=7, task="classification")
    verification = verify(model, stages.quantized, images, threads=1)
    assert verification.largest_steps <= 1 and verification.compared == sum(verification.integer_nodes.values())
    assert set(stages.weight_bits) <= verification.integer_weights
    assert set(verification.float_nodes) <= IN_FLOAT.get(name, set())
    assert set(stages.weights) == {layer.name for layer in stages.folded.layers}
    check_outputs(model, stages, images)
    check_leftovers(model)
    assert saturating_pairs(model) == 0
    check_model_file(stages, images, tmp_path)


def check_outputs(model: ModelProto, stages: Stages, images: Tensor) -> None:
    """The file, optimised and not, answers as the simulation does, for one image, two and five."""
    optimised, plain = (open_session(model, 1, optimised=each) for each in (True, False))
    for count in (1, 2, 5):
        with torch.inference_mode():
            expected = leaves(stages.quantized(images[:count]))
        for session in (optimised, plain):
            for reference, output in zip(expected, run(session, images[:count]), strict=True):
                assert output.shape == reference.shape
                # A value on the border between two integers may fall to either side; most do not.
                assert (output - reference).float().abs().mean() <= 0.01 * reference.abs().max()


def check_leftovers(model: ModelProto) -> None:
    """Nothing of the exporter is in the file, and all of ours is."""
    assert {entry.key: entry.value for entry in model.metadata_props} == {
        "version": "0.1.0",
        "seed": "7",
        "task": "classification",
    }
    assert (model.producer_name, model.producer_version, model.ir_version) == ("zeroq", "0.1.0", 8)
    assert [(each.domain, each.version) for each in model.opset_import] == [("", 18)]
    assert not model.functions and not model.graph.value_info and not model.doc_string
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    for part in [*model.graph.node, *model.graph.input, *model.graph.output, *model.graph.initializer]:
        assert not part.doc_string and not part.metadata_props
    assert not any(node.name for node in model.graph.node)
    text = model.SerializeToString()
    assert b"torch" not in text and str(Path(__file__).parents[1]).encode() not in text
    read = {name for node in model.graph.node for name in node.input}
    assert {tensor.name for tensor in model.graph.initializer} <= read


def saturating_pairs(model: ModelProto) -> int:
    """Neighbours in the file's own 8-bit weights whose products could overflow 16 bits on a CPU without VNNI.

    Found by going through every filter in the order in which kernels read it: row, column, input channel.
    """
    weights = {
        each.name: numpy_helper.to_array(each) for each in model.graph.initializer if each.data_type == TensorProto.INT8
    }
    weight_of = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    found = 0
    for node in model.graph.node:
        integers = weights.get(weight_of.get(node.input[1], "")) if node.op_type in ("Conv", "Gemm") else None
        if integers is None or (integers.ndim > 2 and integers.shape[1] == 1 and depthwise(node, len(integers))):
            continue
        for values in integers:
            flat = np.moveaxis(values.astype(int), 0, -1).reshape(-1).tolist()
            found += sum(abs(one + other) > 128 for one, other in zip(flat[::2], flat[1::2], strict=False))
    return found


def depthwise(node: onnx.NodeProto, filters: int) -> bool:
    """Whether a convolution has as many groups as filters."""
    return any(attribute.name == "group" and attribute.i == filters for attribute in node.attribute)


def check_model_file(stages: Stages, images: Tensor, folder: Path) -> None:
    """model.safetensors gives back the network: equal to the last bit, and its state_dict loads into another."""
    data = serialise(stages.quantized, stages.weight_bits, {"seed": 7})
    (folder / "model.safetensors").write_bytes(data)
    loaded, metadata = load_network(folder / "model.safetensors")
    assert metadata["seed"] == "7"
    assert serialise(loaded, stages.weight_bits, {"seed": 7}) == data
    with torch.inference_mode():
        expected = leaves(stages.quantized(images))
        assert all(torch.equal(one, other) for one, other in zip(expected, leaves(loaded(images)), strict=True))
        state = {name: value.clone() for name, value in stages.quantized.state_dict().items()}
        for value in loaded.state_dict().values():
            value.zero_()
        loaded.load_state_dict(state)
        assert all(torch.equal(one, other) for one, other in zip(expected, leaves(loaded(images)), strict=True))


def test_the_pair_oracle_sees_a_violation() -> None:
    images = example_of("grouped", 4)
    stages = quantize(NETWORKS["grouped"](), images)
    for layer in ("1.0", "4"):
        weight = stages.quantized.get_buffer(f"graph_module.{layer}.weight_integers")
        before = weight.clone()
        weight[0] = 100
        assert saturating_pairs(stages.export()) > 0
        weight.copy_(before)
    assert saturating_pairs(stages.export()) == 0


def test_layers_kept_in_floating_point_stay_so_and_the_rest_is_quantized_around_them() -> None:
    images = example_of("residual", 16)
    module = NETWORKS["residual"]()
    stages = quantize(module, images, float_layers=("body.1", "head"))
    model = stages.export()
    verification = verify(model, stages.quantized, images, threads=1)
    assert verification.float_nodes.get("Conv", 0) + verification.float_nodes.get("FusedConv", 0) == 1
    assert verification.integer_nodes["QLinearConv"] == 2
    assert set(stages.weights) == {"stem.0", "body.0.0"}
    check_outputs(model, stages, images)


def test_scales_of_equal_value_keep_their_own_names_and_nothing_else_changes() -> None:
    images = example_of("concatenate_and_shuffle", 4)
    model = quantize(NETWORKS["concatenate_and_shuffle"](), images).export()
    counts = []
    for keep_names in (False, True):
        counts.append(count_nodes(optimised(model, keep_names)))
    assert counts[0] == counts[1]


def optimised(model: ModelProto, keep_names: bool) -> ModelProto:
    """The graph that onnxruntime makes, with all of its optimisations or without the sharing of constants."""
    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.optimized_model_filepath = str(Path(folder) / "optimised.onnx")
        onnxruntime.InferenceSession(
            model.SerializeToString(),
            options,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=["ConstantSharing"] if keep_names else [],
        )
        return onnx.load(options.optimized_model_filepath)


def test_every_quantizer_has_a_scale_of_its_own_name() -> None:
    stages = quantize(NETWORKS["max_pool"](), example_of("max_pool", 4))
    model = stages.export()
    scales = {node.input[1] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    assert scales == {f"{name}.scale" for name in stages.quantized.quantizers}


def test_structured_metadata_are_json() -> None:
    stages = quantize(NETWORKS["one_convolution"](), example_of("one_convolution", 4))
    properties = {each.key: each.value for each in stages.export(preprocess={"size": [8, 8]}, task=None).metadata_props}
    assert json.loads(properties["preprocess"]) == {"size": [8, 8]}
    assert json.loads(properties["task"]) is None


class Unknown(nn.Module):
    """Uses an operator that ONNX does not have."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 1)

    def forward(self, images: Tensor) -> Tensor:
        return torch.special.bessel_j0(self.layer(images))


def test_an_operator_that_cannot_be_written_is_named() -> None:
    stages = quantize(Unknown(), torch.randn(4, 3, 4, 4))
    with pytest.raises(ModelError) as error:
        stages.export()
    where, line = Unknown.forward.__code__, "return torch.special.bessel_j0(self.layer(images))"
    assert str(error.value) == (
        f"The network uses bessel_j0 at {where.co_filename}:{where.co_firstlineno + 1} ({line}), which cannot be "
        "written to ONNX: write that step with other operators."
    )


class ByName(nn.Module):
    """Gives a dictionary: a list within it, a key that another value has, and one value twice."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 2)

    def forward(self, images: Tensor) -> dict[str, Any]:
        maps = self.layer(images).relu()
        means, scores = maps.mean((2, 3)), self.head(maps.amax((2, 3)))
        return {"scores": scores, "features": [maps, maps.mean(1)], "input": means, "one": means * 2, "absent": None}


def test_outputs_of_a_dictionary_have_its_keys() -> None:
    images = torch.randn(8, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    stages = quantize(ByName(), images)
    model = stages.export()
    names = ["scores", "features.0", "features.1", "input_output", "one"]
    assert [each.name for each in model.graph.output] == names
    with torch.inference_mode():
        expected = stages.quantized(images)
    session = open_session(model, 1)
    found = dict(zip(names, session.run(names, {"input": images.numpy()}), strict=True))
    for name, value in (("scores", expected["scores"]), ("features.1", expected["features"][1])):
        assert np.abs(found[name] - value.numpy()).max() <= 0.05 * value.abs().max()
    assert verify(model, stages.quantized, images).agreement == 1


def test_every_key_is_there_once_whatever_it_says(tmp_path: Path) -> None:
    """One value under two keys, the input itself, keys that are numbers, empty, or like others behind their endings."""

    class Keys(ByName):
        def forward(self, images: Tensor) -> dict[Any, Any]:
            maps = self.layer(images)
            scores = self.head(maps.mean((2, 3)))
            return {
                "one": scores, "other": scores, 3: maps.relu(), "": scores * 2, "input": images, "input_output": maps,
                "a.0": scores, "a": [maps],
            }  # fmt: skip

    images = torch.randn(8, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    stages = quantize(Keys(), images)
    model = stages.export()
    names = ["one", "other", "3", "output", "input_output", "input_output_output", "a.0", "a.0_output"]
    assert [each.name for each in model.graph.output] == names
    with torch.inference_mode():
        expected = stages.quantized(images)
    assert list(expected) == ["one", "other", 3, "", "input", "input_output", "a.0", "a"]
    found = dict(zip(names, open_session(model, 1).run(names, {"input": images.numpy()}), strict=True))
    assert np.array_equal(found["one"], found["other"]) and np.abs(found["input_output"] - images.numpy()).max() < 0.03
    assert verify(model, stages.quantized, images, meaning=Meaning("regression")).agreement > 0.999
    (tmp_path / "model.safetensors").write_bytes(serialise(stages.quantized, stages.weight_bits, {}))
    with torch.inference_mode():
        assert list(load_network(tmp_path / "model.safetensors")[0](images)) == list(expected)


def test_a_file_that_is_not_valid_is_refused_in_a_sentence() -> None:
    kind = helper.make_tensor_value_info("input", TensorProto.DOUBLE, [2])
    scale = helper.make_tensor("scale", TensorProto.FLOAT, [], [1.0])
    output = helper.make_tensor_value_info("output", TensorProto.UINT8, [2])
    node = helper.make_node("QuantizeLinear", ["input", "scale"], ["output"])
    graph = helper.make_graph([node], "doubles", [kind], [output], [scale])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    with pytest.raises(ModelError, match=r"^The network cannot be written to ONNX .*double.*: compute that"):
        check(model)


STORED = "depthwise grouped relu6 shared_head same_padding residual tokens concatenate_and_shuffle".split()


@pytest.mark.parametrize(("name", "bits"), [(name, (8, 3, 4)[index % 3]) for index, name in enumerate(STORED)])
def test_weights_that_are_only_stored_as_integers(name: str, bits: int, tmp_path: Path) -> None:
    """Every layer but the last computes in floating point: the file is no larger, and nothing unpacks in a run."""
    images = example_of(name, 8)
    whole = quantize(NETWORKS[name](), images, bits)
    stages = in_floating_point(whole, [layer.name for layer in whole.folded.layers[:-1]])
    model = stages.export()
    assert len(model.SerializeToString()) <= 1.02 * len(whole.export().SerializeToString())
    verification = verify(model, stages.quantized, images, threads=1)
    assert verification.optimised_equals_plain == 1.0 and verification.agreement == 1.0
    graph = optimised(model, keep_names=False).graph
    assert not {"Cast", "Gather", "BitwiseOr"} & {node.op_type for node in graph.node}
    floats = sum(tensor.data_type == TensorProto.FLOAT and len(tensor.dims) > 1 for tensor in graph.initializer)
    assert floats >= len(stages.folded.layers) - 1
    check_outputs(model, stages, images)
    check_model_file(stages, images, tmp_path)


def test_a_stored_weight_between_integers_is_not_rounded_again_by_onnxruntime() -> None:
    images = example_of("depthwise", 8)
    stages = in_floating_point(quantize(NETWORKS["depthwise"](), images, 4), ["1.0"])
    verification = verify(stages.export(), stages.quantized, images, threads=1)
    assert verification.float_nodes["Conv"] == 1 and verification.integer_nodes["QLinearConv"] == 2


def in_floating_point(stages: Stages, names: list[str]) -> Stages:
    """The same with layers that compute in floating point, and as few quantizers as they need."""
    placement = without_idle(stages.folded, stages.placement, names)
    input_bits = dict.fromkeys(stages.weights, 8)
    network = quantize_network(stages.folded, placement, stages.ranges, stages.weights, input_bits, names)
    return replace(stages, placement=placement, quantized=network)

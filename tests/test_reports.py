"""What users of other tools have reported, each as it must come out here.

| report | test |
| --- | --- |
| onnxruntime PR 25278, 22020: int32 bias overflows | test_a_dead_channel_keeps_its_bias |
| aimet 4054: scale of 1e-7 on dead channels | test_no_scale_is_tiny |
| onnxruntime 24815: bias of shape [1, N] | test_a_row_is_a_bias |
| onnxruntime 26324, 16105: another CPU, other answers | deploy/test_onnx_file.py, saturating_pairs of every file |
| inference-examples 528, YOLOv6 969: boxes and scores under one scale | test_scores_beside_boxes_are_kept |
| ultralytics 24223, 25920: patterns that hit others | test_what_is_kept_in_float_is_what_was_named |
| onnxsim PR 1205: nothing done on [B, T, C] | test_sequences_are_quantized_and_listed |
| ability-draft-plus PR 80: depthwise per tensor | test_depthwise_layers_have_a_scale_for_each_channel |
| RuView PR 1095: regression outputs too coarse | test_outputs_whose_rounding_matters_leave_in_floating_point |
| executorch 20517: padding="same" of (32, 1) | test_operators.py, "same_long" |
| executorch 16426: DeiT's file and simulation differ | test_attention_is_the_same_in_file_and_simulation |
| torch-xpu-ops 3489, 1833: ShuffleNetV2, SqueezeNet, MobileNetV3 | test_small_networks_lose_little |
| litert-torch 499: "int8" whose weights are float | test_the_share_in_integers_is_stated |
| Model-Optimizer 80: int8 slower than float | test_speed.py, test_slower_integers_are_said_with_what_stays_float |
| timm 2463: preprocessing | test_preprocessing_is_printed; test_pipeline.py, test_the_file_says_where_it_came_from |
| onnxruntime 26321, 21979: memory grows with every batch | test_memory_does_not_grow_with_the_images |
| onnxruntime 25378, 27513: weight-only files are slow | test_operators.py: every weight is in an integer kernel |
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

import zeroq
from tests.networks import NETWORKS, block, classifier, example_of, settle
from tests.operators import OPERATORS, noise
from tests.quantized import quantize
from tests.runs import QUICK, quick_run
from zeroq.deploy import verify
from zeroq.deploy.verify import open_session, run
from zeroq.preprocessing import imagenet
from zeroq.simulate.quantized_network import MOST_BIAS
from zeroq.terminal import share, show_run


def seeded(maker: type[nn.Module], *shapes: tuple[int, ...]) -> nn.Module:
    """A network with the same weights every time."""
    torch.manual_seed(7)
    return settle(maker(), *((64, *shape) for shape in shapes))


def outputs_of(model: onnx.ModelProto, images: Tensor) -> list[Tensor]:
    return run(open_session(model, 1), images)


def test_a_dead_channel_keeps_its_bias() -> None:
    module, images = OPERATORS["dead_channel"].make(), OPERATORS["dead_channel"].inputs(16)[0]
    stages = quantize(module, images)
    for name, tensor in stages.quantized.tensors().items():
        if tensor.dtype == torch.int32:
            assert int(tensor.abs().max()) <= MOST_BIAS, name
    first = stages.quantized.tensors()
    bias = first["0.bias_integers"][1].double() * first["0.bias_scale"][1].double()
    assert float(bias) == pytest.approx(5, rel=1e-3)
    with torch.inference_mode():
        torch.testing.assert_close(outputs_of(stages.export(), images)[0], module(images), rtol=0, atol=0.02)


@pytest.mark.parametrize("name", ["dead_channel", "tiny_weights", "dead_channels"])
def test_no_scale_is_tiny(name: str) -> None:
    """Of weights, biases and activations, all-zero channels and values that never leave zero among them."""
    case = OPERATORS.get(name)
    module = case.make() if case else NETWORKS[name]()
    images = case.inputs(16)[0] if case else example_of(name, 16)
    stages = quantize(module, images)
    scales = {key: tensor for key, tensor in stages.quantized.tensors().items() if key.endswith("weight_scale")}
    assert scales
    for key, tensor in scales.items():
        assert float(tensor.min()) > 1e-7, key


def test_a_row_is_a_bias() -> None:
    """By addmm, and by a sum behind a layer of no bias: one Gemm each, and nothing is left in floating point."""
    case = OPERATORS["row_bias"]
    module, images = case.make(), case.inputs(16)[0]
    stages = quantize(module, images)
    verification = verify(stages.export(), stages.quantized, images, threads=1)
    assert verification.integer_nodes == {"QGemm": 2} and verification.float_nodes == {}
    assert stages.folded.not_quantized == ()
    with torch.inference_mode():
        torch.testing.assert_close(stages.folded.run(images), module(images), rtol=1e-4, atol=1e-5)


def test_scores_beside_boxes_are_kept() -> None:
    case = OPERATORS["boxes_and_scores"]
    module, images = case.make(), case.inputs(16)[0]
    found = outputs_of(quantize(module, images).export(), images)[0]
    with torch.inference_mode():
        expected = module(images)
    boxes, scores = slice(0, 4), slice(4, None)
    assert float(expected[:, boxes].max()) > 100 > 1 >= float(expected[:, scores].max())
    assert noise(expected[:, scores], found[:, scores]) < 0.01 > noise(expected[:, boxes], found[:, boxes])


def test_what_is_kept_in_float_is_what_was_named() -> None:
    """Names that begin or end alike stay as they are: 1.0 is neither 11.0 nor 1.0.1."""
    torch.manual_seed(0)
    layers = [block(3, 8), *(block(8, 8) for _ in range(11))]
    module = settle(classifier(*layers), (16, 3, 8, 8))
    result = zeroq.quantize(module, torch.randn(1, 3, 8, 8), keep_float="1.0", **QUICK).result
    kept = {each["name"] for each in result["not_quantized"] if each["reason"] == "kept in floating point as asked"}
    assert kept == {"1.0"}
    assert {layer["name"] for layer in result["layers"]} >= {"0.0", "10.0", "11.0"}
    assert len(result["layers"]) == 12 and 0 < result["integer_share"] < 1


def test_sequences_are_quantized_and_listed() -> None:
    module, images = NETWORKS["tokens"](), example_of("tokens", 16)
    stages = quantize(module, images)
    before = dict(module.named_parameters())
    for name, weight in stages.weights.items():
        restored = weight.dequantized()
        original = before.get(f"{name}.weight")
        assert original is None or restored.shape == original.shape and not torch.equal(restored, original)
    assert {"embed", "mix.0", "head"} <= set(stages.weights)
    assert verify(stages.export(), stages.quantized, images, threads=1).integer_weights >= set(stages.weight_bits)


def test_depthwise_layers_have_a_scale_for_each_channel() -> None:
    """Channels a thousand times apart, as in MobileNets: one scale for all would leave most of them empty."""
    torch.manual_seed(0)
    module = classifier(block(3, 8), block(8, 8, groups=8), block(8, 8, 1))
    with torch.no_grad():
        module[1][0].weight *= torch.logspace(-1.5, 1.5, 8).reshape(-1, 1, 1, 1)
    settle(module, (64, 3, 8, 8))
    images = torch.randn(16, 3, 8, 8)
    stages = quantize(module, images)
    weight = stages.weights["1.0"]
    assert weight.scale.shape == (8,) and (weight.integers.abs().flatten(1).amax(1) > 40).all()
    with torch.inference_mode():
        assert noise(module(images), outputs_of(stages.export(), images)[0]) < 0.01


class Coarse(nn.Module):
    """One convolution gives what is in hundreds and what is in hundredths: one range of 256 steps for both."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = block(3, 8), nn.Conv2d(8, 4, 1)
        with torch.no_grad():
            self.head.weight *= torch.tensor([300.0, 100.0, 0.3, 0.1]).reshape(-1, 1, 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.stem(images))


def test_outputs_whose_rounding_matters_leave_in_floating_point() -> None:
    module = seeded(Coarse, (3, 8, 8))
    run_ = zeroq.quantize(module, torch.randn(1, 3, 8, 8), task="regression", **QUICK)
    result = run_.result
    reasons = {each["name"]: each["reason"] for each in result["not_quantized"]}
    assert reasons == {
        "head": "rounding its output to 8 bits did most of the harm: it leaves in floating point, without an integer "
        "kernel"
    }
    assert result["divergence"]["mean"] < 1e-2 and result["divergence"]["agreement"] > 0.99  # nmse, and 1 - nmse
    assert 0 < result["integer_share"] < 1
    assert not any("run in floating point" in warning for warning in result["warnings"])
    images = torch.randn(16, 3, 8, 8)
    with torch.inference_mode():
        found = outputs_of(onnx.load(run_.directory / "model.onnx"), images)[0]
        assert noise(module(images), found) < 0.05
        np.testing.assert_allclose(found, run_.model(images), rtol=1e-3, atol=1e-2)


def test_attention_is_the_same_in_file_and_simulation() -> None:
    module, images = NETWORKS["attention"](), example_of("attention", 16)
    stages = quantize(module, images)
    verification = verify(stages.export(), stages.quantized, images, threads=1)
    assert verification.largest_steps <= 1
    with torch.inference_mode():
        assert noise(module(images), stages.quantized(images)) < 0.01


@pytest.mark.parametrize("name", ["split", "no_norm", "squeeze_excite", "gated"])
def test_small_networks_lose_little(name: str) -> None:
    module, images = NETWORKS[name](), example_of(name, 16)
    with torch.inference_mode():
        assert noise(module(images), quantize(module, images).quantized(images)) < 0.01


def test_the_share_in_integers_is_stated() -> None:
    """Weights are stored as integers, and products of attention count as well."""
    run_ = quick_run("attention")
    result = run_.result
    assert 0 < result["integer_share"] <= 1
    stored = onnx.load(run_.directory / "model.onnx").graph.initializer
    weights = sum(layer["parameters"] for layer in result["layers"])
    floats = sum(
        numpy_helper.to_array(tensor).size for tensor in stored if tensor.data_type == onnx.TensorProto.FLOAT
    )
    assert floats < weights


def test_preprocessing_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    run_ = quick_run("plain")
    show_run(run_.result, run_.directory, imagenet((224, 224)))
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for part in ("224 x 224", "bilinear", "RGB", "0.485, 0.456, 0.406", "0.229, 0.224, 0.225"):
        assert part in text


MEASURE = """
import resource, sys, torch
from tests.networks import block, classifier
from tests.quantized import quantize
from zeroq.graph import capture, fold
from zeroq.ranges import observe
from zeroq.simulate import place
torch.set_num_threads(1)
folded = fold(capture(classifier(block(3, 32), block(32, 8)).eval(), torch.randn(2, 3, 96, 96)))
placement, bits = place(folded), {layer.name: 8 for layer in folded.layers}
images = torch.randn(int(sys.argv[1]), 3, 96, 96)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
observe(folded, placement, images, bits)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_memory_does_not_grow_with_the_images() -> None:
    """What 256 images need in calibration beside themselves is what 32 need; all values of 224 more are 0.3 GB."""
    needed = []
    for count in (32, 256):
        done = subprocess.run(
            [sys.executable, "-c", MEASURE, str(count)], capture_output=True, text=True, check=True,
            cwd=Path(__file__).parent.parent,
        )  # fmt: skip
        needed.append(int(done.stdout))
    assert needed[1] < needed[0] + 60_000, json.dumps(needed)  # in KB
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss > 0


@pytest.mark.parametrize(
    ("fraction", "text"),
    [(1.0, "100.00 %"), (0.99999, "over 99.99 %"), (0.00001, "under 0.01 %"), (0.0, "0.00 %"), (0.1234, "12.34 %")],
)
def test_a_share_is_never_rounded_to_all_or_nothing(fraction: float, text: str) -> None:
    assert share(fraction) == text

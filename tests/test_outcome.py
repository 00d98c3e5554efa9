"""Every figure of result.json against another way to it, and the cases that users of other tools reported."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

import zeroq
import zeroq.stages
from tests.networks import block, classifier, example_of
from tests.retinanet import FrozenBatchNorm2d
from tests.runs import QUICK, quick_run, sham_export, sham_verify, shared_run
from zeroq.pipeline import Run

STEP_SHARE = 0.02  # of the largest output: what file and simulation may differ by, a step or two of 8 bits


def disagreement(run: Run, images: torch.Tensor) -> float:
    """Largest difference of file and simulation, relative to the largest output."""
    session = onnxruntime.InferenceSession(run.directory / "model.onnx", providers=["CPUExecutionProvider"])
    found = session.run(None, {session.get_inputs()[0].name: images.numpy()})[0]
    with torch.inference_mode():
        simulated = run.model(images).numpy()
    return float(np.abs(found - simulated).max() / np.abs(simulated).max())


def quantized(network: nn.Module, images: torch.Tensor, **options: Any) -> Run:
    return zeroq.quantize(network.eval(), images, **QUICK | options)


def test_bytes_are_counted_as_they_are_stored() -> None:
    result = shared_run().result
    bits = {layer["name"]: layer["weight_bits"] for layer in result["layers"]}
    weights = {layer["name"]: layer["parameters"] for layer in result["layers"]}
    assert result["weight_bytes"] == sum(-(-bits[name] * weights[name] // 8) for name in bits)
    channels, biases = 8 + 8 + 8 + 4, 8 + 8 + 8 + 4
    assert 4 * (channels + biases) <= result["other_bytes"] <= 4 * (channels + biases) + 100
    assert result["onnx_bytes"] >= result["weight_bytes"] + result["other_bytes"]


def test_multiply_accumulates_are_those_of_the_shapes() -> None:
    found = {layer["name"]: layer["multiply_accumulates"] for layer in shared_run().result["layers"]}
    assert found == {
        "stem.0": 64 * 8 * 27, "body.0.0": 64 * 8 * 72, "body.1": 64 * 8 * 72, "head": 4 * 8,
    }  # fmt: skip


def test_layers_kept_in_floating_point_are_floating_point_and_said_to_be() -> None:
    """Files that are called int8 and hold floats have been reported (litert-torch 499)."""
    run = quick_run("residual", keep_float=("body*", "head"))
    result = run.result
    kept = {entry["name"] for entry in result["not_quantized"] if entry["reason"] == "kept in floating point as asked"}
    assert kept == {"body.0.0", "body.1", "head"}
    assert [layer["name"] for layer in result["layers"]] == ["stem.0"]
    assert result["integer_share"] == pytest.approx(27 / (27 + 72 + 72 + 4 * 8 / 512))
    assert result["float_nodes"]["Conv"] == 2 and result["integer_nodes"].get("QLinearConv") == 1
    assert disagreement(run, example_of("residual", images=16, seed=3)) < STEP_SHARE
    assert result["divergence"]["mean"] < 0.01


def dead_channel() -> nn.Module:
    """A channel of weights 1e-9 and a bias of 5: its int32 bias overflows where scales are not bounded."""
    network = classifier(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU())
    with torch.no_grad():
        for layer in (network[0], network[2]):
            layer.weight[1] = 1e-9
            layer.bias[1] = 5.0
    return network


def long_kernel() -> nn.Module:
    return classifier(nn.Conv2d(1, 16, (32, 1), padding="same"), nn.ReLU(), channels=16)


def unlike_filters() -> nn.Module:
    """Depthwise filters a thousand times as large as others: one scale for all would leave zeros."""
    network = classifier(block(3, 8), nn.Conv2d(8, 8, 3, groups=8), nn.ReLU())
    with torch.no_grad():
        network[1].weight *= torch.logspace(-3, 0, 8).reshape(8, 1, 1, 1)
        network[-1].weight /= torch.logspace(-3, 0, 8)
    return network


REPORTED: dict[str, tuple[Callable[[], nn.Module], tuple[int, int, int]]] = {
    "a dead channel (onnxruntime 25278, aimet 4054)": (dead_channel, (3, 8, 8)),
    "a long kernel on one channel (executorch 20517)": (long_kernel, (1, 40, 3)),
    "a linear layer with bias (onnxruntime 24815)": (
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(48, 16), nn.ReLU(), nn.Linear(16, 4)), (3, 4, 4),
    ),
    "unlike depthwise filters (ability-draft-plus 80)": (unlike_filters, (3, 8, 8)),
    "maps of one pixel": (lambda: classifier(block(3, 8, stride=2), block(8, 8)), (3, 2, 2)),
    "equal biases of zero": (lambda: classifier(block(3, 8), block(8, 8)), (3, 8, 8)),
}  # fmt: skip


@pytest.mark.parametrize(("make", "shape"), REPORTED.values(), ids=REPORTED)
def test_what_has_broken_other_tools(make: Callable[[], nn.Module], shape: tuple[int, int, int]) -> None:
    torch.manual_seed(1)
    network, images = make().eval(), 3 * torch.rand(16, *shape) - 1.5  # as pixels can be
    # Without BatchNorms ranges rest on noise alone, and on a few images of 4 x 4 they are a matter of chance.
    result = (run := zeroq.quantize(network, images, **QUICK | {"images": 64})).result
    assert result["integer_share"] == 1 and result["float_nodes"] == {}
    assert result["verification"]["largest_steps"] <= 1
    assert disagreement(run, images) < STEP_SHARE
    with torch.inference_mode():
        reference, found = network(images), run.model(images)
    assert (reference - found).abs().max() < 0.1 * reference.abs().max()
    assert (run.directory / "report.html").stat().st_size > 10_000


def test_no_pair_of_weights_saturates() -> None:
    """Right on one CPU and wrong on another (onnxruntime 26324, 16105): from the integers that are stored."""
    run = quick_run("residual", weight_bits=8)
    for layer in run.result["layers"]:
        integers = run.model.tensors()[f"{layer['name']}.weight_integers"].int()  # type: ignore[operator]
        rows = integers.movedim(1, -1).flatten(1)  # [outputs, kernel row x kernel column x input channel]
        rows = rows[:, : rows.shape[1] // 2 * 2].reshape(len(rows), -1, 2)
        alike = rows.prod(2) > 0
        assert rows.abs().sum(2)[alike].max() <= 128, layer["name"]
        assert rows.abs().max() > 64, "8 bits are used"


def test_every_layer_is_quantized_or_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    network = classifier(block(3, 8), block(8, 8, groups=2), block(8, 8, 1))
    monkeypatch.setattr(zeroq.stages, "export_onnx", sham_export)
    monkeypatch.setattr(zeroq.stages, "verify", sham_verify)
    result = quantized(network, torch.randn(2, 3, 8, 8), keep_float="1.*").result
    listed = {layer["name"] for layer in result["layers"]} | {entry["name"] for entry in result["not_quantized"]}
    layers = {name for name, module in network.named_modules() if isinstance(module, (nn.Conv2d, nn.Linear))}
    assert layers <= listed
    assert len(result["layers"]) == len(layers) - 1
    for one, other in itertools.pairwise(result["layers"]):
        assert one["name"] != other["name"]


def test_what_computes_in_floating_point_is_named_by_the_users_module() -> None:
    class Swish(nn.Module):
        """SiLU as a module, a mean over channels in the forward pass."""

        def __init__(self) -> None:
            super().__init__()
            self.stem, self.swish, self.last = block(3, 8), nn.SiLU(), nn.Conv2d(8, 8, 1)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.last(self.swish(self.stem(images))).mean((1, 2, 3)).unsqueeze(1)

    result = quantized(Swish(), torch.randn(2, 3, 8, 8), task="regression").result
    reasons = {entry["name"]: entry["reason"] for entry in result["not_quantized"]}
    assert reasons["swish"].startswith("silu in floating point")
    assert reasons["mean"].startswith("mean in floating point"), "a step of the network's own forward pass"


def test_gains_and_shifts_of_frozen_norms_count_as_floats() -> None:
    torch.manual_seed(0)
    plain, frozen = (
        classifier(nn.Conv2d(3, 4, 3), norm(4), nn.ReLU(), block(4, 8)) for norm in (nn.BatchNorm2d, FrozenBatchNorm2d)
    )
    found = quantized(frozen, torch.randn(2, 3, 8, 8)).result
    assert found["float_bytes"] == 4 * sum(tensor.numel() for tensor in plain.parameters())
    assert found["not_quantized"][:-1] == [] and found["integer_share"] == 1.0


def test_a_file_that_is_larger_than_the_network_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    """That of a tiny network is so by its graph, and of no concern."""
    told = "more than the"
    assert not any(told in each for each in quick_run("plain").result["warnings"])
    monkeypatch.setattr("zeroq.outcome.WORTH_A_WARNING", 0)
    assert any(told in each for each in quick_run("plain").result["warnings"])

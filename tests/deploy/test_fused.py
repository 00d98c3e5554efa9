"""Fused operators are matched with the simulation's values, however these are shared, moved or equal."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.networks import NETWORKS, example_of
from tests.quantized import Stages, quantize
from zeroq.deploy.fused import FusedOperator, count_nodes, fused_operators
from zeroq.deploy.verify import open_session, operator_steps, simulated


def matched(stages: Stages, folder: Path) -> list[FusedOperator]:
    """The fused operators of the file."""
    open_session(stages.export(), 1, keep=folder / "optimised.onnx")
    return fused_operators(onnx.load(folder / "optimised.onnx"), stages.quantized.graph)


def flow(operators: list[FusedOperator]) -> set[tuple[str, tuple[str, ...], str | None]]:
    """What kind of operator reads which values, and what it writes."""
    return {(each.node.op_type, tuple(name for _, name in each.reads), each.writes) for each in operators}


class Tangle(nn.Module):
    """Equal ranges, moved values, equal sums and layers of equal numbers, all at once."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.one, self.other = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)
        self.other.load_state_dict(self.one.state_dict())

    def forward(self, images: Tensor) -> Tensor:
        stem = functional.relu(self.stem(images))
        moved = functional.max_pool2d(stem, 3, 1, 1).flatten(2).unflatten(2, (6, 6))[:, :, 1:, :]
        padded = functional.pad(moved, (0, 0, 1, 0))
        one, other = self.one(padded), self.other(padded)
        total = one + other
        again = functional.relu(one + other)
        return functional.avg_pool2d(torch.cat([total + again, again, stem, again], 1), 2)


def test_values_that_are_shared_moved_and_equal(tmp_path: Path) -> None:
    torch.manual_seed(0)
    stages = quantize(Tangle().eval(), torch.randn(8, 3, 6, 6))
    quantizers = stages.quantized.quantizers
    assert flow(matched(stages, tmp_path)) == {
        ("QLinearConv", ("images_quantized",), "relu_quantized"),
        # The padding is the convolutions' own, so that they read the value before it.
        ("QLinearConv", ("slice_2_quantized",), "conv2d_1_quantized"),
        ("QLinearConv", ("slice_2_quantized",), "conv2d_2_quantized"),
        ("QLinearAdd", ("conv2d_1_quantized", "conv2d_2_quantized"), "add_quantized"),
        ("QLinearAdd", ("add_quantized", "relu_1_quantized"), "add_2_quantized"),
        (
            "QLinearConcat",
            ("add_2_quantized", "relu_1_quantized", "relu_quantized", "relu_1_quantized"),
            "cat_quantized",
        ),
        ("QLinearAveragePool", ("cat_quantized",), "avg_pool2d_quantized"),
    }
    assert {"relu_quantized", "pad_quantized"} <= set(quantizers)


@pytest.mark.parametrize(
    "name", ["concatenate_and_shuffle", "shared_head", "reused_module", "equal_sums", "one_pixel_maps"]
)
def test_every_operator_is_matched_once(name: str, tmp_path: Path) -> None:
    stages = quantize(NETWORKS[name](), example_of(name, 8))
    operators = matched(stages, tmp_path)
    writes = [each.writes for each in operators if each.writes is not None]
    assert len(set(writes)) == len(writes)
    sites = [node for node in stages.quantized.graph.nodes if str(node.target).startswith(("aten.conv", "aten.linear"))]
    layers = [each for each in operators if each.node.op_type in ("QLinearConv", "QGemm")]
    assert len(layers) == len(sites) == sum(len(layer.sites) for layer in stages.folded.layers)


def test_an_operator_with_another_weight_is_found_by_running_it(tmp_path: Path) -> None:
    images = example_of("residual", 8)
    stages = quantize(NETWORKS["residual"](), images)
    model = stages.export()
    open_session(model, 1, keep=tmp_path / "optimised.onnx")
    optimised = onnx.load(tmp_path / "optimised.onnx")
    operators = fused_operators(optimised, stages.quantized.graph)
    integers, highs, _ = simulated(stages.quantized, images)
    assert all(steps.max() <= 1 for _, steps in operator_steps(optimised, operators, integers, highs, 1))
    weight = next(each for each in optimised.graph.initializer if each.name == "body.1.weight_integers")
    weight.raw_data = bytes(256 - value if value else 0 for value in weight.raw_data)  # the other sign
    wrong = {title for title, steps in operator_steps(optimised, operators, integers, highs, 1) if steps.max() > 1}
    assert wrong == {"QLinearConv 'conv2d_2_quantized'"}


def test_nodes_are_counted_by_what_they_compute_in(tmp_path: Path) -> None:
    stages = quantize(NETWORKS["gated"](), example_of("gated", 8))
    open_session(stages.export(), 1, keep=tmp_path / "optimised.onnx")
    integer, floating = count_nodes(onnx.load(tmp_path / "optimised.onnx"))
    assert integer == {
        "QLinearConv": 5, "QLinearLeakyRelu": 1, "QLinearAdd": 1, "QLinearGlobalAveragePool": 1, "QGemm": 1
    }  # fmt: skip
    assert floating == {"Sigmoid": 2, "Mul": 3, "Sub": 1, "PRelu": 1}

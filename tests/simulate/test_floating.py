"""What computes in floating point is named by module, with its operators, and nothing else is."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.networks import NETWORKS, example_of
from tests.quantized import quantize
from zeroq.simulate import float_operators


def listed(module: nn.Module, images: Tensor, **settings: tuple[str, ...]) -> dict[str, str]:
    """Name -> operators."""
    stages = quantize(module, images, **settings)  # type: ignore[arg-type]
    found = float_operators(stages.quantized.graph, stages.folded)
    return {name: reason.split(" in floating point")[0] for name, reason in found}


@pytest.mark.parametrize("name", ["plain", "residual", "concatenate_and_shuffle", "max_pool"])
def test_networks_of_integers_have_none(name: str) -> None:
    assert listed(NETWORKS[name](), example_of(name, 8)) == {}


def test_a_sum_that_gives_the_output_is_one() -> None:
    assert listed(NETWORKS["equal_sums"](), example_of("equal_sums", 8)) == {"add_4": "add"}


class Steps(nn.Module):
    """Functions of modules and of the network's own forward pass, between layers and outside of them."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other, self.swish = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.SiLU()

    def forward(self, images: Tensor) -> Tensor:
        gate = torch.sigmoid(self.one(images)) * self.swish(self.one(images))
        return functional.elu(self.other(gate), 0.5) / 2


def test_steps_are_named_by_their_module_or_by_themselves() -> None:
    found = listed(Steps().eval(), torch.randn(8, 3, 4, 4))
    assert found == {"swish": "silu", "elu": "elu", "div": "div"}, "the sigmoid and the product are integer kernels"


def test_taking_one_of_several_outputs_is_no_step() -> None:
    assert listed(NETWORKS["largest"](), example_of("largest", 8)) == {"topk": "topk"}


def test_pooling_with_windows_of_several_sizes_is_one() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(3), nn.Conv2d(4, 4, 3), nn.Flatten())
    assert listed(network, torch.randn(8, 3, 8, 8)) == {"2": "adaptive_avg_pool2d"}
    network[2] = nn.AdaptiveAvgPool2d(4)
    network[3] = nn.Conv2d(4, 4, 4)
    assert listed(network, torch.randn(8, 3, 8, 8)) == {}


def test_a_transformer_lists_softmax_norm_and_gelu() -> None:
    found = listed(NETWORKS["attention"](), example_of("attention", 8))
    assert {found[name] for name in ("norm1", "norm2", "mlp.1")} == {"layer_norm", "gelu"}
    assert {"softmax", "mean"} <= set(found.values()) and not {"matmul", "linear"} & set(found.values())


def test_layers_kept_in_floating_point_are_among_them() -> None:
    assert listed(NETWORKS["plain"](), example_of("plain", 8), float_layers=("1.0",)) == {"1.0": "conv2d"}

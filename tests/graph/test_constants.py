"""Tensors that a forward pass fills in slice by slice are stored; what depends on the input is not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from zeroq.errors import CaptureError
from zeroq.graph import Network, capture

IMAGES = torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(0))


def checked(module: nn.Module) -> Network:
    """The captured network, equal to the module on another batch."""
    network = capture(module.eval(), IMAGES[:2])
    torch.testing.assert_close(network.run(IMAGES), module(IMAGES))
    return network


def targets(network: Network) -> set[str]:
    return {str(node.target) for node in network.graph.nodes if node.op == "call_function"}


class Windows(nn.Module):
    """As torchvision's Swin makes its masks."""

    def forward(self, x: Tensor) -> Tensor:
        mask = x.new_zeros((4, 4))
        count = 0
        for rows in ((0, -2), (-2, -1), (-1, None)):
            for columns in ((0, -1), (-1, None)):
                mask[rows[0] : rows[1], columns[0] : columns[1]] = count
                count += 1
        mask = mask.unsqueeze(0) - mask.unsqueeze(1)
        mask = mask.masked_fill(mask != 0, -100.0).masked_fill(mask == 0, 0.0)
        return x + mask.sum(0)


class ReadTwice(nn.Module):
    """A buffer read before and after a change."""

    def forward(self, x: Tensor) -> Tensor:
        table = torch.zeros(4, 4)
        table[1] = 1.0
        first = x + table
        table[2:, 1] += 5.0
        return first * table


class Cleared(nn.Module):
    """As torchvision's second Swin clears a part of a bias, on a copy."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 6)

    def forward(self, x: Tensor) -> Tensor:
        bias = self.linear.bias.clone()
        bias[2:4].zero_()
        return nn.functional.linear(x, self.linear.weight, bias)


class Written(nn.Module):
    """A part of a table of zeros takes the input."""

    def forward(self, x: Tensor) -> Tensor:
        table = x.new_zeros((4, 4))
        table[1:3] = x[0, 0, 1:3]
        return x + table


def test_a_mask_of_windows_is_stored() -> None:
    network = checked(Windows())
    assert targets(network) == {"aten.add.Tensor"}


def test_a_reader_gets_the_value_of_its_time() -> None:
    network = checked(ReadTwice())
    assert targets(network) == {"aten.add.Tensor", "aten.mul.Tensor"}
    assert set(network.tensors) == {"constants/zeros", "constants/zeros_later"}


def test_a_changed_copy_keeps_the_name_of_the_parameter() -> None:
    module = Cleared()
    network = checked(module)
    assert set(network.tensors) == {"linear.weight", "linear.bias"} and len(network.layers) == 1
    assert (network.tensors["linear.bias"][2:4] == 0).all() and (module.linear.bias[2:4] != 0).all()


def test_equal_constants_are_stored_once() -> None:
    network = checked(nn.Sequential(ReadTwice(), ReadTwice()))
    assert len(network.tensors) == 2


def test_what_takes_the_input_is_not_taken_for_a_constant() -> None:
    with pytest.raises(CaptureError, match="in a way that cannot be untangled"):
        capture(Written(), IMAGES[:2])

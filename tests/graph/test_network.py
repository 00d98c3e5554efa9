"""What is found in a graph: layers with their facts, and everything else that has weights with a reason."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.networks import NETWORKS, example_of
from zeroq.graph import capture, fold


class Everything(nn.Module):
    """One of each: layers of all kinds, a transposed convolution, stored tensors in other operators."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Conv2d(3, 6, (3, 1), stride=(2, 1), padding=(1, 0), groups=3)
        self.depth = nn.Conv2d(6, 6, 3, padding=1, groups=6, bias=False)
        self.line, self.head = nn.Conv1d(6, 4, 3), nn.Linear(4, 5)
        self.up, self.slopes, self.gain = nn.ConvTranspose2d(6, 6, 2, 2), nn.PReLU(), nn.Parameter(torch.rand(5))

    def forward(self, images: Tensor) -> Tensor:
        maps = self.slopes(self.up(self.depth(self.wide(images))))
        return self.head(self.line(maps.flatten(2)).transpose(1, 2)) * self.gain


def test_layers_and_their_facts() -> None:
    network = fold(capture(Everything(), torch.randn(2, 3, 8, 4)))
    found = {layer.name: layer for layer in network.layers}
    assert list(found) == ["wide", "depth", "up", "line", "head"]
    facts = {name: (each.operator, each.shape, each.groups, each.bias) for name, each in found.items()}
    assert facts == {
        "wide": ("conv2d", (6, 1, 3, 1), 3, "wide.bias"),
        "depth": ("conv2d", (6, 1, 3, 3), 6, None),
        "up": ("conv2d", (24, 6, 1, 1), 1, "up.bias"),  # four phases of a transposed convolution
        "line": ("conv1d", (4, 6, 3), 1, "line.bias"),
        "head": ("linear", (5, 4), 1, "head.bias"),
    }
    # Positions of the output x filters x weights of a filter, by hand.
    assert {name: each.multiply_accumulates for name, each in found.items()} == {
        "wide": 4 * 4 * 6 * 3,
        "depth": 4 * 4 * 6 * 9,
        "up": 4 * 4 * 24 * 6,
        "line": (8 * 8 - 2) * 4 * 18,
        "head": (8 * 8 - 2) * 5 * 4,
    }
    parameters = {"wide": 18, "depth": 54, "up": 144, "line": 72, "head": 20}
    assert {name: each.parameters for name, each in found.items()} == parameters
    assert [name for name, each in found.items() if each.depthwise] == ["wide", "depth"]


def test_every_other_use_of_weights_has_its_reason() -> None:
    network = capture(Everything(), torch.randn(2, 3, 8, 4))
    assert network.not_quantized == (
        ("slopes", "prelu with a stored tensor has no integer kernel"),
        ("gain", "mul with a stored tensor has no integer kernel"),
    )


def test_stored_tensors_in_lists_are_seen() -> None:
    class Lists(nn.Module):
        """A stored matrix in an equation."""

        def __init__(self) -> None:
            super().__init__()
            self.matrix = nn.Parameter(torch.randn(3, 4))

        def forward(self, rows: Tensor) -> Tensor:
            return torch.einsum("nc,cd,nd->nd", rows, self.matrix, rows @ torch.ones(3, 4))

    assert capture(Lists(), torch.randn(2, 3)).not_quantized == (
        ("matrix", "einsum with a stored tensor has no integer kernel"),
    )


def test_sites_of_a_shared_weight_are_in_order_and_counted_together() -> None:
    (stem, head) = fold(capture(NETWORKS["shared_head"](), example_of("shared_head"))).layers
    assert (stem.name, head.name, len(head.sites)) == ("stem.0", "head.0", 2)
    assert head.multiply_accumulates == (8 * 8 + 4 * 4) * head.parameters


def test_norms_know_the_layer_whose_only_reader_they_are() -> None:
    network = capture(NETWORKS["pre_activation"](), example_of("pre_activation"))
    assert [norm.layer for norm in network.norms] == [None, None]
    network = capture(NETWORKS["linear_only"](), example_of("linear_only"))
    assert [norm.layer for norm in network.norms] == ["1"]
    module = NETWORKS["linear_only"]()
    assert torch.equal(network.norms[0].mean, module[2].running_mean)
    assert network.norms[0].epsilon == module[2].eps


def test_a_batch_norm_that_uses_its_batch_is_no_norm() -> None:
    class Instance(nn.Module):
        """Statistics of each image alone, as of a batch of one that has all their channels."""

        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(3, 4, 1)

        def forward(self, images: Tensor) -> Tensor:
            values = self.layer(images)
            joined = functional.batch_norm(values.reshape(1, -1, 4, 4), None, None, training=True)
            return functional.relu(joined.reshape(values.shape))

    network = capture(Instance(), torch.randn(2, 3, 4, 4))
    assert torch.ops.aten.batch_norm.default in {node.target for node in network.graph.nodes}
    assert network.norms == ()


def test_tensors_are_replaced_in_a_new_network() -> None:
    images = example_of("plain", 3)
    network = fold(capture(NETWORKS["plain"](), images))
    before = network.run(images)
    zero = network.with_tensors({"4.weight": torch.zeros_like(network.tensors["4.weight"])})
    torch.testing.assert_close(zero.run(images), network.tensors["4.bias"].expand(3, 4))
    assert torch.equal(network.run(images), before)


def test_shapes_are_without_the_batch() -> None:
    network = capture(NETWORKS["wide_input"](), example_of("wide_input"))
    assert network.shapes[network.inputs[0]] == (3, 8, 12)
    assert network.shapes[network.node("linear").name] == (4,)


@pytest.mark.parametrize("name", NETWORKS)
def test_layers_stand_in_order_of_execution(name: str) -> None:
    network = capture(NETWORKS[name](), example_of(name))
    position = {node.name: index for index, node in enumerate(network.graph.nodes)}
    first_sites = [position[layer.sites[0]] for layer in network.layers]
    assert first_sites == sorted(first_sites)


def test_a_weight_and_a_bias_that_are_both_matrices_are_two_layers() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.part = nn.Linear(4, 4)
            self.part.bias = nn.Parameter(torch.randn(3, 4))

        def forward(self, values: Tensor) -> Tensor:
            return functional.linear(functional.linear(values, self.part.weight), self.part.bias)

    network = fold(capture(Both().eval(), torch.randn(2, 4)))
    assert [layer.name for layer in network.layers] == ["part.weight", "part.bias"]

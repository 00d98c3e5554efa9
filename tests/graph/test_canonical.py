"""One form for graphs: in-place calls untangled, no-operations gone, constants computed, equal nodes merged."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.networks import NETWORKS, example_of
from zeroq.errors import CaptureError
from zeroq.graph import Network, capture


class Calls(nn.Module):
    """A function of images and of one convolution."""

    def __init__(self, function: Callable[[Tensor, nn.Module], Tensor]) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 3, 3, padding=1)
        self.function = function

    def forward(self, images: Tensor) -> Tensor:
        return self.function(images, self.layer)


def captured(function: Callable[[Tensor, nn.Module], Tensor], size: int = 4) -> Network:
    """The network of a function, with its outputs compared on a batch of five."""
    module = Calls(function).eval()
    network = capture(module, torch.randn(2, 3, size, size))
    images = torch.randn(5, 3, size, size)
    with torch.inference_mode():
        torch.testing.assert_close(network.run(images), module(images.clone()), rtol=1e-5, atol=1e-6)
    return network


def operators(network: Network) -> list[str]:
    """The operators in order, without overloads."""
    return [str(node.target).split(".")[1] for node in network.graph.nodes if node.op == "call_function"]


def test_in_place_calls_become_pure_and_later_readers_see_the_change() -> None:
    def changes(images: Tensor, layer: nn.Module) -> Tensor:
        one = layer(images)
        before = one * 2
        functional.relu_(one)
        one += images
        return before + one

    assert operators(captured(changes)) == ["conv2d", "mul", "relu", "add", "add"]


@pytest.mark.parametrize("name", ["in_place_on_shared", "relu6", "residual"])
def test_no_mutable_operator_is_left(name: str) -> None:
    network = capture(NETWORKS[name](), example_of(name))
    schemas = [getattr(node.target, "_schema", None) for node in network.graph.nodes]
    assert not any(schema is not None and schema.is_mutable for schema in schemas)


def test_a_change_through_a_view_that_is_no_slice_is_refused_with_its_line() -> None:
    def changes(images: Tensor, layer: nn.Module) -> Tensor:
        one = layer(images)
        one.transpose(2, 3).mul_(2.0)
        return one

    with pytest.raises(CaptureError) as error:
        captured(changes)
    assert str(error.value).startswith(
        "The network changes a tensor in place (aten.mul_.Tensor) in a way that cannot be untangled at "
    )
    assert "test_canonical.py" in str(error.value)
    assert str(error.value).endswith(": write that line without the in-place operation.")


def test_a_change_of_a_reshaped_value_that_nothing_else_reads_is_fine() -> None:
    def changes(images: Tensor, layer: nn.Module) -> Tensor:
        one = layer(images)
        return functional.relu_(one.view(one.size(0), -1)).add_(1.0)

    assert operators(captured(changes)) == ["conv2d", "relu", "reshape", "add"]


def test_a_view_taken_before_the_change_is_found_by_comparing_outputs() -> None:
    def changes(images: Tensor, layer: nn.Module) -> Tensor:
        one = layer(images)
        view = one.flatten(1)
        one.mul_(2.0)
        return view

    with pytest.raises(CaptureError, match="or changes in place what a view shows; remove that for inference"):
        captured(changes)


def test_what_does_nothing_is_dropped() -> None:
    def idle(images: Tensor, layer: nn.Module) -> Tensor:
        value = functional.dropout(layer(images).contiguous(), 0.5, training=False).clone().detach()
        return functional.dropout2d(value[:, :, :, :].to(torch.float32), training=False)[0:, ...]

    assert operators(captured(idle)) == ["conv2d"]


def test_slices_that_take_a_part_stay() -> None:
    assert operators(captured(lambda images, layer: layer(images)[:, 1:])) == ["conv2d", "slice"]
    assert operators(captured(lambda images, layer: layer(images)[:, :, ::2])) == ["conv2d", "slice"]


def test_dropout_in_training_is_refused_as_random() -> None:
    with pytest.raises(CaptureError, match="its forward pass draws random numbers"):
        captured(lambda images, layer: functional.dropout(layer(images), 0.5, training=True))


def test_views_hold_for_any_batch() -> None:
    def views(images: Tensor, layer: nn.Module) -> Tensor:
        batch, channels, height, width = images.shape
        value = layer(images).view(batch, channels, height * width).unsqueeze(2).squeeze(2)
        return value.reshape(images.size(0), -1)

    network = captured(views)
    assert set(operators(network)) <= {"conv2d", "reshape"}
    assert all(node.args[1][0] == -1 for node in network.graph.nodes if "reshape" in str(node.target))


def test_equal_nodes_are_merged_and_random_ones_are_not() -> None:
    def sums(images: Tensor, layer: nn.Module) -> Tensor:
        one = layer(images)
        return (one + images) * (one + images) + functional.relu(one + images).mul(2)

    assert operators(captured(sums)).count("add") == 2
    assert operators(captured(lambda images, layer: layer(images) + layer(images))) == ["conv2d", "add"]


def test_a_single_output_stands_by_itself_and_several_keep_their_form() -> None:
    module = NETWORKS["shared_head"]()
    images = example_of("shared_head", 3)
    output = capture(module, images).run(images)
    assert isinstance(output, (list, tuple)) and len(output) == 2
    assert isinstance(captured(lambda images, layer: layer(images)).run(torch.randn(1, 3, 4, 4)), Tensor)


def test_parts_of_what_depends_on_stored_tensors_alone_are_computed_too() -> None:
    """Variance and mean of a filter; slices of one matrix."""

    class Parts(nn.Module):
        """Both on stored weights."""

        def __init__(self) -> None:
            super().__init__()
            self.convolution, self.joint = nn.Conv2d(3, 4, 1), nn.Parameter(torch.randn(8, 4))

        def forward(self, images: Tensor) -> Tensor:
            variance, mean = torch.var_mean(self.convolution.weight, (1, 2, 3), keepdim=True)
            standardised = functional.conv2d(images, (self.convolution.weight - mean) * torch.rsqrt(variance + 1e-4))
            one, other = self.joint.chunk(2)
            return functional.linear(functional.linear(standardised.mean((2, 3)), one), other)

    module = Parts().eval()
    images = torch.randn(2, 3, 4, 4)
    network = capture(module, images)
    assert len(network.layers) == 3 and network.layers[0].name == "convolution"
    assert not [node for node in network.graph.nodes if "var_mean" in str(node.target) or "chunk" in str(node.target)]
    assert torch.allclose(network.run(images), module(images), atol=1e-6)

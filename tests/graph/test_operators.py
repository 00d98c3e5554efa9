"""Each way to write an operator becomes the one that later stages know."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.graph.test_canonical import captured, operators
from zeroq.errors import CaptureError
from zeroq.graph import Network, capture

Function = Callable[[Tensor, nn.Module], Tensor]


def arguments(network: Network, name: str) -> list[tuple[object, ...]]:
    """Arguments behind the first of every node of an operator."""
    return [node.args[1:] for node in network.graph.nodes if str(node.target).startswith(f"aten.{name}.")]


@pytest.mark.parametrize(
    "rectify",
    [functional.relu, lambda x: x.clamp(min=0), lambda x: x.clamp_min(0), lambda x: functional.threshold(x, 0.0, 0.0)],
)
def test_every_relu_is_relu(rectify: Callable[[Tensor], Tensor]) -> None:
    assert operators(captured(lambda images, layer: rectify(layer(images)))) == ["conv2d", "relu"]


@pytest.mark.parametrize(
    ("clip", "bounds"),
    [
        (functional.relu6, (0.0, 6.0)),
        (functional.hardtanh, (-1.0, 1.0)),
        (lambda x: functional.hardtanh(x, -2, 3), (-2, 3)),
        (lambda x: x.clamp(0, 1), (0.0, 1.0)),
    ],
)
def test_every_clamp_is_hardtanh_with_both_bounds(
    clip: Callable[[Tensor], Tensor], bounds: tuple[float, float]
) -> None:
    network = captured(lambda images, layer: clip(layer(images)))
    assert operators(network) == ["conv2d", "hardtanh"]
    assert arguments(network, "hardtanh") == [bounds]


def test_a_clamp_on_one_side_that_is_not_zero_stays() -> None:
    assert operators(captured(lambda images, layer: layer(images).clamp(max=1.0))) == ["conv2d", "clamp"]
    assert operators(captured(lambda images, layer: functional.threshold(layer(images), 0.1, 20.0))) == [
        "conv2d",
        "threshold",
    ]


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda i, f: functional.relu(functional.relu(f(i))), ["conv2d", "relu"]),
        (lambda i, f: functional.relu(functional.relu6(f(i))), ["conv2d", "hardtanh"]),
        (lambda i, f: functional.relu6(functional.relu(f(i))), ["conv2d", "hardtanh"]),
        (lambda i, f: functional.relu(functional.hardtanh(f(i))), ["conv2d", "hardtanh", "relu"]),
        (lambda i, f: functional.relu(functional.max_pool2d(f(i), 2)), ["conv2d", "relu", "max_pool2d"]),
        (lambda i, f: functional.relu(f(i)[:, 1:].flatten(1)), ["conv2d", "relu", "slice", "reshape"]),
        (lambda i, f: functional.relu(torch.cat([f(i), i], 1)), ["conv2d", "relu", "relu", "cat"]),
        (lambda i, f: functional.relu6(torch.cat([f(i), f(i)], 1)), ["conv2d", "hardtanh", "cat"]),
        (lambda i, f: functional.relu(functional.avg_pool2d(f(i), 2)), ["conv2d", "avg_pool2d", "relu"]),
    ],
)
def test_rectifiers_go_to_the_layers_that_can_take_them_in(function: Function, expected: list[str]) -> None:
    assert operators(captured(function)) == expected


def test_a_rectifier_stays_behind_a_value_that_others_read() -> None:
    def both(images: Tensor, layer: nn.Module) -> Tensor:
        pooled = functional.max_pool2d(layer(images), 2)
        return functional.relu(pooled) + pooled

    assert operators(captured(both)) == ["conv2d", "max_pool2d", "relu", "add"]


@pytest.mark.parametrize("axes", [(2, 3), (-1, -2), (3, 2)])
@pytest.mark.parametrize("keep", [True, False])
def test_the_spatial_mean_is_global_pooling(axes: tuple[int, ...], keep: bool) -> None:
    network = captured(lambda images, layer: layer(images).mean(axes, keepdim=keep))
    assert operators(network) == ["conv2d", "adaptive_avg_pool2d", *([] if keep else ["reshape"])]


def test_other_means_stay() -> None:
    assert operators(captured(lambda images, layer: layer(images).mean(1))) == ["conv2d", "mean"]


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda x: functional.adaptive_avg_pool2d(x, 1), "adaptive_avg_pool2d"),
        (lambda x: functional.adaptive_avg_pool2d(x, 4), None),
        (lambda x: functional.adaptive_avg_pool2d(x, (None, 2)), "avg_pool2d"),
        (lambda x: functional.adaptive_avg_pool2d(x, 3), "adaptive_avg_pool2d"),
        (lambda x: functional.adaptive_avg_pool1d(x.flatten(2), 4), "avg_pool1d"),
        (lambda x: functional.adaptive_max_pool2d(x, 2), "max_pool2d"),
        (lambda x: functional.adaptive_max_pool1d(x.flatten(2), 1), "max_pool1d"),
        (lambda x: functional.adaptive_avg_pool2d(x.mean((2, 3), keepdim=True), 1), "adaptive_avg_pool2d"),
    ],
)
def test_adaptive_pooling_with_equal_windows_is_pooling(
    function: Callable[[Tensor], Tensor], expected: str | None
) -> None:
    found = operators(captured(lambda images, layer: function(layer(images))))
    assert [name for name in found if "pool" in name] == ([] if expected is None else [expected])


def test_adaptive_max_pooling_with_windows_of_several_sizes_is_refused() -> None:
    with pytest.raises(CaptureError) as error:
        captured(lambda images, layer: functional.adaptive_max_pool2d(layer(images), 3))
    assert str(error.value) == (
        "Adaptive max-pooling from [4, 4] to [3, 3] has windows of several sizes, which ONNX does not know: "
        "choose sizes that divide the input's."
    )


def test_where_adaptive_max_pooling_found_its_values_is_refused() -> None:
    def places(images: Tensor, layer: nn.Module) -> Tensor:
        values, where = functional.adaptive_max_pool2d(layer(images), 2, return_indices=True)
        return values + where

    with pytest.raises(CaptureError, match="reads where adaptive max-pooling found its values"):
        captured(places)


@pytest.mark.parametrize("kernel", [1, 2, 3, 4, (2, 3), (3, 4)])
@pytest.mark.parametrize("dilation", [1, 2, 3])
def test_padding_by_name_becomes_numbers(kernel: int | tuple[int, int], dilation: int) -> None:
    layer = nn.Conv2d(3, 2, kernel, padding="same", dilation=dilation)
    with torch.no_grad():
        weight, bias = layer.weight.clone(), layer.bias.clone()

    def same(images: Tensor, _: nn.Module) -> Tensor:
        return functional.conv2d(images, weight, bias, padding="same", dilation=dilation)

    network = captured(same, size=7)
    assert set(operators(network)) <= {"pad", "conv2d"}
    assert all(isinstance(size, int) for given in arguments(network, "conv2d") for size in given[3])


def test_no_padding_by_name_and_one_axis() -> None:
    weight = torch.randn(2, 3, 4)
    assert operators(captured(lambda i, f: functional.conv1d(f(i).flatten(2), weight, padding="valid"))) == [
        "conv2d", "reshape", "conv1d"
    ]  # fmt: skip
    assert operators(captured(lambda i, f: functional.conv1d(f(i).flatten(2), weight, padding="same"))) == [
        "conv2d", "reshape", "pad", "conv1d"
    ]  # fmt: skip


@pytest.mark.parametrize(
    "split",
    [
        lambda x: x.chunk(2, 1),
        lambda x: torch.split(x, 2, 1),
        lambda x: torch.split(x, [1, 2], 1),
        lambda x: x.split([1, 2], dim=-3),
    ],
)
def test_parts_of_a_split_are_slices(split: Callable[[Tensor], tuple[Tensor, ...]]) -> None:
    def parts(images: Tensor, layer: nn.Module) -> Tensor:
        first, second = split(layer(images))
        return first.sum(1) - 2 * second.sum(1)

    assert operators(captured(parts)).count("slice") == 2
    assert "getitem" not in operators(captured(parts))


class Products(nn.Module):
    """Ways to multiply by a stored matrix."""

    def __init__(self, function: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.matrix, self.vector = nn.Parameter(torch.randn(4, 5)), nn.Parameter(torch.randn(1, 5))
        self.function = function

    def forward(self, rows: Tensor) -> Tensor:
        return self.function(rows, self.matrix, self.vector)


@pytest.mark.parametrize(
    ("function", "bias"),
    [
        (lambda x, w, b: x @ w, None),
        (lambda x, w, b: torch.mm(x, w), None),
        (lambda x, w, b: torch.addmm(b, x, w), "vector"),
        (lambda x, w, b: torch.addmm(b[0], x, w), "vector"),
    ],
)
def test_products_with_a_stored_matrix_are_linear_layers(
    function: Callable[[Tensor, Tensor, Tensor], Tensor], bias: str | None
) -> None:
    module = Products(function)
    network = capture(module, torch.randn(2, 4))
    rows = torch.randn(3, 4)
    torch.testing.assert_close(network.run(rows), module(rows))
    (layer,) = network.layers
    assert (layer.name, layer.operator, layer.shape, layer.bias) == ("matrix", "linear", (5, 4), bias)
    assert network.not_quantized == ()


def test_a_matrix_that_something_else_reads_keeps_its_first_form_as_well() -> None:
    module = Products(lambda x, w, b: (x @ w) * w.sum(0) + torch.addmm(b, x, w, beta=2))
    network = capture(module, torch.randn(2, 4))
    rows = torch.randn(3, 4)
    torch.testing.assert_close(network.run(rows), module(rows))
    assert [layer.name for layer in network.layers] == ["matrix_turned"]
    assert {name for name, _ in network.not_quantized} == {"matrix", "matrix_sum_1", "vector"}


class Bag(nn.Module):
    """Entries for each image, looked up in a table."""

    def __init__(self, **settings: object) -> None:
        super().__init__()
        self.bag, self.head = nn.EmbeddingBag(6, 4, **settings), nn.Linear(4, 3)  # type: ignore[arg-type]

    def forward(self, entries: Tensor) -> Tensor:
        return self.head(self.bag(entries))


@pytest.mark.parametrize("mode", ["mean", "sum", "max"])
def test_bags_are_lookups_and_what_becomes_of_their_entries(mode: str) -> None:
    module = Bag(mode=mode)
    network = capture(module, torch.randint(6, (2, 5)))
    names = [str(node.target).split(".")[1] for node in network.graph.nodes if node.op == "call_function"]
    assert names == ["embedding", "amax" if mode == "max" else mode, "linear"]
    entries = torch.randint(6, (3, 5))
    with torch.inference_mode():
        torch.testing.assert_close(network.run(entries), module(entries))


def test_other_bags_are_refused() -> None:
    with pytest.raises(CaptureError, match=r"bags of embeddings at .*self.bag\(entries\).*: write an Embedding and"):
        capture(Bag(padding_idx=0), torch.randint(6, (2, 5)))


def test_a_group_for_each_image_is_refused() -> None:
    class OwnFilters(nn.Module):
        """Filters of its own for each image, as StyleGAN modulates them."""

        def __init__(self) -> None:
            super().__init__()
            self.make = nn.Linear(3, 4 * 3)

        def forward(self, images: Tensor) -> Tensor:
            count, _, height, width = images.shape
            weight = self.make(images.mean((2, 3))).view(count * 4, 3, 1, 1)
            return functional.conv2d(images.view(1, -1, height, width), weight, groups=count).view(count, 4, height, -1)

    with pytest.raises(CaptureError, match=r"weights of its own at .*groups=count.*: write it as a product of these"):
        capture(OwnFilters(), torch.randn(2, 3, 4, 4))


class Clamped(nn.Module):
    """Cuts off at stored bounds."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1)
        self.low, self.high = (nn.Parameter(torch.randn(shape).abs() * side) for side in (-0.1, 1))

    def forward(self, images: Tensor) -> Tensor:
        return self.last(self.first(images).clamp(self.low, self.high))


@pytest.mark.parametrize("shape", [(), (1,), (1, 4, 1, 1), (5, 5), (4, 5, 5)], ids=str)
def test_a_clamp_between_other_tensors_than_two_numbers_a_channel_is_no_limit(shape: tuple[int, ...]) -> None:
    module = Clamped(*shape).eval()
    images = torch.randn(2, 3, 5, 5)
    network = capture(module, images)
    assert operators(network) == ["conv2d", "maximum", "minimum", "conv2d"]
    assert [name for name, _ in network.not_quantized] == ["low", "high"]
    torch.testing.assert_close(network.run(images), module(images))


def test_a_clamp_between_two_numbers_a_channel_is_a_limit_under_its_own_name() -> None:
    network = capture(Clamped(4, 1, 1).eval(), torch.randn(2, 3, 5, 5))
    assert operators(network) == ["conv2d", "clamp", "conv2d"]
    assert dict(network.not_quantized)["low"] == "clamp with a stored tensor has no integer kernel"


def test_a_clamp_at_the_number_of_images_is_captured() -> None:
    assert "clamp" in operators(captured(lambda images, layer: layer(images).clamp(0, images.shape[0])))

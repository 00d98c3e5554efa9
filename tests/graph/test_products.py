"""Multiply-accumulates of products of two computed values, against the shapes of their operands."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from zeroq.graph import capture

IMAGES = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))


class Applied(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, images: Tensor) -> Tensor:
        return self.function(images)


def kernels(images: Tensor) -> Tensor:
    """Convolution by what is computed of the images, the same for all of them."""
    return functional.conv2d(images, (images > 9).float().amax((0, 2, 3))[None, :, None, None].expand(6, 3, 2, 2))


@pytest.mark.parametrize(
    ("function", "count"),
    [
        (lambda x: x @ x.transpose(2, 3), 3 * 4 * 4 * 5),
        (lambda x: torch.bmm(x.flatten(2), x.flatten(2).transpose(1, 2)), 3 * 3 * 20),
        (lambda x: torch.einsum("nchw,ndhw->ncd", x, x), 3 * 3 * 20),
        (kernels, 6 * 3 * 4 * 3 * 2 * 2),
        (lambda x: x * x + x.sum((1, 2, 3), keepdim=True), 0),
        (lambda x: torch.einsum("nchw->nhwc", x), 0),
    ],
)
def test_a_product_of_two_values_counts(function: Callable[[Tensor], Tensor], count: int) -> None:
    assert sum(capture(Applied(function), IMAGES).products.values()) == count


def test_layers_are_no_products() -> None:
    network = capture(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten(), nn.Linear(80, 2)), IMAGES)
    assert network.products == {} and len(network.layers) == 2

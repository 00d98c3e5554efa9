"""Streamed second moments against patches written out one by one."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from zeroq.graph import Layer, capture
from zeroq.rounding import MomentSum
from zeroq.rounding.filters import to_filters


def patches_of(module: nn.Module, inputs: Tensor) -> Tensor:
    """Every input that a filter meets, [groups, rows, columns], position by position."""
    if isinstance(module, nn.Linear):
        return inputs.reshape(1, -1, inputs.shape[-1])
    assert isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d))
    padding = module.padding
    padded = functional.pad(inputs, [side for amount in reversed(padding) for side in (int(amount), int(amount))])
    sizes = module(inputs).shape[2:]
    groups, rows = module.groups, []
    for position in itertools.product(*map(range, sizes)):
        window = padded
        for axis, at in enumerate(position):
            start, length = at * module.stride[axis], module.kernel_size[axis]
            places = [start + index * module.dilation[axis] for index in range(length)]
            window = window.index_select(axis + 2, torch.tensor(places))
        rows.append(torch.stack([part.movedim(1, -1).flatten(1) for part in window.chunk(groups, dim=1)]))
    return torch.cat(rows, dim=1)


def summed(module: nn.Module, inputs: Tensor, *, batch: int = 2, rows_per_image: int = 10**6) -> tuple[Layer, Tensor]:
    """The layer of a one-layer network and its Hessian."""
    network = capture(module, inputs[:2])
    (layer,) = network.layers
    total = MomentSum(layer, rows_per_image)
    for chunk in inputs.split(batch):
        total.add(network.node(layer.sites[0]), chunk)
    return layer, total.moments().hessian(centred=False)


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (nn.Conv2d(3, 4, 3, padding=1), (3, 6, 5)),
        (nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(0, 1), dilation=(1, 2), groups=2), (4, 7, 6)),
        (nn.Conv2d(5, 5, 3, groups=5, stride=2, padding=1), (5, 6, 6)),
        (nn.Conv2d(3, 6, 3, groups=3), (3, 5, 5)),
        (nn.Conv2d(600, 2, 1), (600, 2, 2)),
        (nn.Conv1d(4, 2, 3, padding=2), (4, 9)),
        (nn.Conv3d(2, 3, 2, stride=2), (2, 4, 4, 5)),
        (nn.Linear(7, 3), (7,)),
        (nn.Linear(7, 3), (4, 7)),
    ],
)
def test_equals_patches_written_out(module: nn.Module, shape: tuple[int, ...]) -> None:
    inputs = torch.randn(5, *shape, generator=torch.Generator().manual_seed(0))
    layer, hessian = summed(module, inputs)
    rows = patches_of(module, inputs).double()
    torch.testing.assert_close(hessian.double(), 2 * rows.transpose(1, 2) @ rows / rows.shape[1], rtol=1e-5, atol=1e-5)


def test_columns_stand_as_in_the_filters() -> None:
    module = nn.Conv2d(4, 6, (3, 2), groups=2, bias=False)
    inputs = torch.randn(4, 4, 5, 5, generator=torch.Generator().manual_seed(0))
    layer, hessian = summed(module, inputs)
    filters = to_filters(module.weight.detach(), 2)
    power = torch.einsum("gfc,gcd,gfd->gf", filters, hessian, filters).flatten() / 2
    torch.testing.assert_close(power, module(inputs).detach().square().mean((0, 2, 3)), rtol=1e-4, atol=1e-6)


class Head(nn.Module):
    """One convolution at two resolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).mean((2, 3)) + self.conv(functional.avg_pool2d(x, 2)).mean((2, 3))


def test_sites_weigh_by_their_positions() -> None:
    inputs = torch.randn(3, 2, 10, 10, generator=torch.Generator().manual_seed(0))
    head = Head()
    network = capture(head, inputs)
    (layer,) = network.layers
    total = MomentSum(layer)
    halves = functional.avg_pool2d(inputs, 2)
    for site, value in zip(layer.sites, (inputs, halves), strict=True):
        total.add(network.node(site), value)
    rows = torch.cat([patches_of(head.conv, inputs), patches_of(head.conv, halves)], dim=1)
    found = total.moments().hessian(centred=False)
    torch.testing.assert_close(found, 2 * rows.transpose(1, 2) @ rows / rows.shape[1], rtol=1e-4, atol=1e-5)


def test_a_sample_of_positions_is_the_same_in_any_split_and_near_the_whole() -> None:
    module, generator = nn.Conv2d(3, 4, 3), torch.Generator().manual_seed(0)
    inputs = functional.avg_pool2d(torch.randn(12, 3, 45, 45, generator=generator), 3)
    _, one_by_one = summed(module, inputs, batch=1, rows_per_image=64)
    _, together = summed(module, inputs, batch=12, rows_per_image=64)
    _, whole = summed(module, inputs)
    torch.testing.assert_close(one_by_one, together, rtol=1e-5, atol=1e-6)
    assert 0 < (together - whole).norm() < 0.2 * whole.norm()


def test_nothing_taken_in_is_zero() -> None:
    (layer,) = capture(nn.Linear(3, 2), torch.randn(2, 3)).layers
    assert torch.equal(MomentSum(layer).moments().hessian(centred=False), torch.zeros(1, 3, 3))


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(0, 1), groups=2), (4, 7, 6)),
        (nn.Conv2d(5, 5, 3, groups=5, padding=1), (5, 6, 6)),
        (nn.Linear(7, 3), (4, 7)),
    ],
)
def test_covariances_and_means_are_those_of_patches_and_outputs(module: nn.Module, shape: tuple[int, ...]) -> None:
    inputs = torch.randn(7, *shape, generator=torch.Generator().manual_seed(0)) + 5
    outputs = module(inputs).detach() ** 2
    network = capture(module, inputs[:2])
    (layer,) = network.layers
    total = MomentSum(layer)
    for chunk, wanted in zip(inputs.split(2), outputs.split(2), strict=True):
        total.add(network.node(layer.sites[0]), chunk, wanted)
    rows = patches_of(module, inputs).double()
    if layer.operator != "linear":  # whose patches come position by position, each with all images
        outputs = outputs.movedim(1, -1).flatten(1, -2).transpose(0, 1)
    flat = outputs.double().reshape(rows.shape[1], layer.groups, -1).transpose(0, 1)
    found = total.moments()
    a, y = rows - rows.mean(1, keepdim=True), flat - flat.mean(1, keepdim=True)
    for one, other in (
        (found.input_mean, rows.mean(1)),
        (found.output_mean, flat.mean(1)),
        (found.covariance, a.transpose(1, 2) @ a / a.shape[1]),
        (found.cross, y.transpose(1, 2) @ a / a.shape[1]),
        (found.hessian(centred=True), 2 * a.transpose(1, 2) @ a / a.shape[1]),
    ):
        torch.testing.assert_close(one.double(), other, rtol=1e-3, atol=1e-4)


def test_every_third_image_is_kept_apart_in_any_split() -> None:
    inputs = torch.randn(9, 3, generator=torch.Generator().manual_seed(0))
    network = capture(nn.Linear(3, 2), inputs[:2])
    (layer,) = network.layers
    for batch in (1, 2, 9):
        total = MomentSum(layer)
        for chunk in inputs.split(batch):
            total.add(network.node(layer.sites[0]), chunk, chunk[:, :2])
        fitted, checked = total.halves()
        torch.testing.assert_close(checked.input_mean[0], inputs[2::3].mean(0))
        torch.testing.assert_close(fitted.output_mean[0], inputs[[0, 1, 3, 4, 6, 7], :2].mean(0))


def test_a_constant_input_has_no_variance_whatever_its_size() -> None:
    inputs = torch.full((6, 2, 4, 4), 1e4 / 3)
    module = nn.Conv2d(2, 2, 3, groups=2)
    network = capture(module, inputs[:2])
    total = MomentSum(network.layers[0])
    total.add(network.node(network.layers[0].sites[0]), inputs)
    assert total.moments().covariance.abs().max() < 1e-6


def test_without_outputs_all_images_are_summed_together() -> None:
    inputs = torch.randn(9, 3, generator=torch.Generator().manual_seed(0))
    network = capture(nn.Linear(3, 2), inputs[:2])
    together, apart = (MomentSum(network.layers[0], outputs=outputs) for outputs in (False, True))
    for total in (together, apart):
        total.add(network.node(network.layers[0].sites[0]), inputs)
    assert together.checked is None
    torch.testing.assert_close(together.moments().covariance, apart.moments().covariance)


def test_few_images_are_checked_on_themselves() -> None:
    network = capture(nn.Linear(3, 2), torch.zeros(2, 3))
    total = MomentSum(network.layers[0])
    total.add(network.node(network.layers[0].sites[0]), torch.randn(2, 3), torch.randn(2, 2))
    fitted, checked = total.halves()
    assert torch.equal(fitted.cross, checked.cross)

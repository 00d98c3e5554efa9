"""Streamed second moments against patches written out one by one."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from zeroq.graph import Layer, capture
from zeroq.rounding import HessianSum
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
    total = HessianSum(layer, rows_per_image)
    for chunk in inputs.split(batch):
        total.add(network.node(layer.sites[0]), chunk)
    return layer, total.hessian()


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
    total = HessianSum(layer)
    halves = functional.avg_pool2d(inputs, 2)
    for site, value in zip(layer.sites, (inputs, halves), strict=True):
        total.add(network.node(site), value)
    rows = torch.cat([patches_of(head.conv, inputs), patches_of(head.conv, halves)], dim=1)
    torch.testing.assert_close(total.hessian(), 2 * rows.transpose(1, 2) @ rows / rows.shape[1], rtol=1e-4, atol=1e-5)


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
    assert torch.equal(HessianSum(layer).hessian(), torch.zeros(1, 3, 3))

"""What depends on stored tensors alone is computed when the network is captured, changes in place among it."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from zeroq.graph import Network, capture
from zeroq.graph.constants import parameter_name


def operators(network: Network) -> list[str]:
    return [str(node.target).split(".")[1] for node in network.graph.nodes if node.op == "call_function"]


def test_what_depends_on_stored_tensors_alone_is_computed_once() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 1), nn.Linear(2, 5))
    nn.utils.parametrizations.weight_norm(module[0])
    nn.utils.parametrizations.spectral_norm(module[2])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        nn.utils.weight_norm(module[3])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*was assigned during export")
        network = capture(module.eval(), torch.randn(2, 3, 4, 4))
    assert [layer.name for layer in network.layers] == ["0", "2", "3"]
    assert set(network.tensors) == {f"{name}.{kind}" for name in ("0", "2", "3") for kind in ("weight", "bias")}
    torch.testing.assert_close(network.tensors["2.weight"], module[2].weight.detach())


@pytest.mark.parametrize(
    ("stored", "parameter"),
    [
        ("a.parametrizations.weight.original1", "a.weight"),
        ("parametrizations.weight.original", "weight"),
        ("a.weight_g", "a.weight"),
        ("a.weight_orig", "a.weight"),
        ("a.gain_g", "a.gain_g"),
        ("position", "position"),
    ],
)
def test_computed_tensors_have_the_names_of_the_users_parameters(stored: str, parameter: str) -> None:
    assert parameter_name(stored) == parameter


def test_a_computed_tensor_does_not_take_the_name_of_one_that_stays() -> None:
    class Tied(nn.Module):
        """One matrix read as it is and turned."""

        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(3, 3))

        def forward(self, rows: Tensor) -> Tensor:
            return functional.linear(functional.linear(rows, self.weight), self.weight.t())

    network = capture(Tied(), torch.randn(2, 3))
    assert set(network.tensors) == {"weight", "weight_t"}


class Windows(nn.Module):
    """A mask filled window by window, read before and after a part of it is filled, as Swin's shifted windows do."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, images: Tensor) -> Tensor:
        mask = images.new_zeros((4, 4))
        early = self.layer(images) + mask
        mask[:2, :2] = 1
        middle = early * mask
        mask[2:, 1:].fill_(2)
        mask += torch.arange(4)
        apart = mask.view(16).unsqueeze(0) - mask.view(16).unsqueeze(1)
        hidden = apart.masked_fill(apart != 0, -100.0)
        return middle + hidden.mean() * mask


def test_masks_that_are_filled_in_place_are_constants_and_each_reader_sees_its_own() -> None:
    module = Windows().eval()
    network = capture(module, torch.randn(2, 3, 4, 4))
    images = torch.randn(3, 3, 4, 4)
    torch.testing.assert_close(network.run(images), module(images))
    assert operators(network) == ["linear", "add", "mul", "add"]


def test_a_constant_that_an_input_changes_is_none() -> None:
    class Changed(nn.Module):
        """Writes what it finds in all pictures into a table of zeros."""

        def forward(self, images: Tensor) -> Tensor:
            table = torch.zeros(3, 4, 4)
            table += (images < 9).all(0)
            return images + table

    module = Changed().eval()
    images = torch.randn(2, 3, 4, 4)
    torch.testing.assert_close(capture(module, images).run(images), module(images))

    class Part(nn.Module):
        """Writes it into a part."""

        def forward(self, images: Tensor) -> Tensor:
            table = torch.zeros(3, 4, 4)
            table[:, 1:] += (images[:, :, 1:] < 9).all(0)
            return images + table

    part = Part().eval()
    torch.testing.assert_close(capture(part, images).run(images), part(images))


def test_weights_of_the_module_are_not_changed() -> None:
    class Doubled(nn.Module):
        """A buffer of which a part is doubled in place, in a copy."""

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("table", torch.ones(3, 4, 4))

        def forward(self, images: Tensor) -> Tensor:
            doubled = self.table.clone()
            doubled[:1] *= 2
            return images * doubled

    module = Doubled().eval()
    network = capture(module, torch.randn(2, 3, 4, 4))
    assert module.table.unique().tolist() == [1]
    assert [float(each.max()) for each in network.tensors.values()] == [2]

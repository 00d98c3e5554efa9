"""A module stays as it is, whatever it keeps beside its weights."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from zeroq.errors import ModelError
from zeroq.models import from_module
from zeroq.models.copying import copied

IMAGES = torch.randn(2, 3, 8, 8)


class Keeping(nn.Module):
    """Keeps what it computed last, alone and in lists, as for a loss on features."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 2)
        self.kept: dict[str, Any] = {}

    def forward(self, images: Tensor) -> Tensor:
        self.feature = self.layer(images)
        self.kept = {"features": [self.feature, (self.feature.relu(),)]}
        return self.head(self.feature.mean(dim=(2, 3)))


def trained(module: nn.Module) -> nn.Module:
    """After a step of training, which leaves tensors with gradients behind."""
    module.train()(IMAGES).sum().backward()
    return module


def hooked() -> nn.Module:
    """Weights that hooks compute, as PyTorch wrote normalised ones before there were parametrizations."""
    return nn.Sequential(
        nn.utils.weight_norm(nn.Conv2d(3, 4, 3)), nn.Flatten(), nn.utils.spectral_norm(nn.Linear(144, 2))
    )


def locked() -> nn.Module:
    module = Keeping()
    module.lock, module.kept = threading.Lock(), {"lock": threading.Lock()}  # type: ignore[assignment]
    return module


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize("made", [lambda: trained(Keeping()), lambda: trained(hooked()), locked])
def test_a_module_goes_on_as_it_was(made: Any) -> None:
    module = made()
    training, state = module.training, {name: value.clone() for name, value in module.state_dict().items()}
    loaded = from_module(module.double(), IMAGES.double())
    assert not loaded.module.training and loaded.module is not module
    assert module.training == training and all(value.requires_grad for value in module.parameters())
    assert all(value.dtype == torch.float64 for value in module.parameters())
    assert all(torch.equal(value, module.state_dict()[name].float()) for name, value in state.items())
    memory = {value.data_ptr() for value in module.parameters()}
    assert memory.isdisjoint(value.data_ptr() for value in loaded.module.parameters())
    module(IMAGES.double()).sum().backward()


class Stubborn(nn.Module):
    def __deepcopy__(self, memo: dict[int, Any]) -> Stubborn:
        raise TypeError("there is one of me")


def test_what_cannot_be_copied_is_refused() -> None:
    with pytest.raises(ModelError, match=r"^net cannot be copied \(TypeError: there is one of me\), and it is not"):
        copied(Stubborn(), "net")

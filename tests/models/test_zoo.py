"""Networks of installed packages; torchvision and timm are stand-ins of the same surface."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from zeroq.errors import ModelError
from zeroq.models import load_model, missing_zoos, model_names
from zeroq.models.weights import weights_sha256
from zeroq.preprocessing import Preprocessing

LISTED = "MODEL is digits, ZOO:NAME, FILE.py:FUNCTION or FILE.pt2, and `zeroq models` lists the names."


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x).mean((2, 3))


def refusal(model: str, **options: Any) -> str:
    with pytest.raises(ModelError) as caught:
        load_model(model, **options)
    return str(caught.value)


def stand_in(monkeypatch: pytest.MonkeyPatch, name: str, **attributes: Any) -> None:
    module = types.ModuleType(name)
    vars(module).update(attributes)
    monkeypatch.setitem(sys.modules, name, module)


@pytest.fixture
def small_file(tmp_path: Path) -> Path:
    torch.save(Small().state_dict(), tmp_path / "small.pt")
    return tmp_path / "small.pt"


def test_pytorchcv_with_weights_from_a_file(tmp_path: Path) -> None:
    provider = pytest.importorskip("pytorchcv.model_provider")
    source = provider.get_model("resnet20_cifar10")
    torch.save(source.state_dict(), tmp_path / "weights.pt")
    loaded = load_model("pytorchcv:resnet20_cifar10", weights=tmp_path / "weights.pt")
    assert (loaded.name, loaded.input_shape, loaded.warnings) == ("resnet20_cifar10", (3, 32, 32), ())
    assert loaded.preprocessing.mean == (0.4914, 0.4822, 0.4465) and loaded.preprocessing.resize is None
    assert loaded.weights_sha256 == weights_sha256(source)


def test_pytorchcv_scales_pictures_as_its_networks_were_tested(tmp_path: Path) -> None:
    provider = pytest.importorskip("pytorchcv.model_provider")
    torch.save(provider.get_model("mobilenetv2_wd4").state_dict(), tmp_path / "weights.pt")
    loaded = load_model("pytorchcv:mobilenetv2_wd4", weights=tmp_path / "weights.pt")
    assert (loaded.preprocessing.size, loaded.preprocessing.resize) == ((224, 224), 256)


def test_a_failed_download_says_to_give_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    provider = pytest.importorskip("pytorchcv.model_provider")

    def offline(name: str, *, pretrained: bool) -> nn.Module:
        assert pretrained
        raise ConnectionError("Failed to resolve 'example'")

    monkeypatch.setattr(provider, "get_model", offline)
    assert refusal("pytorchcv:resnet18") == (
        "The weights of pytorchcv:resnet18 could not be loaded (ConnectionError: Failed to resolve 'example'): check "
        "the connection to the network, or give a file of them with --weights."
    )


def test_a_zoo_that_cannot_build(monkeypatch: pytest.MonkeyPatch, small_file: Path) -> None:
    stand_in(monkeypatch, "timm", list_models=lambda pretrained=False: ["small"], create_model=None)
    assert refusal("timm:small", weights=small_file) == (
        "timm cannot build small (TypeError: 'NoneType' object is not callable): choose another, "
        "`zeroq models` lists them."
    )


@pytest.mark.parametrize("zoo", ["pytorchcv", "torchvision", "timm"])
def test_a_missing_package_is_named_with_its_extra(zoo: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [zoo, *(name for name in sys.modules if name.startswith(f"{zoo}."))]:
        monkeypatch.setitem(sys.modules, name, None)
    assert refusal(f"{zoo}:resnet18") == (
        f"{zoo} is not installed, and a MODEL that begins with {zoo}: needs it: pip install 'zeroq-quant[{zoo}]'."
    )
    assert zoo in missing_zoos()
    assert not any(name.startswith(zoo) for name in model_names())


def test_a_package_that_cannot_be_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "timm.py").write_text("raise RuntimeError('built for another torch')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "timm", raising=False)
    assert refusal("timm:resnet18") == (
        "timm is installed but cannot be imported (RuntimeError: built for another torch): install a version that fits "
        "the rest, pip install 'zeroq-quant[timm]'."
    )


def test_torchvision_gives_what_its_transforms_say(monkeypatch: pytest.MonkeyPatch, small_file: Path) -> None:
    transforms = SimpleNamespace(
        crop_size=[8], resize_size=[10], mean=[0.5] * 3, std=[0.2] * 3, interpolation=SimpleNamespace(value="bicubic")
    )
    asked = []

    def get_model(name: str, **options: Any) -> nn.Module:
        asked.append(options)
        return Small()

    stand_in(
        monkeypatch,
        "torchvision.models",
        segmentation=None,
        list_models=lambda module: [] if module is None else ["small"],
        get_model_weights=lambda name: SimpleNamespace(DEFAULT=SimpleNamespace(transforms=lambda: transforms)),
        get_model_builder=lambda name: lambda *, weights=None, weights_backbone=None: None,
        get_model=get_model,
    )
    loaded = load_model("torchvision:small", weights=small_file)
    assert loaded.preprocessing == Preprocessing((8, 8), (0.5,) * 3, (0.2,) * 3, "RGB", 10, "bicubic")
    assert asked == [{"weights": None, "weights_backbone": None}]


@pytest.mark.parametrize(("crop_mode", "resize"), [("center", 9), ("squash", "stretch")])
def test_timm_gives_what_its_configuration_says(
    crop_mode: str, resize: int | str, monkeypatch: pytest.MonkeyPatch, small_file: Path
) -> None:
    config = {"input_size": (3, 8, 8), "mean": (0.5,) * 3, "std": (0.2,) * 3}
    config |= {"crop_pct": 0.875, "crop_mode": crop_mode, "interpolation": "bicubic"}
    asked = []

    def create_model(name: str, *, pretrained: bool) -> nn.Module:
        asked.append((name, pretrained))
        return Small()

    stand_in(
        monkeypatch,
        "timm",
        list_models=lambda pretrained=False: ["small.tag" if pretrained else "small"],
        create_model=create_model,
    )
    stand_in(monkeypatch, "timm.data", resolve_model_data_config=lambda module: config)
    loaded = load_model("timm:small.tag", weights=small_file)
    assert loaded.name == "small.tag"
    assert loaded.preprocessing == Preprocessing((8, 8), (0.5,) * 3, (0.2,) * 3, "RGB", resize, "bicubic")
    load_model("timm:small")
    assert asked == [("small.tag", False), ("small", True)]


def test_an_unknown_name_of_a_zoo() -> None:
    pytest.importorskip("pytorchcv.model_provider")
    assert refusal("pytorchcv:resnet19") == (
        "There is no model 'pytorchcv:resnet19', near it: pytorchcv:resnet18, pytorchcv:resnet16, pytorchcv:resnet14; "
        + LISTED
    )


def test_a_name_without_its_zoo() -> None:
    pytest.importorskip("pytorchcv.model_provider")
    assert "near it: pytorchcv:mobilenetv2_w1, " in refusal("mobilenetv2_w1")

"""pytorchcv:NAME, torchvision:NAME, timm:NAME: networks of packages that the user may have installed."""

from __future__ import annotations

import importlib
import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from zeroq.errors import ModelError, ZeroqError
from zeroq.models.loaded import FoundModel
from zeroq.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from zeroq.reason import reason

# What pytorchcv trained its networks on small pictures with, SVHN included (its datasets/cifar10_cls_dataset.py).
SMALL_PICTURES = ("_cifar10", "_cifar100", "_svhn")
SMALL_MEAN, SMALL_STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
PYTORCHCV_CROP = 0.875  # share of the shorter side that most of its ImageNet networks were tested on
PYTORCHCV_CROP_COLUMN = 7  # of its table of weights


@dataclass(frozen=True)
class Zoo:
    """A package of networks: what it holds, and how one is built, with the package's own weights or without."""

    names: Callable[[], set[str]]
    build: Callable[[str, bool], FoundModel]


def find_in_zoo(zoo: str, name: str, *, pretrained: bool) -> FoundModel:
    """A network of the zoo; pretrained: with the zoo's own weights, downloaded where needed. Raises ModelError."""
    try:
        return ZOOS[zoo].build(name, pretrained)
    except ZeroqError:
        raise
    except Exception as error:  # a download may fail in as many ways as there are
        if pretrained:
            message = (
                f"The weights of {zoo}:{name} could not be loaded ({reason(error)}): check the connection to the "
                "network, or give a file of them with --weights."
            )
        else:
            message = f"{zoo} cannot build {name} ({reason(error)}): choose another, `zeroq models` lists them."
        raise ModelError(message) from error


def names_in_zoo(zoo: str) -> list[str]:
    """Names that stand after "ZOO:", sorted. Raises ModelError where the package is missing."""
    return sorted(ZOOS[zoo].names())


def _package(zoo: str, module: str) -> Any:
    """A module of the zoo's package, or the sentence that says how to install it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.partition(".")[0] != zoo:
            raise _broken(zoo, error) from error
        raise ModelError(
            f"{zoo} is not installed, and a MODEL that begins with {zoo}: needs it: pip install 'zeroq-quant[{zoo}]'."
        ) from error
    except Exception as error:  # torchvision built for another torch raises RuntimeError
        raise _broken(zoo, error) from error


def _broken(zoo: str, error: Exception) -> ModelError:
    return ModelError(
        f"{zoo} is installed but cannot be imported ({reason(error)}): install a version that fits the rest, "
        f"pip install 'zeroq-quant[{zoo}]'."
    )


def _pytorchcv_names() -> set[str]:
    return set(_package("pytorchcv", "pytorchcv.model_provider")._models)


def _pytorchcv(name: str, pretrained: bool) -> FoundModel:
    module = _package("pytorchcv", "pytorchcv.model_provider").get_model(name, pretrained=pretrained)
    size = tuple(module.in_size)
    if name.endswith(SMALL_PICTURES):
        preprocessing = Preprocessing(size, SMALL_MEAN, SMALL_STD, "RGB")
    else:
        row = _package("pytorchcv", "pytorchcv.models.model_store")._model_sha1.get(name)
        crop = (row and row[PYTORCHCV_CROP_COLUMN]) or PYTORCHCV_CROP
        resize = max(math.ceil(min(size) / crop), *size)
        preprocessing = Preprocessing(size, IMAGENET_MEAN, IMAGENET_STD, "RGB", resize)
    return FoundModel(name, module, preprocessing)


def _torchvision_names() -> set[str]:
    models = _package("torchvision", "torchvision.models")
    return {*models.list_models(module=models), *models.list_models(module=models.segmentation)}


def _torchvision(name: str, pretrained: bool) -> FoundModel:
    models = _package("torchvision", "torchvision.models")
    weights = models.get_model_weights(name).DEFAULT
    options: dict[str, Any] = {"weights": weights if pretrained else None}
    if not pretrained and "weights_backbone" in inspect.signature(models.get_model_builder(name)).parameters:
        options["weights_backbone"] = None  # else the weights of the backbone would be downloaded
    module = models.get_model(name, **options)
    if hasattr(module, "transform_input"):
        module.transform_input = True  # what torchvision sets with its own weights, and a file of them needs as well
    transforms = weights.transforms()
    side = transforms.resize_size[0]
    size = tuple(getattr(transforms, "crop_size", transforms.resize_size) * 2)[:2]
    preprocessing = Preprocessing(
        size, tuple(transforms.mean), tuple(transforms.std), "RGB", max(side, *size), transforms.interpolation.value
    )
    return FoundModel(name, module, preprocessing)


def _timm_names() -> set[str]:
    timm = _package("timm", "timm")
    return {*timm.list_models(), *timm.list_models(pretrained=True)}


def _timm(name: str, pretrained: bool) -> FoundModel:
    timm = _package("timm", "timm")
    module = timm.create_model(name, pretrained=pretrained)
    config = _package("timm", "timm.data").resolve_model_data_config(module)
    channels, height, width = config["input_size"]
    resize: int | str = "stretch"
    if config["crop_mode"] != "squash":
        resize = max(math.floor(min(height, width) / config["crop_pct"]), height, width)
    preprocessing = Preprocessing(
        size=(height, width),
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        channels={1: "L", 3: "RGB"}.get(channels),
        resize=resize,
        interpolation="bilinear" if config["interpolation"] == "bilinear" else "bicubic",
    )
    return FoundModel(name, module, preprocessing)


ZOOS = {
    "pytorchcv": Zoo(_pytorchcv_names, _pytorchcv),
    "torchvision": Zoo(_torchvision_names, _torchvision),
    "timm": Zoo(_timm_names, _timm),
}

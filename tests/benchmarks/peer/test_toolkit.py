"""What the toolkit is asked for, by a stand-in that has its names."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks.peer import toolkit
from tests.benchmarks.subjects import PREPROCESSING


class Wrapped(nn.Module):
    """A layer as the toolkit wraps it."""

    def __init__(self, layer: nn.Module, bits: int) -> None:
        super().__init__()
        self.layer, self.weights_quantizers = layer, {"weight": SimpleNamespace(num_bits=bits)}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the stand-in's quantization is called with; it says that 8 bits take 100 bytes."""
    found: list[dict[str, Any]] = []

    def quantize(module: nn.Module, representative: Any, **further: Any) -> tuple[nn.Module, None]:
        found.append({"images": torch.cat([batch for (batch,) in representative()]), **further})
        return module, None

    core = SimpleNamespace(
        CoreConfig=lambda **settings: settings,
        MixedPrecisionQuantizationConfig=lambda: "mixed",
        ResourceUtilization=lambda **most: most,
        pytorch_resource_utilization_data=lambda module, representative, settings: SimpleNamespace(weights_memory=100),
    )
    package = SimpleNamespace(core=core, ptq=SimpleNamespace(pytorch_post_training_quantization=quantize))
    monkeypatch.setattr(toolkit.importlib, "import_module", {toolkit.PACKAGE: package}.__getitem__)
    return found


@pytest.mark.parametrize(
    ("average", "further"),
    [
        (None, {}),
        (
            4,
            {
                "target_resource_utilization": {"weights_memory": 50},
                "core_config": {"mixed_precision_config": "mixed"},
            },
        ),
    ],
)
def test_it_is_shown_all_images_and_told_the_bytes(
    average: float | None, further: dict[str, Any], calls: list[dict[str, Any]]
) -> None:
    module, images = nn.Identity(), torch.randn(2 * toolkit.BATCH + 3, 3, 4, 4)
    assert toolkit.quantized(module, images, average) is module
    (call,) = calls
    assert torch.equal(call.pop("images"), images) and call == further


def test_bits_are_of_the_weights_that_it_quantized() -> None:
    network = nn.Sequential(Wrapped(nn.Linear(3, 5), 4), nn.ReLU(), Wrapped(nn.Conv2d(2, 1, 3), 8), nn.Linear(5, 5))
    assert toolkit.weight_bits(network) == [(4, 15), (8, 18)]


def test_it_is_told_how_pictures_are_normalised(monkeypatch: pytest.MonkeyPatch) -> None:
    table: dict[str, Any] = {}

    def generate(model: nn.Module, n_images: int, output_image_size: Any, data_generation_config: Any) -> list[Tensor]:
        assert data_generation_config == {"n_iter": 2, "data_gen_batch_size": 5}
        return [torch.zeros(1, 3, *output_image_size) for _ in range(n_images)]

    generation = SimpleNamespace(
        ImageNormalizationType=SimpleNamespace(TORCHVISION="torchvision"),
        get_pytorch_data_generation_config=lambda **settings: settings,
        pytorch_data_generation_experimental=generate,
    )
    modules = {
        toolkit.PACKAGE: SimpleNamespace(data_generation=generation),
        f"{toolkit.PACKAGE}.data_generation.common.image_pipeline": SimpleNamespace(image_normalization_dict=table),
    }
    monkeypatch.setattr(toolkit.importlib, "import_module", modules.__getitem__)
    images, seconds = toolkit.generated(nn.Identity(), PREPROCESSING, 5, 2)
    assert images.shape == (5, 3, 8, 8) and seconds > 0
    assert table["torchvision"][0] == [255 * value for value in PREPROCESSING.mean]

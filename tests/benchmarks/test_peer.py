"""A peer's images: how they are asked for, and what is said of them."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks import peer, peer_row
from tests.benchmarks.subjects import PREPROCESSING, tiny


@pytest.mark.parametrize("whole", [False, True])
def test_as_many_iterations_as_fit_and_all_of_them(whole: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def generated(name: str, data: Path, python: Path, iterations: int) -> tuple[Tensor, dict[str, Any]]:
        asked.append(iterations)
        return torch.randn(32, 3, 8, 8), {"one_seconds": 2.0, "seconds": 2.0 + iterations - 1, "versions": {"it": "1"}}

    monkeypatch.setattr(peer, "generated", generated)
    monkeypatch.setattr(peer, "timed", lambda function: (function(), SimpleNamespace(seconds=11.0)))
    found = peer.measured(tiny(), "tiny", Path(), Path("python"), whole=whole)
    assert asked == [peer.PROBED, 10, *([500] if whole else [])]
    assert [(row["who"], row["iterations"], row["seconds"]) for row in found["rows"]] == [
        ("ours", None, 11.0), ("peer", 10, 11.0), ("peer", 500, 501.0),
    ]  # fmt: skip
    assert [list(row["quality"]) for row in found["rows"]] == [["statistics_loss"]] * 2 + [["statistics_loss"] * whole]
    assert found["versions"] == {"it": "1"} and found["images"] == 32


def test_an_environment_without_the_toolkit_says_so(tmp_path: Path) -> None:
    with pytest.raises(peer.PeerError, match="gave no images of nothing: .*invalid choice: 'nothing'"):
        peer.generated("nothing", tmp_path, Path(sys.executable), 1)


def test_the_toolkit_is_told_how_pictures_are_normalised(monkeypatch: pytest.MonkeyPatch) -> None:
    table: dict[str, Any] = {}
    generation = SimpleNamespace(
        ImageNormalizationType=SimpleNamespace(TORCHVISION="torchvision"),
        get_pytorch_data_generation_config=lambda **settings: settings,
        pytorch_data_generation_experimental=lambda model, n_images, output_image_size, data_generation_config: [
            torch.zeros(1, 3, *output_image_size) for _ in range(n_images)
        ],
    )
    modules = {
        "model_compression_toolkit": SimpleNamespace(data_generation=generation),
        "model_compression_toolkit.data_generation.common.image_pipeline": SimpleNamespace(
            image_normalization_dict=table
        ),
    }
    monkeypatch.setattr(peer_row.importlib, "import_module", modules.__getitem__)
    images, seconds = peer_row.generated(nn.Identity(), PREPROCESSING, 5, 2)
    assert images.shape == (5, 3, 8, 8) and seconds > 0
    assert table["torchvision"][0] == [255 * value for value in PREPROCESSING.mean]

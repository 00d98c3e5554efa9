"""The lines of the page that run the file do what `zeroq.preprocessing` does, to the last bit."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from zeroq.preprocessing import Preprocessing, apply_picture, apply_pixels
from zeroq.report.snippet import lines_to_run

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
KINDS = [
    Preprocessing((24, 24), MEAN, STD, "RGB", resize=32),
    Preprocessing((24, 24), MEAN, STD, "RGB", interpolation="bicubic"),
    Preprocessing((24, 40), MEAN, STD, "BGR"),
    Preprocessing((40, 24), MEAN, STD, "RGB", resize=41),
    Preprocessing((24, 40), MEAN, STD, "RGB", resize="stretch"),
    Preprocessing((24, 40), MEAN, STD, "BGR", resize="letterbox"),
    Preprocessing((8, 8), (0.0,), (1.0,), "L"),
]


@pytest.mark.parametrize("size", [(50, 37), (37, 50), (33, 33), (90, 20)])
@pytest.mark.parametrize("preprocessing", KINDS, ids=str)
def test_a_picture_is_prepared_alike(
    preprocessing: Preprocessing, size: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "picture.jpg", "PNG")
    inputs = run_lines(lines_to_run(preprocessing, "classification"), tmp_path, monkeypatch)
    expected = apply_picture(Image.fromarray(pixels), preprocessing).numpy()[None]
    np.testing.assert_array_equal(inputs, expected)


def test_other_channels_are_read_from_an_npz_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    preprocessing = Preprocessing((6, 5), (0.1, 0.2, 0.3, 0.4), (1.0, 2.0, 1.0, 0.5))
    pixels = np.random.default_rng(0).integers(0, 256, (2, 6, 5, 4), dtype=np.uint8)
    np.savez(tmp_path / "pictures.npz", images=pixels)
    inputs = run_lines(lines_to_run(preprocessing, "regression"), tmp_path, monkeypatch)
    np.testing.assert_array_equal(inputs, apply_pixels(pixels[:1], preprocessing).numpy())


def test_the_lines_are_about_ten_and_fit_a_page() -> None:
    lines = [line for line in lines_to_run(KINDS[0], "classification").splitlines() if line]
    assert len(lines) == 11
    assert max(map(len, lines)) <= 92


def run_lines(lines: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What the lines feed to the session, here one that only keeps its input."""
    fed: dict[str, Any] = {}

    class Session:
        def __init__(self, path: str) -> None:
            assert path == "model.onnx"

        def get_inputs(self) -> list[SimpleNamespace]:
            return [SimpleNamespace(name="x")]

        def run(self, _: None, feeds: dict[str, Any]) -> list[Any]:
            fed.update(feeds)
            return [np.zeros((1, 10), np.float32)]

    monkeypatch.setitem(sys.modules, "onnxruntime", SimpleNamespace(InferenceSession=Session))
    monkeypatch.chdir(folder)
    exec(lines, {})
    return fed["x"]

"""The user's own pictures for calibration."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from zeroq.errors import DataError
from zeroq.evaluate import calibration_pictures, open_pictures
from zeroq.preprocessing import Preprocessing

GREY = Preprocessing((4, 4), (0.0,), (1 / 255,), "L")


@pytest.fixture(params=["folder", "npz"])
def twenty(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Twenty pictures, each of one value, nested and among other files, or in an npz file without labels."""
    if request.param == "npz":
        np.savez(
            tmp_path / "data.npz", images=np.tile(np.arange(20, dtype=np.uint8)[:, None, None, None], (1, 4, 4, 1))
        )
        return tmp_path / "data.npz"
    for value in range(20):
        path = tmp_path / ("a" if value < 10 else "b/c") / f"{value:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4), value).save(path)
    (tmp_path / "instances.json").write_text("{}")
    (tmp_path / ".hidden.png").write_text("no picture")
    return tmp_path


def values(pictures: torch.Tensor) -> list[int]:
    assert pictures.dtype == torch.float32 and pictures.shape[1:] == (1, 4, 4)
    return [round(value) for value in pictures[:, 0, 0, 0].tolist()]


def test_the_choice_is_that_of_the_seed(twenty: Path) -> None:
    chosen = values(calibration_pictures(twenty, GREY, 8, seed=3))
    assert len(set(chosen)) == 8
    assert chosen == values(calibration_pictures(twenty, GREY, 8, seed=3))
    assert chosen != values(calibration_pictures(twenty, GREY, 8, seed=4))
    assert chosen != list(range(8))


def test_all_where_there_are_fewer(twenty: Path) -> None:
    assert values(calibration_pictures(twenty, GREY, 64, seed=0)) == list(range(20))


def test_folder_and_npz_choose_alike(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (70, 4, 4, 1), dtype=np.uint8)
    np.savez(tmp_path / "data.npz", images=pixels)
    (tmp_path / "folder").mkdir()
    for index, image in enumerate(pixels):
        Image.fromarray(image[..., 0]).save(tmp_path / "folder" / f"{index:02}.png")
    there, here = (calibration_pictures(tmp_path / name, GREY, 50, 1) for name in ("folder", "data.npz"))
    assert torch.equal(there, here)


def test_sources_without_pictures_are_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("")
    np.savez(tmp_path / "none.npz", images=np.zeros((0, 4, 4, 1), np.uint8))
    np.savez(tmp_path / "float.npz", images=np.zeros((2, 4, 4, 1)))
    for source, sentence in (
        (tmp_path, f"{tmp_path} holds no pictures: give a folder with some in it, or an npz file with 'images'."),
        (
            tmp_path / "no",
            f"{tmp_path / 'no'} does not exist: give a folder of pictures, or an npz file with 'images'.",
        ),
        (tmp_path / "none.npz", f"There are no images in {tmp_path / 'none.npz'}: give at least one."),
        (
            tmp_path / "float.npz",
            f"The images in {tmp_path / 'float.npz'} are float64 [2, 4, 4, 1]: give uint8 [N, H, W, C].",
        ),
    ):
        with pytest.raises(DataError) as caught:
            calibration_pictures(source, GREY, 4, 0)
        assert str(caught.value) == sentence
    with pytest.raises(DataError, match="notes.txt is damaged or no npz file"):
        calibration_pictures(tmp_path / "notes.txt", GREY, 4, 0)


def test_a_damaged_picture_is_named(tmp_path: Path) -> None:
    (tmp_path / "one.jpg").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"one\.jpg is not a picture: remove it, or replace it by one\.$"):
        calibration_pictures(tmp_path, GREY, 1, 0)


def test_all_pictures_are_gone_through_in_batches(twenty: Path) -> None:
    pictures = open_pictures(twenty, GREY)
    batches = list(pictures.read(8))
    assert pictures.count == 20 and [len(batch) for batch in batches] == [8, 8, 4]
    assert values(torch.cat(batches)) == list(range(20))

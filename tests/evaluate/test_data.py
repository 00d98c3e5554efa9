"""Labelled data from folders, npz files and arrays, and what is said where they do not fit."""

from __future__ import annotations

import io
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from zeroq.errors import DataError
from zeroq.evaluate import LabelledData, open_data
from zeroq.preprocessing import Preprocessing, apply_pixels

GREY = Preprocessing((4, 4), (0.0,), (1 / 255,), "L")  # the network sees pixels as they are
COLOUR = Preprocessing((4, 4), (0.0,) * 3, (1 / 255,) * 3, "RGB")


def draw(path: Path, value: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (6, 5), (value, value, value)).save(path)
    return path


def save(path: Path, images: Any, labels: Any) -> Path:
    np.savez(path, images=images, labels=labels)
    return path


def gone_through(data: LabelledData, batch: int = 2) -> tuple[list[float], list[int]]:
    """The first pixel and the label of every image, batch after batch."""
    batches = list(data.batches(batch))
    assert all(inputs.dtype == torch.float32 and labels.dtype == torch.int64 for inputs, labels in batches)
    assert all(len(inputs) == len(labels) <= batch for inputs, labels in batches)
    values = [round(value) for inputs, _ in batches for value in inputs[:, 0, 0, 0].tolist()]
    return values, [label for _, labels in batches for label in labels.tolist()]


def refusal(source: Any, preprocessing: Preprocessing = GREY, classes: int = 10) -> str:
    with pytest.raises(DataError) as caught:
        list(open_data(source, preprocessing, classes).batches(2))
    return str(caught.value)


# Folders


def test_integer_names_are_class_indices_and_need_not_be_complete(tmp_path: Path) -> None:
    for name, value in (("0007/b.png", 71), ("0007/deeper/a.png", 72), ("3/x.bmp", 31), ("0/y.jpg", 0)):
        draw(tmp_path / name, value)
    (tmp_path / "5").mkdir()
    draw(tmp_path / ".cache" / "thumbnail.png")
    (tmp_path / "3" / ".DS_Store").write_bytes(b"no picture")
    (tmp_path / "credits.tsv").write_text("loose files do not count")
    assert gone_through(open_data(tmp_path, GREY, 10)) == ([0, 71, 72, 31], [0, 7, 7, 3])


def test_other_names_are_classes_in_their_order(tmp_path: Path) -> None:
    for value, name in enumerate(("cat", "7", "ant")):
        draw(tmp_path / name / "one.png", value)
    assert gone_through(open_data(tmp_path, GREY, 3)) == ([1, 2, 0], [0, 1, 2])


def test_labels_file_orders_the_classes_and_lets_some_be_missing(tmp_path: Path) -> None:
    for value, name in enumerate(("cat", "ant")):
        draw(tmp_path / name / "one.png", value)
    (tmp_path / "labels.txt").write_text("dog\ncat\nbee\n ant \n\n")
    assert gone_through(open_data(tmp_path, GREY, 4)) == ([1, 0], [3, 1])


def test_a_folder_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path / "no") == (
        f"{tmp_path / 'no'} does not exist: give a folder of class folders, or an npz file."
    )
    draw(tmp_path / "loose.png")
    assert refusal(tmp_path) == (
        f"{tmp_path} holds no class folders: put the pictures of each class into a folder of its own."
    )
    (tmp_path / "cat").mkdir()
    assert refusal(tmp_path, classes=1) == f"The class folders of {tmp_path} are empty: put pictures into them."
    assert refusal(tmp_path) == (
        f"{tmp_path} names 1 classes and the network has 10: give one folder for each class, or folders named by class "
        "index, or a labels.txt of one folder name per line in the order of classes."
    )
    (tmp_path / "labels.txt").write_text("dog")
    assert refusal(tmp_path) == f"{tmp_path / 'labels.txt'} does not name the class folder 'cat': add it."
    (tmp_path / "labels.txt").write_bytes(b"\xff\xfe\x00")
    assert refusal(tmp_path).startswith(f"{tmp_path / 'labels.txt'} cannot be read (")


@pytest.mark.parametrize("name", ["10", "-1"])
def test_a_class_folder_beyond_the_classes_is_refused(tmp_path: Path, name: str) -> None:
    draw(tmp_path / name / "one.png")
    assert refusal(tmp_path) == (
        f"{tmp_path} has a class folder '{name}' and the network has 10 classes: name the folders 0 to 9."
    )


def test_what_is_no_picture_is_named(tmp_path: Path) -> None:
    draw(tmp_path / "0" / "good.png")
    bad = tmp_path / "1" / "notes.txt"
    bad.parent.mkdir()
    bad.write_text("not a picture")
    assert refusal(tmp_path) == f"{bad} is not a picture: remove it, or replace it by one."
    bad.write_bytes(b"")
    assert refusal(tmp_path) == f"{bad} is not a picture: remove it, or replace it by one."


@pytest.mark.parametrize("kind", ["jpg", "png", "bmp", "gif", "webp", "tiff"])
def test_a_truncated_picture_is_an_error_that_names_it(tmp_path: Path, kind: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = tmp_path / "0" / f"cut.{kind}"
    path.parent.mkdir()
    Image.fromarray(pixels).save(path)
    whole = path.read_bytes()
    for share in (0.3, 0.6, 0.9):
        path.write_bytes(whole[: int(share * len(whole))])
        assert refusal(tmp_path).startswith(str(path))


def test_more_than_8_bits_are_refused_and_not_clipped(tmp_path: Path) -> None:
    path = tmp_path / "0" / "deep.png"
    path.parent.mkdir()
    Image.fromarray(np.full((4, 4), 40000, np.uint16)).save(path)
    assert refusal(tmp_path) == f"{path} has pixels of kind 'I;16': convert it to RGB or grey of 8 bits."


def test_a_network_without_picture_channels_needs_npz(tmp_path: Path) -> None:
    draw(tmp_path / "0" / "one.png")
    five = Preprocessing((4, 4), (0.0,) * 5, (1.0,) * 5)
    assert refusal(tmp_path, five) == (
        "The network takes 5 channels and pictures have 1 or 3: give the data as an npz file of images [N, H, W, C]."
    )


# npz files and arrays


@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("kind", ["int64", "uint8", ">i4"])
def test_npz_and_arrays_give_the_same_as_pixels(tmp_path: Path, write: Any, kind: str) -> None:
    images = np.random.default_rng(0).integers(0, 256, (7, 5, 6, 3), dtype=np.uint8)
    labels = np.array([3, 1, 4, 1, 5, 9, 2], kind)
    write(tmp_path / "data.npz", images=images, labels=labels, other=np.zeros(2))
    for source in (tmp_path / "data.npz", (images, labels)):
        data = open_data(source, COLOUR, 10)
        assert len(data) == 7
        assert [len(inputs) for inputs, _ in data.batches(3)] == [3, 3, 1]
        for _ in range(2):  # it can be gone through again
            assert torch.equal(torch.cat([inputs for inputs, _ in data.batches(3)]), apply_pixels(images, COLOUR))
            assert torch.cat([labels for _, labels in data.batches(3)]).tolist() == [3, 1, 4, 1, 5, 9, 2]


def test_memory_stays_flat_over_a_large_npz(tmp_path: Path) -> None:
    images = np.zeros((600, 128, 128, 1), np.uint8)  # 10 MB
    path = save(tmp_path / "data.npz", images, np.zeros(600, int))
    del images
    tracemalloc.start()
    try:
        data = open_data(path, Preprocessing((128, 128), (0.0,), (1.0,), "L"), 10)
        assert sum(len(inputs) for inputs, _ in data.batches(10)) == 600
        assert tracemalloc.get_traced_memory()[1] < 3e6
    finally:
        tracemalloc.stop()


IMAGES, LABELS = np.zeros((3, 4, 4, 1), np.uint8), np.array([0, 1, 9])


@pytest.mark.parametrize(
    ("images", "labels", "sentence"),
    [
        (IMAGES.astype(float), LABELS, "The images{of} are float64 [3, 4, 4, 1]: give uint8 [N, H, W, C]."),
        (IMAGES[..., 0], LABELS, "The images{of} are uint8 [3, 4, 4]: give uint8 [N, H, W, C]."),
        (np.uint8(3), LABELS, "The images{of} are uint8 []: give uint8 [N, H, W, C]."),
        (
            IMAGES.transpose(0, 3, 1, 2),
            LABELS,
            "The images{of} are [3, 1, 4, 4] and the network takes 1 channel(s): give uint8 [N, H, W, 1].",
        ),
        (
            IMAGES,
            LABELS.astype(float),
            "The labels{of} are float64 [3]: give integers [N], one class index per image.",
        ),
        (
            IMAGES,
            LABELS[:, None],
            "The labels{of} are int64 [3, 1]: give integers [N], one class index per image.",
        ),
        (IMAGES, LABELS[:2], "3 images and 2 labels{of}: give one label for each image."),
        (IMAGES[:0], LABELS[:0], "There are no images{of}: give at least one."),
        (IMAGES, LABELS + 1, "The labels{of} are 1 to 10 and the network has 10 classes: give 0 to 9."),
        (IMAGES, LABELS - 1, "The labels{of} are -1 to 8 and the network has 10 classes: give 0 to 9."),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path: Path, images: Any, labels: Any, sentence: str) -> None:
    path = save(tmp_path / "data.npz", np.ascontiguousarray(images) if np.ndim(images) else images, labels)
    assert refusal(path) == sentence.format(of=f" in {path}")
    if np.ndim(images):
        assert refusal((images, labels)) == sentence.format(of="")


def test_an_npz_file_of_other_content_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    np.savez(path, pictures=IMAGES, labels=LABELS)
    assert refusal(path) == f"{path} holds pictures, labels: it must hold 'images'."
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images", b"")
    assert refusal(path) == f"{path} holds no array: it must hold 'images'."
    np.savez(path, images=IMAGES)
    assert refusal(path) == f"{path} holds images: it must hold 'labels'."
    np.savez(path, images=np.array([{}, "a"], object), labels=LABELS)
    assert refusal(path) == f"{path} holds 'images' as Python objects: save it as numbers."
    np.savez(path, images=np.asfortranarray(np.zeros((3, 4, 4, 2), np.uint8)), labels=LABELS)
    assert refusal(path) == f"{path} holds 'images' in Fortran's order: save numpy.ascontiguousarray of it."
    other = tmp_path / "data.csv"
    other.write_text("1,2")
    assert (
        refusal(other)
        == f"{other} is neither a folder nor an npz file: give a folder of class folders, or an npz file."
    )


def test_nothing_of_an_npz_file_is_unpickled(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (open, (str(tmp_path / "sprung"), "w"))

    np.savez(tmp_path / "data.npz", images=IMAGES, labels=np.array([Trap()], object))
    assert refusal(tmp_path / "data.npz").endswith("holds 'labels' as Python objects: save it as numbers.")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
def test_a_damaged_npz_file_is_named_wherever_the_damage_is(tmp_path: Path, write: Any) -> None:
    generator = np.random.default_rng(0)
    path = tmp_path / "data.npz"
    write(path, images=generator.integers(0, 256, (9, 4, 4, 1), dtype=np.uint8), labels=np.arange(9))
    whole = path.read_bytes()
    for length in range(0, len(whole), 37):
        path.write_bytes(whole[:length])
        assert refusal(path).startswith(f"{path} is damaged or no npz file (")
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        starts = [archive.getinfo(name).header_offset + 100 for name in ("images.npy", "labels.npy")]
    for start in starts:
        path.write_bytes(whole[:start] + bytes([whole[start] ^ 255]) + whole[start + 1 :])
        assert str(path) in refusal(path)


def test_an_npz_file_that_is_a_folder_or_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.npz").write_text("no archive")
    assert refusal(tmp_path / "text.npz").startswith(f"{tmp_path / 'text.npz'} is damaged or no npz file (")

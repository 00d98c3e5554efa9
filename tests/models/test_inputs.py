"""Which preprocessing and which input shape hold."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from torch import nn

from zeroq.errors import ModelError, OptionError
from zeroq.models import load_model
from zeroq.models.inputs import read_preprocessing, resolve_input
from zeroq.models.loaded import FoundModel, Shape
from zeroq.preprocessing import Preprocessing, imagenet

ZOO = Preprocessing((224, 224), (0.5, 0.5, 0.5), (0.2, 0.2, 0.2), "RGB", resize=256)
OTHER = Preprocessing((64, 48), (0.1,), (0.3,), "L")


def found(preprocessing: Preprocessing | None = ZOO, shape: Shape | None = None) -> FoundModel:
    return FoundModel("net", nn.Identity(), preprocessing, shape)


def refusal(preprocessing: Preprocessing | None, override: Preprocessing | None, shape: Shape | None) -> str:
    with pytest.raises(OptionError) as caught:
        resolve_input(found(preprocessing), override, shape)
    return str(caught.value)


def test_what_the_source_says_holds_unless_a_file_says_otherwise() -> None:
    assert resolve_input(found(), None, None) == (ZOO, False)
    assert resolve_input(found(), OTHER, None) == (OTHER, False)
    assert resolve_input(found(None), OTHER, (1, 64, 48)) == (OTHER, False)


def test_another_size_scales_the_side_before_the_crop_with_it() -> None:
    resolved, _ = resolve_input(found(), None, (3, 112, 112))
    assert (resolved.size, resolved.resize, resolved.mean) == ((112, 112), 128, ZOO.mean)


def test_what_nothing_says_is_guessed() -> None:
    assert resolve_input(found(None, (3, 32, 32)), None, None) == (imagenet((32, 32)), True)
    grey, guessed = resolve_input(found(None), None, (1, 28, 28))
    assert guessed and grey.channels == "L" and grey.mean[0] == pytest.approx(0.449)
    many, _ = resolve_input(found(None), None, (6, 28, 28))
    assert many.channels is None and many.input_shape == (6, 28, 28)


def test_contradictions() -> None:
    assert refusal(ZOO, None, (1, 224, 224)) == (
        "--input-shape has 1 channel(s) and the preprocessing 3: give --preprocess with a mean and deviation for each "
        "channel, or leave --input-shape out."
    )
    assert refusal(ZOO, OTHER, (1, 64, 64)) == (
        "--input-shape says 64 x 64 and --preprocess 64 x 48: make them equal, or leave --input-shape out."
    )
    assert refusal(ZOO, None, (3, 0, 4)) == (
        "--input-shape is (3, 0, 4): give channels, height and width, each at least 1, as C,H,W."
    )


def test_a_shape_that_nothing_says_is_asked_for() -> None:
    with pytest.raises(ModelError) as caught:
        resolve_input(found(None), None, None)
    assert str(caught.value) == (
        "Nothing says what the input of net is like: give --input-shape C,H,W, or PREPROCESS in the Python file."
    )


def test_a_wrong_shape_is_found_out_at_once(small: str) -> None:
    with pytest.raises(ModelError) as caught:
        load_model(small, input_shape=(3, 8, 8))
    message = str(caught.value)
    assert message.startswith("small does not run on an input of shape [2, 3, 8, 8] (RuntimeError: ")
    assert message.endswith(
        "): give the shape that it was trained on with --input-shape C,H,W, and --preprocess if its channels differ."
    )


def test_a_file_of_preprocessing_is_read(tmp_path: Path) -> None:
    path = tmp_path / "preprocess.json"
    path.write_text(json.dumps(OTHER.to_dict()))
    assert read_preprocessing(path) == OTHER


def test_a_file_of_preprocessing_overrides(small: str, write: Callable[..., Path]) -> None:
    path = write("other.json", '{"size": [6, 5], "mean": [0, 0, 0], "std": [1, 1, 1], "channels": "BGR"}')
    assert load_model(small, preprocess=path).preprocessing.channels == "BGR"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"size": 3,', "--preprocess p.json is not JSON (JSONDecodeError: Expecting property name enclosed in double"),
        ("[1]", "--preprocess p.json holds a list: write an object of size, mean and std."),
        ('{"mean": [0]}', "--preprocess p.json: Preprocessing lacks size, std: size, mean and std are needed."),
    ],
)
def test_a_bad_file_of_preprocessing(write: Callable[..., Path], text: str, message: str) -> None:
    with pytest.raises(OptionError) as caught:
        read_preprocessing(write("p.json", text))
    assert str(caught.value).startswith(message)


def test_no_file_of_preprocessing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OptionError) as caught:
        read_preprocessing(Path("none.json"))
    assert str(caught.value) == ("--preprocess none.json cannot be read (No such file or directory): check the path.")

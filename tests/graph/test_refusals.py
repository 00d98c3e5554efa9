"""What cannot be captured is refused in one sentence: the line of the user's file, and what to write instead."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from zeroq.cli import main
from zeroq.errors import CaptureError
from zeroq.graph import capture

IMAGES = torch.linspace(-1, 1, 2 * 3 * 4 * 4).reshape(2, 3, 4, 4)
BY_VALUES = "its forward pass asks for a value of a tensor"
FREE_BATCH = "its forward pass fixes the number of images"


class Result:
    """An object of a user's own."""

    def __init__(self, values: Tensor) -> None:
        self.values = values


class Base(nn.Module):
    """A layer; what its values go through is each network's difficulty."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 1)


class WhileLarge(Base):
    def forward(self, images: Tensor) -> Tensor:
        values = self.layer(images)
        while values.abs().max() > 1:  # LINE
            values = values / 2
        return values


class AsNumber(Base):
    def forward(self, images: Tensor) -> Tensor:
        values = self.layer(images)
        return values / float(values.max())  # LINE


class InNumpy(Base):
    def forward(self, images: Tensor) -> Tensor:
        return torch.from_numpy(self.layer(images).numpy().clip(0, 1))  # LINE


class EachImage(Base):
    def forward(self, images: Tensor) -> Tensor:
        values = self.layer(images)
        return torch.stack([each.mean((1, 2)) for each in values])  # LINE


class TwoImages(Base):
    def forward(self, images: Tensor) -> Tensor:
        return self.layer(images).view(2, 4, 16)  # LINE


class ByLists(Base):
    def forward(self, images: Tensor) -> Tensor:
        values = self.layer(images)
        return values + torch.tensor(values.tolist())  # LINE


class ByChance(Base):
    def forward(self, images: Tensor) -> Tensor:
        values = self.layer(images)
        return values * random.random()  # LINE


class Checked(Base):
    def forward(self, images: Tensor) -> Tensor:
        values = self.layer(images)
        assert (values < 100).all(), "too large"  # LINE
        return values


class AsObject(Base):
    def forward(self, images: Tensor) -> Result:
        return Result(self.layer(images))


@pytest.mark.parametrize(
    ("network", "advice"),
    [
        (WhileLarge, BY_VALUES),
        (AsNumber, BY_VALUES),
        (Checked, BY_VALUES),
        (InNumpy, "its forward pass leaves torch for numpy"),
        (EachImage, FREE_BATCH),
        (TwoImages, FREE_BATCH),
        (ByLists, FREE_BATCH),
        (ByChance, "its forward pass draws random numbers"),
    ],
)
def test_the_line_is_named_and_what_to_do(network: type[Base], advice: str) -> None:
    with pytest.raises(CaptureError) as caught:
        capture(network(), IMAGES)
    sentence, code = str(caught.value), network.forward.__code__  # type: ignore[attr-defined]
    lines = Path(code.co_filename).read_text(encoding="utf-8").splitlines()
    number = next(at for at in range(code.co_firstlineno, len(lines)) if lines[at].endswith("# LINE")) + 1
    assert f" at {code.co_filename}:{number} ({lines[number - 1].strip()})" in sentence
    assert advice in sentence
    assert "\n" not in sentence and sentence.count(". ") == 0


def test_an_object_as_output_is_refused() -> None:
    with pytest.raises(CaptureError) as caught:
        capture(AsObject(), IMAGES)
    assert str(caught.value) == (
        "The network cannot be captured: it returns an object of a class of its own; return a tensor, or a tuple or "
        "dictionary of them."
    )


def test_the_command_line_says_it_and_gives_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "import torch\nfrom torch import nn\n"
        "PREPROCESS = dict(size=(8, 8), mean=(0.5,), std=(0.5,), channels=\"L\")\n\n\n"
        "class Choosy(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.layer = nn.Conv2d(1, 4, 8)\n\n"
        "    def forward(self, x):\n"
        "        x = self.layer(x)\n"
        "        if x.sum() > 0:\n"
        "            x = -x\n"
        "        return x.flatten(1)\n\n\n"
        "def network():\n"
        "    return Choosy()\n"
    )
    out = tmp_path / "run"
    code = main(["quantize", f"{file}:network", "--out", str(out)])
    said = capsys.readouterr()
    assert (code, said.out) == (2, "")
    assert f"The network cannot be captured at {file}:13 (if x.sum() > 0:): {BY_VALUES}" in said.err
    assert not out.exists() or not any(out.iterdir())

"""A row of the toolkit on the embedded network, by a stand-in for its images and its quantization."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from benchmarks.halves import CONFIRMATION, SELECTION, even_and_odd
from benchmarks.limits import against_float
from benchmarks.peer import measure, toolkit
from benchmarks.peer.rows import IMAGES, PeerRow
from tests.benchmarks.peer.test_toolkit import Wrapped
from zeroq.models import load_model
from zeroq.models.digits import load_test_split
from zeroq.preprocessing import Preprocessing


def test_a_row_says_what_the_section_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, (pixels, labels) = load_model("digits"), load_test_split()
    pictures = even_and_odd("digits", (pixels[:120], labels[:120]), model, 10)
    made: list[int] = []

    def generated(module: nn.Module, pictures: Preprocessing, images: int, iterations: int) -> tuple[Tensor, float]:
        made.append(iterations)
        return torch.zeros(images, *model.input_shape), 12.34

    class Quantized(nn.Module):
        """The float network with a wrong class on top, and layers to count bits of."""

        def __init__(self, images: Tensor, average: float | None) -> None:
            super().__init__()
            assert images.shape == (IMAGES, *model.input_shape)
            bits = 8 if average is None else 2
            self.layers = nn.Sequential(Wrapped(nn.Linear(10, 10), bits), Wrapped(nn.Linear(10, 20), 8))

        def forward(self, inputs: Tensor) -> Tensor:
            return model.module(inputs).roll(1, dims=1)

    monkeypatch.setattr(toolkit, "generated", generated)
    monkeypatch.setattr(toolkit, "quantized", lambda module, images, average: Quantized(images, average))
    monkeypatch.setattr(toolkit, "versions", lambda: {"toolkit": "1"})
    found = {
        setting: measure.measure(PeerRow("digits", setting, 3), model, pictures, tmp_path)
        for setting in ("w8a8", "avg4-a8")
    }
    assert made == [3] and found["w8a8"]["seconds"]["images"] == 12.3  # both settings share the images
    assert [each["average_bits"] for each in found.values()] == [8, 6]
    assert [each["layers_by_bits"] for each in found.values()] == [{"8": 2}, {"2": 1, "8": 1}]
    for role in (SELECTION, CONFIRMATION):
        half = found["w8a8"]["sets"][role]
        assert half["images"] == 60 and half["float_top1"] > 50 and half["top1"] < 10
        assert against_float(found["w8a8"], role).difference < -80
    measure.measure(PeerRow("digits", "w8a8", 4), model, pictures, tmp_path)
    assert made == [3, 4]

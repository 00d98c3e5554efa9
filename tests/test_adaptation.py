"""zeroq restatistic: from pictures to weights that --weights takes, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.retinanet import FrozenBatchNorm2d
from zeroq.adaptation import PixelStatistic, even_batches, restatistic
from zeroq.cli import main
from zeroq.errors import DataError, ModelError, RunError
from zeroq.evaluate import Pictures
from zeroq.models import from_module, load_model
from zeroq.options import Options
from zeroq.preprocessing import Preprocessing

PREPROCESS = {"size": (8, 8), "mean": (0.3,), "std": (0.3,), "channels": "L"}
NO_NORM = """
from torch import nn
PREPROCESS = dict(size=(6, 6), mean=(0.5,), std=(0.2,), channels="L")
def plain():
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))
"""


@pytest.fixture
def dark(tmp_path: Path) -> Path:
    """Forty pictures of 8 x 8, darker than digits, in an npz without labels."""
    pixels = np.random.default_rng(0).integers(0, 100, (40, 8, 8, 1), dtype=np.uint8)
    np.savez(tmp_path / "dark.npz", images=pixels)
    return tmp_path / "dark.npz"


def test_the_file_holds_the_network_with_other_statistics(dark: Path, tmp_path: Path) -> None:
    before = load_model("digits").module.state_dict()
    result = restatistic(load_model("digits"), dark, tmp_path / "new" / "dark.safetensors", batch=16)
    after = load_file(tmp_path / "new" / "dark.safetensors")
    assert set(after) == set(before)
    for name, tensor in before.items():
        assert torch.equal(tensor, after[name]) == ("running" not in name)
    norms = sum(name.endswith("running_mean") for name in before)
    assert (result["images"], result["batchnorms"], result["warnings"]) == (40, norms, [])
    pixels = np.load(dark)["images"] / 255
    assert result["input_mean"] == pytest.approx([pixels.mean()], abs=1e-4)
    assert result["input_std"] == pytest.approx([pixels.std()], abs=1e-4)
    again = load_model("digits", weights=tmp_path / "new" / "dark.safetensors").module.state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in after.items())


def test_frozen_batch_norms_are_measured_as_well(dark: Path, tmp_path: Path) -> None:
    module = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), FrozenBatchNorm2d(4), torch.nn.ReLU()).eval()
    loaded = from_module(module, torch.zeros(2, 1, 8, 8), preprocess=PREPROCESS)
    assert restatistic(loaded, dark, tmp_path / "w.safetensors")["batchnorms"] == 1
    found = load_file(tmp_path / "w.safetensors")
    assert set(found) == set(module.state_dict())
    inputs = (torch.from_numpy(np.load(dark)["images"]).permute(0, 3, 1, 2) / 255 - 0.3) / 0.3
    with torch.no_grad():
        torch.testing.assert_close(found["1.running_mean"], module[0](inputs).mean((0, 2, 3)))


def test_statistics_that_two_modules_share_are_both_written(dark: Path, tmp_path: Path) -> None:
    module = load_model("digits").module
    norms = [part for part in module.modules() if isinstance(part, torch.nn.BatchNorm2d)]
    norms[1].running_mean, norms[1].running_var = norms[0].running_mean, norms[0].running_var
    loaded = from_module(module, torch.zeros(2, 1, 8, 8), preprocess=PREPROCESS)
    restatistic(loaded, dark, tmp_path / "w.safetensors")
    found = load_file(tmp_path / "w.safetensors")
    names = [name for name, part in module.named_modules() if part in norms[:2]]
    assert torch.equal(*(found[f"{name}.running_mean"] for name in names))


def test_batches_are_even_and_none_is_of_one() -> None:
    def sizes(count: int, most: int) -> list[int]:
        images = torch.zeros(count, 1, 1, 1)
        return [len(batch) for batch in even_batches(Pictures(count, images.split), most, lambda *_: None)]  # type: ignore[arg-type]

    assert sizes(130, 64) == [44, 44, 42]
    assert sizes(64, 64) == [64]
    assert sizes(5, 2) == [3, 2]
    assert all(min(sizes(count, most)) > 1 for count in range(2, 40) for most in range(1, 12))
    with pytest.raises(DataError, match="A single picture has no variance to measure: give more, better 200"):
        sizes(1, 64)


def test_a_single_file_that_is_no_picture_is_refused_as_that() -> None:
    def read(size: int) -> Iterator[Tensor]:
        raise DataError("it is not a picture")
        yield

    with pytest.raises(DataError, match="it is not a picture"):
        next(even_batches(Pictures(1, read), 64, lambda *_: None))


def test_pixels_are_those_of_all_pictures() -> None:
    images, pixels = torch.rand(10, 3, 4, 5, generator=torch.Generator().manual_seed(0)), PixelStatistic()
    preprocessing = Preprocessing((4, 5), (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), "RGB")
    assert sum(len(batch) for batch in pixels.noted(images.split(3))) == 10
    mean, deviation = pixels.of_pictures(preprocessing)
    scale, shift = torch.tensor(preprocessing.std), torch.tensor(preprocessing.mean)
    assert mean == pytest.approx((images.mean((0, 2, 3)) * scale + shift).tolist(), abs=1e-4)
    assert deviation == pytest.approx((images.std((0, 2, 3), correction=0) * scale).tolist(), abs=1e-4)


def test_the_command_says_how_to_go_on(dark: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "w.safetensors"
    assert main(["restatistic", "digits", "--data", str(dark), "--out", str(out)]) == 0
    text = capsys.readouterr().out
    assert f"next: zeroq quantize digits --weights {out} --input-mean 0.1" in text
    assert main(["restatistic", "digits", "--data", str(dark), "--out", str(out), "--json", "--quiet"]) == 0
    assert json.loads(capsys.readouterr().out)["batchnorms"] > 5


def test_what_was_measured_counts_as_many_batches(dark: Path, tmp_path: Path) -> None:
    """So that no warning asks to measure again what was just measured."""
    module = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU())
    module(torch.randn(4, 1, 8, 8))
    loaded = from_module(module, torch.zeros(2, 1, 8, 8), preprocess=PREPROCESS)
    restatistic(loaded, dark, tmp_path / "w.safetensors")
    assert int(load_file(tmp_path / "w.safetensors")["1.num_batches_tracked"]) == 40


def test_a_file_that_is_no_earlier_one_is_not_written_over(dark: Path, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text("kept")
    with pytest.raises(RunError, match="net.py is there already, and no file of weights: name another file with --out"):
        restatistic(load_model("digits"), dark, tmp_path / "net.py")
    assert (tmp_path / "net.py").read_text() == "kept"
    restatistic(load_model("digits"), dark, tmp_path / "w.safetensors")
    restatistic(load_model("digits"), dark, tmp_path / "w.safetensors")
    own = load_model("digits", weights=tmp_path / "w.safetensors")
    with pytest.raises(RunError, match="holds the weights that are read"):
        restatistic(own, dark, tmp_path / "w.safetensors")


def test_a_constant_channel_has_a_deviation_that_quantize_takes(tmp_path: Path) -> None:
    np.savez(tmp_path / "black.npz", images=np.zeros((40, 8, 8, 1), dtype=np.uint8))
    result = restatistic(load_model("digits"), tmp_path / "black.npz", tmp_path / "w.safetensors")
    assert Options.of(input_mean=result["input_mean"], input_std=result["input_std"])


def test_a_network_of_several_inputs_is_refused_as_that(dark: Path, tmp_path: Path) -> None:
    class Two(torch.nn.Module):
        def forward(self, images: Tensor, numbers: Tensor) -> Tensor:
            return images.mean((1, 2, 3)) + numbers.mean(1)

    loaded = from_module(Two(), (torch.zeros(2, 3, 8, 8), torch.zeros(2, 5)))
    with pytest.raises(ModelError, match=r"takes \[N, 3, 8, 8\], \[N, 5\]: pictures can be evaluated and read"):
        restatistic(loaded, dark, tmp_path / "w.safetensors")


def test_few_pictures_are_warned_of(tmp_path: Path) -> None:
    np.savez(tmp_path / "few.npz", images=np.random.default_rng(0).integers(0, 255, (3, 8, 8, 1), dtype=np.uint8))
    result = restatistic(load_model("digits"), tmp_path / "few.npz", tmp_path / "w")
    assert result["warnings"] == ["Statistics of 3 pictures are rough: give at least 32, better 200."]


def test_a_network_without_batch_norm_is_refused(dark: Path, tmp_path: Path) -> None:
    (tmp_path / "n.py").write_text(NO_NORM)
    with pytest.raises(ModelError, match="plain has no BatchNorm, so there are no statistics to measure again: quant"):
        restatistic(load_model(f"{tmp_path / 'n.py'}:plain"), dark, tmp_path / "w")
    assert not (tmp_path / "w").exists()


def test_what_cannot_be_read_or_written_is_named(dark: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nothing does not exist: give a folder of pictures"):
        restatistic(load_model("digits"), tmp_path / "nothing", tmp_path / "w")
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be written .*: name another file"):
        restatistic(load_model("digits"), dark, tmp_path / "file" / "w")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dark.npz", "file"]

"""The training of the embedded default, and what it left in the package."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from zeroq.models.digits import PREPROCESSING, digits, load_test_split, load_training_split
from zeroq.models.digits.model import WEIGHTS
from zeroq.models.digits.train import accuracy, main, train
from zeroq.models.weights import weights_sha256
from zeroq.preprocessing import apply_pixels

pytest.importorskip("sklearn", reason="scikit-learn holds the digits")


def test_the_weights_of_the_package_hold_what_the_model_card_says() -> None:
    images, labels = load_test_split()
    share = accuracy(digits(), apply_pixels(images, PREPROCESSING), torch.from_numpy(labels))
    card = WEIGHTS.with_name("MODEL_CARD.md").read_text(encoding="utf-8")
    assert f"| Test accuracy | {100 * share:.2f} % of {len(images)} images" in card
    assert f"| {sum(parameter.numel() for parameter in digits().parameters()):,}; " in card
    assert share >= 0.97
    assert WEIGHTS.stat().st_size < 1e6


def test_the_same_seed_trains_the_same_network_and_leaves_settings_as_they_were() -> None:
    images, labels = load_training_split()
    pixels, classes = apply_pixels(images[:128], PREPROCESSING), torch.from_numpy(labels[:128])
    before = torch.random.get_rng_state()
    first, second, other = (train(pixels, classes, seed=seed, epochs=1) for seed in (0, 0, 1))
    assert weights_sha256(first) == weights_sha256(second) != weights_sha256(other)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not torch.are_deterministic_algorithms_enabled()


def test_the_script_writes_weights_and_prints_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "weights.safetensors"
    monkeypatch.setattr("sys.argv", ["train", "--out", str(out)])
    monkeypatch.setattr("zeroq.models.digits.train.train", lambda images, labels: digits())
    main()
    assert out.read_bytes() == WEIGHTS.read_bytes()
    assert re.fullmatch(
        r"parameters          95,890\n"
        r"training accuracy   100\.00 % of 1201 images\n"
        r"test     accuracy   98\.\d\d % of 596 images\n",
        capsys.readouterr().out,
    )

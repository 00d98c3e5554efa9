"""MODEL strings."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from zeroq.errors import ModelError
from zeroq.models import load_model, model_names
from zeroq.models.digits import PREPROCESSING
from zeroq.models.digits.network import DigitsNetwork
from zeroq.models.weights import weights_sha256

LISTED = "MODEL is digits, ZOO:NAME, FILE.py:FUNCTION or FILE.pt2, and `zeroq models` lists the names."


def refusal(model: str) -> str:
    with pytest.raises(ModelError) as caught:
        load_model(model)
    return str(caught.value)


def test_the_embedded_default() -> None:
    loaded = load_model("digits")
    assert (loaded.name, loaded.source, loaded.task, loaded.warnings) == ("digits", "digits", "classification", ())
    assert (loaded.input_shape, loaded.preprocessing) == ((1, 8, 8), PREPROCESSING)
    assert loaded.input_statistic == ((0.3065,), (0.3755,))
    assert loaded.weights_sha256 == weights_sha256(loaded.module) == load_model("digits").weights_sha256
    assert not loaded.module.training and not any(p.requires_grad for p in loaded.module.parameters())


def test_weights_of_one_s_own_for_the_embedded_default(tmp_path: Path) -> None:
    other = DigitsNetwork().eval()
    save_file(other.state_dict(), tmp_path / "other.safetensors")
    images = torch.randn(2, 1, 8, 8)
    assert torch.equal(load_model("digits", weights=tmp_path / "other.safetensors").module(images), other(images))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("digit", f"There is no model 'digit', near it: digits; {LISTED}"),
        ("nowhere:zzzzzzzzzz", f"There is no model 'nowhere:zzzzzzzzzz'; {LISTED}"),
        ("", f"There is no model ''; {LISTED}"),
    ],
)
def test_an_unknown_model(model: str, message: str) -> None:
    assert refusal(model) == message


def test_names_by_pattern() -> None:
    assert model_names("digits") == model_names("dig") == model_names("[d]ig*") == ["digits"]
    assert model_names("no-such-*") == []
    assert model_names()[0] == "digits"


def test_names_of_a_zoo() -> None:
    pytest.importorskip("pytorchcv.model_provider")
    assert "pytorchcv:resnet18" in model_names("pytorchcv:resnet1?")
    assert model_names("resnet18*")[0].startswith("pytorchcv:resnet18")
    assert "pytorchcv:mobilenetv2_w1" in model_names("mobilenetv2")

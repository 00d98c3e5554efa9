"""Runs on an emulated device end with the bytes of the CPU: nothing is made, or left, on the wrong one."""

from __future__ import annotations

import math
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

import zeroq.channels
import zeroq.stages
from tests.emulated import ELSEWHERE, emulated
from tests.runs import QUICK, loaded
from zeroq import devices
from zeroq.options import Options
from zeroq.pipeline import quantize_model
from zeroq.precision import Precision

SAME = (
    "distilled.safetensors", "ranges.json", "sensitivity.json", "frontier.json", "model.safetensors", "model.onnx",
)  # fmt: skip
CHANNELS = (zeroq.channels.CENTRES, zeroq.channels.FACTORS)  # of some networks


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("one_convolution", {"average_bits": 4, "weight_bits": [3, 8]}),
        ("attention", {}),
        ("shared_head", {"activation_bits": [4, 8], "bit_operations": 0.01}),
        ("relu6", {"activation_bits": 4}),
        ("linear_depthwise", {"activation_bits": 4}),
    ],
)
def test_a_device_is_followed_everywhere(
    name: str, asked: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zeroq.stages, "choose_precision", lambda *_: (Precision(), {}))
    for most in ("CLEARLY", "CLEARLY_AT_A_COST"):  # factors of channels are taken where there can be any
        monkeypatch.setattr(zeroq.channels, most, math.inf)
    for device in (devices.CPU, ELSEWHERE):
        monkeypatch.setattr(devices, "resolve", lambda asked, memory_limit=None, device=device: device)
        with emulated() if device == ELSEWHERE else nullcontext():
            run = quantize_model(loaded(name), Options.of(**QUICK, **asked), tmp_path / device.type)
        assert run.result["device"] == device.type
        assert all(tensor.device == devices.CPU for tensor in run.model.state_dict().values())
    files = (*SAME, *(name for name in CHANNELS if (tmp_path / "cpu" / name).exists()))
    for file in files:
        assert (tmp_path / "cpu" / file).read_bytes() == (tmp_path / ELSEWHERE.type / file).read_bytes(), file


def test_tensors_of_two_devices_do_not_meet() -> None:
    with emulated():
        far, near = torch.ones(3).to(ELSEWHERE), torch.ones(3)
        assert (far * torch.tensor(2.0)).to("cpu").tolist() == [2.0, 2.0, 2.0]
        with pytest.raises(RuntimeError, match="two devices"):
            far + near
        with pytest.raises((RuntimeError, TypeError)):
            far.numpy()

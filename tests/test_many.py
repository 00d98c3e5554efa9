"""Many models in one command: a run each, one summary, and none stops the others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import zeroq.many
from tests.runs import QUICK
from zeroq.errors import RunError
from zeroq.many import directories, quantize_many
from zeroq.options import Options

SOURCE = """
import torch
from torch import nn

PREPROCESS = dict(size=(6, 6), mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4), channels="RGB")
TASK = "classification"

def tiny():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(128, 5))
"""


@pytest.fixture
def net(tmp_path: Path) -> str:
    (tmp_path / "net.py").write_text(SOURCE)
    return f"{tmp_path}/net.py:tiny"


def test_directories_are_named_as_of_one_and_numbered_where_two_would_be_one() -> None:
    found = directories(["digits", "a/net.py:tiny", "b/net.py:tiny", "zoo:one", "c/saved net.pt2"], "w8a8")
    assert found == ["digits-w8a8", "tiny-w8a8", "tiny-w8a8-2", "one-w8a8", "saved_net-w8a8"]


def test_one_that_fails_does_not_stop_the_others(net: str, tmp_path: Path) -> None:
    told: list[str] = []
    out = tmp_path / "some" / "where"
    summary = quantize_many(["no/such.py:net", net, net], Options.of(**QUICK), out, on_error=told.append)
    assert summary == json.loads((out / "summary.json").read_text())
    assert [entry["directory"] for entry in summary["models"]] == ["net-w8a8", "tiny-w8a8", "tiny-w8a8-2"]
    lost, one, other = summary["models"]
    assert lost["error"].startswith("There is no file no/such.py") or "no/such.py" in lost["error"]
    assert (lost["onnx_bytes"], lost["defect"], one["error"]) == (None, False, None)
    assert told == [f"no/such.py:net: {lost['error']}"]
    result = json.loads((out / "tiny-w8a8" / "result.json").read_text())
    assert all(one[name] == result[name] for name in ("onnx_bytes", "divergence", "average_bits", "warnings"))
    assert one["onnx_bytes"] == other["onnx_bytes"]
    page = (out / "summary.html").read_text()
    assert 'href="tiny-w8a8-2/report.html"' in page and "2 of 3 done, 1 failed" in page


def test_a_defect_of_ours_is_told_with_its_place_and_the_others_go_on(
    net: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, told = zeroq.many.quantize_model, []

    def quantize_model(model: Any, options: Any, out: Path, **given: Any) -> Any:
        if out.name == "tiny-w8a8":
            raise KeyError("a defect")
        return real(model, options, out, **given)

    monkeypatch.setattr(zeroq.many, "quantize_model", quantize_model)
    summary = quantize_many([net, net], Options.of(**QUICK), tmp_path / "out", on_error=told.append)
    assert [(entry["error"], entry["defect"]) for entry in summary["models"]] == [
        ("KeyError: 'a defect'", True), (None, False)
    ]  # fmt: skip
    assert "Traceback" in told[0] and told[1] == f"{net}: KeyError: 'a defect'"


def test_an_interrupted_command_goes_on_with_what_is_finished(
    net: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(stage: str, done: int, total: int) -> None:
        if stage.startswith("tiny-w8a8-2"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        quantize_many([net, net], Options.of(**QUICK), tmp_path / "out", on_progress=interrupted)
    first = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert [entry["directory"] for entry in first["models"]] == ["tiny-w8a8"] and first["asked"] == 2
    record = tmp_path / "out" / "tiny-w8a8" / "run.json"
    before = json.loads(record.read_text())["seconds"]["distill"]
    again = quantize_many([net, net], Options.of(**QUICK), tmp_path / "out")
    assert json.loads(record.read_text())["seconds"]["distill"] == before
    assert [entry["error"] for entry in again["models"]] == [None, None]


def test_a_place_that_cannot_be_written_is_refused(net: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be written"):
        quantize_many([net], Options.of(**QUICK), tmp_path / "file" / "out")

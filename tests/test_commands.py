"""The commands from outside, with the real thing behind them: streams, exit codes, bad requests, full disks, Ctrl-C."""

from __future__ import annotations

import errno
import json
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

import zeroq.pipeline
import zeroq.stages
from tests.runs import FILES, QUICKLY, sham_export, sham_verify
from zeroq.cli import main

Refusal = Callable[..., str]

NETWORKS_FILE = """
import torch
from torch import nn

PREPROCESS = dict(size=(6, 6), mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.2), channels="RGB")

def plain():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))

class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3)

    def forward(self, images):
        if images.mean() > 0:  # this line
            images = -images
        return self.convolution(images).mean((2, 3))

def branching():
    return Branching()

def not_a_number():
    network = plain()
    network[0].weight.data[0] = float("nan")
    return network

def nothing():
    return None

def failing():
    raise ValueError("no luck")
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a file of networks, that is the current one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nets.py").write_text(NETWORKS_FILE)
    return tmp_path


@pytest.fixture
def refusal(here: Path, capsys: pytest.CaptureFixture[str]) -> Refusal:
    """The one sentence of a command that must end with 2, say nothing else but warnings, and leave nothing behind."""

    def refuse(arguments: str) -> str:
        before = sorted(here.rglob("*"))
        assert main(arguments.split()) == 2
        output, message = capsys.readouterr()
        lines = [line for line in message.splitlines() if not line.startswith(("capture: ", "warning: "))]
        assert output == "" and len(lines) == 1 and lines[0].startswith("zeroq: ") and lines[0].endswith(".")
        assert [path for path in sorted(here.rglob("*")) if "__pycache__" not in str(path)] == before
        return lines[0].removeprefix("zeroq: ")

    return refuse


@pytest.fixture
def sham(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the time that an ONNX file takes."""
    monkeypatch.setattr(zeroq.stages, "export_onnx", sham_export)
    monkeypatch.setattr(zeroq.stages, "verify", sham_verify)


def draw(path: Path, count: int) -> Path:
    """A folder of pictures."""
    path.mkdir(parents=True)
    for index in range(count):
        pixels = np.random.default_rng(index).integers(0, 256, (9, 7, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path / f"{index}.png")
    return path


# One real run


@pytest.fixture(scope="module")
def digits_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """The embedded default with a target, from outside."""
    out = tmp_path_factory.mktemp("digits") / "run"
    command = [sys.executable, "-m", "zeroq", "quantize", "digits", "--average-bits", "4", "--json", "--quiet"]
    done = subprocess.run([*command, *QUICKLY, "--out", str(out)], capture_output=True, text=True, timeout=300)
    return out, done


def test_quantize_prints_the_result_and_nothing_else(
    digits_run: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    out, done = digits_run
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("\n") == 1
    result = json.loads(done.stdout)
    assert result == json.loads((out / "result.json").read_bytes())
    assert {path.name for path in out.iterdir()} == FILES
    assert result["average_bits"] <= 4 and result["integer_share"] == 1 and result["float_nodes"] == {}
    assert result["onnx_bytes"] < result["float_bytes"] / 5


def test_evaluate_takes_a_run_its_file_and_its_simulation(
    digits_run: tuple[Path, subprocess.CompletedProcess[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("sklearn")
    out, _ = digits_run
    found: dict[str, dict[str, Any]] = {}
    for name, arguments in {
        "run": [str(out)],
        "simulation": [str(out), "--simulation"],
        "file": [str(out / "model.onnx")],
        "float": ["digits"],
    }.items():
        assert main(["evaluate", *arguments, "--data", "digits", "--json", "--threads", "1"]) == 0
        found[name] = json.loads(capsys.readouterr().out)
    assert found["float"]["top1"] > 0.96 and found["run"]["top1"] > 0.85
    assert found["run"]["top1"] == found["file"]["top1"]
    assert abs(found["run"]["top1"] - found["simulation"]["top1"]) < 0.01
    assert found["run"]["agreement"] > 0.85 and found["run"]["mean_divergence"] < 0.5
    assert found["file"]["agreement"] is None and found["float"]["agreement"] is None


def test_the_report_is_written_again(
    digits_run: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, _ = digits_run
    text = (out / "report.html").read_text()
    (out / "report.html").unlink()
    assert main(["report", str(out)]) == 0
    assert capsys.readouterr().out == f"{out / 'report.html'}\n"
    again = (out / "report.html").read_text()
    assert len(again) > 0.95 * len(text) and again.count("<img") == text.count("<img") == 8


def test_an_interruption_from_outside_can_be_resumed(
    tmp_path: Path, sham: None, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    arguments = ["quantize", "digits", "--average-bits", "4", *QUICKLY, "--out", str(out)]
    with subprocess.Popen([sys.executable, "-m", "zeroq", *arguments], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        while not process.stderr.readline().startswith("ranges: "):
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        last = process.stderr.read().splitlines()[-1]
    assert process.returncode == 130
    assert last == "zeroq: Interrupted: the same command again goes on where this one stopped."
    assert not (out / "result.json").exists()
    before = json.loads((out / "run.json").read_bytes())
    assert main([*arguments, "--quiet", "--json"]) == 0
    after = json.loads((out / "run.json").read_bytes())
    assert after["precision"] == before["precision"] and after["stages"]["distill"] == before["stages"]["distill"]
    assert {path.name for path in out.iterdir()} == FILES
    assert json.loads(capsys.readouterr().out)["average_bits"] <= 4


# What cannot be done


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ("digit", "There is no model 'digit', near it: digits; MODEL is digits"),
        ("pytorchcv:nothing_like_it", "There is no model 'pytorchcv:nothing_like_it'"),
        ("digits --weights gone.safetensors", "gone.safetensors"),
        ("nets.py:missing", "missing"),
        ("nets.py:nothing", "nothing"),
        ("nets.py:failing", "no luck"),
        ("nets.py:branching", "nets.py:17"),
        ("nets.py:not_a_number", "NaN or infinity"),
        ("nets.py:plain --input-shape 3,2,2", "does not run on an input of shape [2, 3, 2, 2]"),
        ("nets.py:plain --input-shape 1,6,6", "--input-shape has 1 channel(s)"),
        ("nets.py:plain --keep-float head*", "--keep-float head* matches no layer: names are like 0, 4"),
        ("nets.py:plain --layer-bits x=4", "--layer-bits x matches no layer"),
        ("nets.py:plain --keep-float *", "no layer to quantize"),
        ("nets.py:plain --sensitivity best", "--sensitivity best: choose kl or rounded."),
        ("nets.py:plain --average-bits 2 --edge-bits 8", "ask for --average-bits 8 or more"),
        ("nets.py:plain --input-mean 0.5 --input-std 0.5", "give one per channel"),
        ("nets.py:plain --weight-bits 1", "--weight-bits 1: choose 2 to 8."),
        ("nets.py:plain --average-bits 4 --compression 8", "each a target of their own"),
        ("nets.py:plain --calibration gone", "gone does not exist"),
        ("nets.py:plain --calibration empty", "empty holds no pictures"),
        ("nets.py:plain --calibration text", "text/a.png is not a picture"),
        ("nets.py:plain --calibration few", "few holds 3 picture(s): give at least 4, better 64."),
        ("nets.py:plain --out nets.py", "nets.py is a file, not a directory"),
        ("nets.py:plain --out text", "text is not empty and holds no run.json"),
        ("nets.py:plain --out /proc/zeroq/run", "cannot be written"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_ends_in_one_sentence_and_leaves_nothing(
    arguments: str, part: str, here: Path, refusal: Refusal
) -> None:
    (here / "empty").mkdir()
    (here / "text").mkdir()
    (here / "text" / "a.png").write_text("not a picture")
    draw(here / "few", 3)
    out = "" if "--out" in arguments else "--out made/run"
    assert part in refusal(f"quantize {arguments} {out}")


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, ("touch executed",))


def test_weights_that_do_not_fit_or_are_no_weights(here: Path, refusal: Refusal) -> None:
    save_file({"0.weight": torch.zeros(4, 3, 3, 3)}, "missing.safetensors")
    state = {name: value.contiguous() for name, value in nn.Conv2d(1, 1, 1).state_dict().items()}
    save_file(state, "other.safetensors")
    Path("truncated.safetensors").write_bytes(Path("missing.safetensors").read_bytes()[:100])
    Path("corrupt.pt").write_bytes(b"PK\3\4" + bytes(100))
    Path("evil.pt").write_bytes(pickle.dumps({"0.weight": Evil()}))
    for name in ("missing.safetensors", "other.safetensors", "truncated.safetensors", "corrupt.pt", "evil.pt"):
        assert name in refusal(f"quantize nets.py:plain --weights {name} --out made/run")
    assert not Path("executed").exists()


def test_files_of_other_formats_are_no_model(here: Path, refusal: Refusal) -> None:
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [])), "net.onnx")
    torch.jit.script(nn.Linear(1, 1)).save("net.pt")
    Path("net.pt2").write_bytes(b"PK\3\4" + bytes(100))
    for name, word in (("net.onnx", "ONNX"), ("net.pt", "TorchScript"), ("net.pt2", "net.pt2")):
        assert word in refusal(f"quantize {name} --out made/run")


def test_evaluations_that_are_impossible(here: Path, refusal: Refusal) -> None:
    (draw(here / "data" / "0", 2) / "bad.png").write_text("not a picture")
    (here / "bare").mkdir()
    Path("cut.onnx").write_bytes(b"\x08\x08\x12")
    Path("half").mkdir()
    preprocess = {"size": [6, 6], "mean": [0.5] * 3, "std": [0.2] * 3, "channels": "RGB"}
    facts = {"model": "gone", "weights": None, "weights_sha256": "", "task": "classification", "input_shape": [3, 6, 6]}
    facts |= {"preprocess": preprocess, "options": {}, "stages": {}, "files": {}, "seconds": {}}
    Path("half/run.json").write_text(json.dumps(facts))
    Path("other").mkdir()
    Path("other/run.json").write_text(json.dumps({"epochs": 3}))
    for arguments, part in {
        "nets.py:plain --data data": "bad.png is not a picture",
        "nets.py:plain --data gone": "gone",
        "nets.py:plain --data data --simulation": "--simulation is about a run, and nets.py:plain is none",
        "bare --data data": "bare is no run directory, as it holds no run.json",
        "half --data data": "half holds no model.onnx: give the directory of a finished run",
        "other --data data": "run.json is no record of a run of zeroq quantize",
        "cut.onnx --data data": "cut.onnx",
        "nothing --data data": "There is no model 'nothing'",
    }.items():
        assert part in refusal(f"evaluate {arguments}")
    assert "bare is no run directory" in refusal("report bare")
    assert "half/result.json cannot be read" in refusal("report half")
    for command in ("report other", "benchmark other"):
        assert "run.json is no record of a run of zeroq quantize: give what --out named" in refusal(command)


@pytest.mark.parametrize("write", range(7))
def test_a_full_disk_ends_in_a_sentence_and_what_is_finished_is_kept(
    write: int, here: Path, sham: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = "quantize nets.py:plain --out made/run --quiet --json".split() + QUICKLY
    sync, calls = os.fsync, []  # type: ignore[var-annotated]

    def full(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) > 3 * write:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        assert main(arguments) == 2
    output, message = capsys.readouterr()
    assert output == ""
    assert message == (
        "zeroq: The disk of made/run is full: free some space or name another directory with --out; what is finished "
        "is kept.\n"
    )
    assert Path("made").exists() == (write > 0)
    assert not list(Path("made").rglob(".*"))
    assert main(arguments) == 0
    assert {path.name for path in Path("made/run").iterdir()} == FILES


# Pictures of one's own


def test_pictures_of_one_s_own_take_the_place_of_distilled_ones(here: Path, sham: None) -> None:
    draw(here / "pictures" / "deep", 6)
    pixels = np.random.default_rng(0).integers(0, 256, (6, 6, 6, 3), dtype=np.uint8)
    np.savez(here / "pictures.npz", images=pixels)
    for source in ("pictures", "pictures.npz"):
        arguments = f"quantize nets.py:plain --calibration {source} --out {source}.run --quiet --threads 1"
        assert main([*arguments.split(), "--average-bits", "6"]) == 0
        ranges = json.loads(Path(f"{source}.run/ranges.json").read_bytes())["quantizers"]
        assert {entry["source"] for entry in ranges.values()} == {"calibration"}
        result = json.loads(Path(f"{source}.run/result.json").read_bytes())
        assert result["divergence"]["images"] == 1 and result["precision"] == "fp32"


def test_as_few_pictures_as_one_asks_for(here: Path, sham: None) -> None:
    draw(here / "pictures", 6)
    assert main("quantize nets.py:plain --calibration pictures --images 2 --out run --quiet --threads 1".split()) == 0
    assert json.loads(Path("run/result.json").read_bytes())["divergence"]["images"] == 2

"""Every task through the commands, from a user's own file to figures: quantize, evaluate, report."""

from __future__ import annotations

import html
import json
from pathlib import Path
from typing import Any

import pytest
import torch

import zeroq
from tests.runs import QUICK, QUICKLY
from tests.tasks import DATA, METRICS, SOURCES, write_source
from zeroq.cli import main
from zeroq.models import load_model
from zeroq.report.words import TASKS

DIVERGENCE = {
    "segmentation": "KL divergence of each pixel, mean",
    "detection": "squared error of each output channel over its variance",
    "regression": "squared error of each output channel over its variance",
    "own": "your own divergence",
}


@pytest.fixture(scope="module", params=SOURCES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def folder(name: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network's file, its data, and a run with a target."""
    folder = tmp_path_factory.mktemp(name)
    model = write_source(folder, name)
    DATA[name](folder / "data")
    assert main(["quantize", model, "--out", str(folder / "run"), "--average-bits", "5", "--quiet", *QUICKLY]) == 0
    return folder


def data_of(folder: Path) -> str:
    file = folder / "data" / "data.npz"
    return str(file if file.is_file() else folder / "data")


def evaluated(folder: Path, target: str, capsys: pytest.CaptureFixture[str], *options: str) -> dict[str, Any]:
    capsys.readouterr()
    command = ["evaluate", str(folder / target), "--data", data_of(folder), "--threads", "1", "--json", *options]
    assert main(command) == 0, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


def task_of(name: str) -> str:
    return "classification" if name == "own" else name


def test_the_run_says_what_the_output_means(name: str, folder: Path) -> None:
    record, result = (json.loads((folder / "run" / f"{each}.json").read_text()) for each in ("run", "result"))
    assert record["task"] == result["task"] == task_of(name)
    assert record["ignore"] == (9 if name == "segmentation" else None)
    heads = [warning for warning in result["warnings"] if warning.startswith("No BatchNorm knows the outputs")]
    assert result["warnings"] == heads and len(heads) <= 1
    assert result["verification"]["agreement"] >= 0.99
    assert 0 <= result["divergence"]["mean"] < 1 and 0.5 < result["divergence"]["agreement"] <= 1


def test_run_simulation_and_file_are_evaluated_alike(
    name: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = evaluated(folder, "run", capsys)
    keys = ["images", "task", *METRICS[name], "float", "agreement", "mean_divergence", "images_per_second"]
    assert list(run) == keys and (run["images"], run["task"]) == (6, task_of(name))
    assert 0 < run["mean_divergence"] < 1 and 0.5 <= run["agreement"] <= 1
    simulated = evaluated(folder, "run", capsys, "--simulation")
    file = evaluated(folder, "run/model.onnx", capsys, "--reference", f"{folder / name}.py:net")
    for other in (simulated, file):
        for key in [*METRICS[name], "agreement"]:
            assert other[key] == pytest.approx(run[key], abs=0.02), key


def test_a_network_in_floating_point_agrees_with_itself(
    name: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = f"{name}.py:net"
    assert evaluated(folder, model, capsys)["agreement"] is None
    found = evaluated(folder, model, capsys, "--reference", f"{folder}/{model}")
    assert found["agreement"] == 1 and found["mean_divergence"] == pytest.approx(0, abs=1e-12)
    assert found["float"] == {metric: found[metric] for metric in METRICS[name]}


def test_the_divergence_of_the_meaning_made_the_choice(name: str, folder: Path) -> None:
    """The chosen candidate diverges least by it, and sensitivities fall with more bits."""
    frontier, table = (
        json.loads((folder / "run" / f"{each}.json").read_text()) for each in ("frontier", "sensitivity")
    )
    measured = [each["divergence"] for each in frontier["candidates"]]
    assert frontier["chosen"]["divergence"] == min(measured)
    for row in table["layers"].values():
        assert row["2"] > row["8"] > 0


def test_the_page_and_the_terminal_name_agreement_rightly(
    name: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = TASKS[task_of(name)].agreement
    page = (folder / "run" / "report.html").read_text()
    assert words in html.unescape(page) and f"<p class=\"axis-name\">{DIVERGENCE[name]}, logarithmic</p>" in page
    model = f"{folder / name}.py:net"
    assert main(["quantize", model, "--out", str(folder / "run"), "--average-bits", "5", *QUICKLY]) == 0
    assert words in capsys.readouterr().out


@pytest.mark.parametrize("name", ["detection"], indirect=True, scope="module")
def test_a_detector_s_bare_file_needs_its_reference(
    name: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = folder / "run" / "model.onnx"
    assert main(["evaluate", str(file), "--data", data_of(folder)]) == 2
    assert capsys.readouterr().err == (
        f"zeroq: {file} is a detector's, and no decode says what its boxes are: name the FILE.py:FUNCTION that it was "
        "made from with --reference.\n"
    )


@pytest.mark.parametrize("name", ["regression"], indirect=True, scope="module")
def test_data_of_another_task_are_refused(name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for data, sentence in (
        ("digits", "digits has labels for classification, not for regression: give an npz file of images and targets."),
        (str(folder), f"{folder} is no npz file: regression needs one that holds 'images' and 'targets'."),
    ):
        assert main(["evaluate", str(folder / "run"), "--data", data]) == 2
        assert capsys.readouterr().err.splitlines()[-1] == f"zeroq: {sentence}"


def test_a_task_that_is_guessed_warns_on_standard_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_source(tmp_path, "regression")
    source = (tmp_path / "regression.py").read_text().replace('TASK = "regression"\n', "")
    (tmp_path / "regression.py").write_text(source)
    DATA["own"](tmp_path / "data")
    result = evaluated_alone(tmp_path, capsys)
    assert result[1].startswith("warning: TASK is not given: the output [N, 2] is taken as class scores")
    assert result[0] == 2  # five labels and two classes


def evaluated_alone(folder: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    code = main(["evaluate", f"{folder}/regression.py:net", "--data", str(folder / "data/data.npz"), "--threads", "1"])
    return code, capsys.readouterr().err


@pytest.mark.parametrize("wrong", ["return outputs", "return [torch.zeros(4, 5)] * len(scores)", "raise KeyError('x')"])
def test_a_wrong_decode_is_refused_before_anything_is_written(
    wrong: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = write_source(tmp_path, "detection")
    path = tmp_path / "detection.py"
    path.write_text(path.read_text().replace("    return found\n", f"    {wrong}\n"))
    assert main(["quantize", model, "--out", str(tmp_path / "run"), *QUICKLY]) == 2
    sentence = capsys.readouterr().err
    assert "decode" in sentence and sentence.count("\n") == 1
    if "raise" in wrong:
        assert f"{path} fails at line " in sentence
    assert not (tmp_path / "run" / "run.json").exists()


def test_python_says_it_with_keywords(tmp_path: Path) -> None:
    model = load_model(write_source(tmp_path, "detection"))
    asked = {"preprocess": model.preprocessing.to_dict(), "task": "detection", "decode": model.reading.decode}
    run = zeroq.quantize(model.module, torch.zeros(1, 3, 8, 8), **asked, **QUICK)
    assert run.result["task"] == "detection" and run.result["divergence"]["agreement"] > 0.5
    scores, boxes = run.model(torch.zeros(2, 3, 8, 8))
    assert scores.shape == (2, 2, 2, 2) and boxes.shape == (2, 4, 2, 2)


def test_another_divergence_measures_sensitivity_again(tmp_path: Path) -> None:
    """Images, whose key does not hold it, are kept."""
    model = write_source(tmp_path, "own")
    command = ["quantize", model, "--out", str(tmp_path / "run"), "--average-bits", "5", "--quiet", *QUICKLY]
    assert main(command) == 0
    tables, images = [(tmp_path / "run/sensitivity.json").read_text()], (tmp_path / "run/distilled.safetensors").stat()
    source = (tmp_path / "own.py").read_text()
    for old, new in (("amax", "mean"), ("import torch", "import torch  # as before")):
        (tmp_path / "own.py").write_text(source := source.replace(old, new, 1))
        assert main(command) == 0
        tables.append((tmp_path / "run/sensitivity.json").read_text())
    assert tables[0] != tables[1] == tables[2]
    assert (tmp_path / "run/distilled.safetensors").stat().st_mtime_ns == images.st_mtime_ns

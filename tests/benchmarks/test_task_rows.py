"""The benchmark of the other tasks, on a slice: tiny networks in place of the real ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import zeroq.channels
from benchmarks import task_measure, task_rows
from benchmarks.bootstrap import mean_average_precision
from benchmarks.rows import MIXED, W4_EDGES_8, W8, at_best
from benchmarks.task_document import document
from benchmarks.task_measure import measure
from benchmarks.task_rows import METRICS, NETWORKS, TASK_SETTINGS, TaskRow, all_rows
from tests.runs import QUICK, loaded
from tests.tasks import DATA, write_source
from zeroq.accuracy import evaluate
from zeroq.candidates import Images
from zeroq.fitted_ranges import fit_ranges
from zeroq.models import load_model
from zeroq.numbers.values import Ranges
from zeroq.options import Options
from zeroq.pipeline import quantize_model
from zeroq.preparation import Prepared
from zeroq.whole_files import read_json

FURTHER = at_best(W4_EDGES_8)  # of benchmarks.low_bits
ASKED: dict[str, dict[str, Any]] = {W8: {}, MIXED: {"average_bits": 5}, FURTHER: {"weight_bits": 4}}
STANDS_FOR = {"nanodet_m": "detection", "retinaface_025": "detection", "espnet_camvid": "segmentation"}


@pytest.fixture(scope="module", params=STANDS_FOR)
def network(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def folder(network: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny network's file and its data, where the real one's would be."""
    folder = tmp_path_factory.mktemp(network)
    write_source(folder, STANDS_FOR[network])
    DATA[STANDS_FOR[network]](folder / NETWORKS[network])
    return folder


@pytest.fixture(scope="module", params=ASKED)
def measured(network: str, folder: Path, request: pytest.FixtureRequest) -> tuple[TaskRow, Path, dict[str, Any]]:
    """A row as the benchmark measures it."""
    row = TaskRow(network, request.param)
    model = load_model(f"{folder / STANDS_FOR[network]}.py:net")
    run = quantize_model(model, Options.of(**QUICK, **ASKED[row.setting]), folder / row.setting)
    found = measure(row, model, run, folder)
    return row, folder / row.setting, json.loads(json.dumps(found))


def test_figures_are_those_of_evaluate(
    measured: tuple[TaskRow, Path, dict[str, Any]], network: str, folder: Path
) -> None:
    row, run, record = measured
    found = evaluate(str(run), data=str(folder / NETWORKS[network]), threads=1)
    scores = record["sets"]["all"]
    assert scores["agreement"] == pytest.approx(found["agreement"])
    assert scores["mean_divergence"] == pytest.approx(found["mean_divergence"], rel=1e-3)
    metric = {"mAP": "map", "mIoU": "miou", "F1 against float": "agreement"}[record["metric"]]
    assert scores["quantized"] == pytest.approx(found[metric])
    assert scores["low"] <= scores["difference"] <= scores["high"]
    assert scores["difference"] == pytest.approx(100 * (scores["quantized"] - scores["float"]))


def test_halves_are_even_and_odd_places(measured: tuple[TaskRow, Path, dict[str, Any]]) -> None:
    assert [half["pictures"] for half in measured[2]["sets"].values()] == [6, 3, 3]


def test_where_the_loss_arises_is_told_for_the_mixed_setting(measured: tuple[TaskRow, Path, dict[str, Any]]) -> None:
    row, _, record = measured
    if row.setting == FURTHER:
        assert not {"outputs", "worst_layers"} & set(record) and "weights" not in record["sets"]["all"]
        return
    assert [output["channels"] for output in record["outputs"]] == ([3] if row.network == "espnet_camvid" else [2, 4])
    assert ("weights" in record["sets"]["all"]) == bool(record["worst_layers"]) == (row.setting == MIXED)
    shares = [layer["share"] for layer in record["worst_layers"]]
    assert shares == sorted(shares, reverse=True) and (not shares or sum(shares) == pytest.approx(1))


def test_weights_alone_are_the_run_s_own(
    measured: tuple[TaskRow, Path, dict[str, Any]], network: str, folder: Path
) -> None:
    """Without rounding of activations the outputs are nearer to floating point than with it, and not equal to it."""
    from zeroq.pipeline import Run

    row, directory, _ = measured
    model = load_model(f"{folder / STANDS_FOR[network]}.py:net")
    inputs = torch.randn(4, 3, 8, 8)
    alone = task_measure.weights_alone(model, Run(directory, read_json(directory / "result.json")))(inputs)
    with torch.no_grad():
        expected = model.module(inputs)
    one, other = (each if isinstance(each, torch.Tensor) else each[0] for each in (alone, expected))
    assert 0 < float((one - other).abs().max()) < 0.5 * float(other.std()) + 0.5


def test_weights_alone_are_of_the_channels_that_the_run_has_scaled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def with_factors(prepared: Prepared, images: Images, *arguments: Any) -> tuple[dict[str, Tensor], Ranges]:
        factors = {family.name: torch.tensor([4.0, 0.25] * 4).double() for family in prepared.scalable}
        return factors, fit_ranges(prepared.scaled(factors), images, *arguments)[0]

    monkeypatch.setattr(zeroq.channels, "helpful_factors", with_factors)
    model = loaded("depthwise")
    run = quantize_model(model, Options.of(**QUICK, precision="fp32"), tmp_path / "run")
    inputs = torch.randn(4, 3, 12, 12)
    with torch.no_grad():
        expected = model.module(inputs)
    alone = task_measure.weights_alone(model, run)(inputs)
    assert float((alone - expected).abs().max()) < 0.02 * float(expected.std())


def test_the_document_holds_every_row_and_marks_the_stale(measured: tuple[TaskRow, Path, dict[str, Any]]) -> None:
    row, _, record = measured
    if row.setting == FURTHER:
        return  # of another document
    found = {row: record | {"key": "", "error": None}}
    text = document(found, set())
    assert text.count(f"| {row.network} |") >= 3 and "`stale` |" not in text
    assert f"| {row.network} `stale` |" in document(found, {row})
    failed = document({row: {"key": "", "error": "it took longer than 1 s"}}, set())
    assert f"| {row.name} | it took longer than 1 s |" in failed


def test_every_row_has_a_name_and_keys_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each pair of equal programs, of the method and of scoring, gives a key."""
    rows = [*all_rows(), *(TaskRow(network, FURTHER) for network in NETWORKS)]
    monkeypatch.setattr(task_rows, "codes_for", lambda row: ["one", "another"])
    monkeypatch.setattr(task_rows, "equal_to", lambda code, network: ["scored", "scored alike", "as well"])
    keys = [key for row in rows for key in row.valid_keys()]
    assert len({row.name for row in rows}) == len(rows) == 12 and len(set(keys)) == len(keys) == 6 * len(rows)
    assert {row.setting for row in all_rows()} == set(TASK_SETTINGS) and set(METRICS) == set(NETWORKS)


def test_real_detectors_have_their_known_precision(shared_data: Path) -> None:
    """A part of coco_val_a: the float figures of the whole are what the folder's README says, 31.2 and 48.1."""
    from zeroq.accuracy import model_subject
    from zeroq.evaluate import TASKS

    model = load_model(f"{shared_data}/networks/nanodet_m.py:nanodet_m")
    subject = model_subject(model, None)
    data = TASKS["detection"].open(shared_data / "coco_val_a", model.preprocessing, subject.meaning, 0)
    assert len(data) == 100
    outputs = [subject.predict(inputs) for inputs, _ in data.batches(1)]
    figure = task_measure.labelled_figure(subject.meaning, data, outputs)
    assert figure(range(100)) == pytest.approx(0.312, abs=0.001)
    assert callable(mean_average_precision(None))

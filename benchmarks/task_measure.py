"""One row of a task other than classification, in a process of its own:

python -m benchmarks.task_measure NETWORK SETTING --data FOLDER --out FILE.json
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.bootstrap import Figure, bootstrapped, f1, mean_average_precision, mean_overlap
from benchmarks.measure import shared_run, told_by
from benchmarks.process import row_parser
from benchmarks.rows import MIXED
from benchmarks.task_rows import METRICS, NETWORKS, TASK_SETTINGS, WITHOUT_LABELS, TaskRow
from zeroq import devices
from zeroq.accuracy import model_subject
from zeroq.channels import CENTRES, FACTORS
from zeroq.divergence import Comparison, Meaning
from zeroq.divergence.channels import ChannelErrors
from zeroq.divergence.detections import detections_of, same_detections
from zeroq.evaluate import TASKS, Data, Predict, onnx_predictor
from zeroq.evaluate.detection import AveragePrecision
from zeroq.evaluate.segmentation import Overlap
from zeroq.graph import capture, fold
from zeroq.models import LoadedModel, load_model
from zeroq.numbers.operators import DEQUANTIZE
from zeroq.pipeline import Run, quantize_model
from zeroq.repair import centre, scaled
from zeroq.stored import numbers_from_json
from zeroq.whole_files import json_bytes, read_json

HALVES = {"all": slice(None), "even": slice(0, None, 2), "odd": slice(1, None, 2)}  # places
FLOAT, QUANTIZED, WEIGHTS = "float", "quantized", "weights"
WORST = 12  # layers that are listed


def main() -> None:
    asked = row_parser("benchmarks.task_measure", "network", "setting", data=True).parse_args()
    row = TaskRow(asked.network, asked.setting)
    model = load_model(f"{asked.data / 'networks' / row.network}.py:{row.network}")
    run = quantize_model(model, row.options(threads=asked.threads), shared_run(row))
    with devices.threads(asked.threads):
        record = measure(row, model, run, asked.data)
    asked.out.write_bytes(json_bytes(record))


def measure(row: TaskRow, model: LoadedModel, run: Run, folder: Path) -> dict[str, Any]:
    """All that the tables say of a run, as plain JSON; where the loss arises for the settings of benchmarks.tasks."""
    subject = model_subject(model, None)
    data = TASKS[subject.meaning.task].open(
        folder / NETWORKS[row.network], model.picture(), subject.meaning, subject.classes
    )
    networks: dict[str, Predict] = {
        FLOAT: subject.predict,
        QUANTIZED: onnx_predictor(run.directory / "model.onnx", torch.get_num_threads()),
    }
    if row.setting == MIXED:
        networks[WEIGHTS] = weights_alone(model, run)
    outputs = {name: answers(network, data) for name, network in networks.items()}
    figures = figures_of(row, subject.meaning, data, outputs)
    return {
        **told_by(run, model),
        "task": subject.meaning.task,
        "metric": METRICS[row.network],
        "sets": {
            half: compared(subject.meaning, figures, outputs, range(len(data))[rows]) for half, rows in HALVES.items()
        },
        **(where_it_arises(run, outputs) if row.setting in TASK_SETTINGS else {}),
    }


def where_it_arises(run: Run, outputs: dict[str, list[Any]]) -> dict[str, Any]:
    """Errors of each output of the network, and the layers that cost most."""
    return {"outputs": by_output(outputs[FLOAT], outputs[QUANTIZED]), "worst_layers": worst_layers(run.result)}


def answers(network: Predict, data: Data) -> list[Any]:
    """The outputs of a network for each picture, one at a time."""
    with torch.inference_mode():
        return [network(inputs) for inputs, _ in data.batches(1)]


def weights_alone(model: LoadedModel, run: Run) -> Predict:
    """The network with the run's weights, everything else in floating point: what activations cost is the rest."""
    network = fold(
        capture(model.module, torch.randn(2, *model.input_shape, generator=torch.Generator().manual_seed(0)))
    )
    for name, changed_by in ((CENTRES, centre), (FACTORS, scaled)):
        if (run.directory / name).is_file():
            network = changed_by(network, numbers_from_json(read_json(run.directory / name)))
    stored = run.model
    assert isinstance(stored, nn.Module)
    tensors = stored.state_dict()
    tensors = {name.removeprefix("graph_module."): tensor for name, tensor in tensors.items()}
    changed = {
        layer.weight: DEQUANTIZE(tensors[f"{layer.weight}_integers"], tensors[f"{layer.weight}_scale"])
        for layer in network.layers
        if f"{layer.weight}_integers" in tensors
    }
    return network.with_tensors(changed).run


def figures_of(row: TaskRow, meaning: Meaning, data: Data, outputs: dict[str, list[Any]]) -> dict[str, Figure]:
    """The metric of each network as a function of pictures."""
    if row.network in WITHOUT_LABELS:
        return {name: f1(detection_counts(meaning, outputs[FLOAT], each)) for name, each in outputs.items()}
    return {name: labelled_figure(meaning, data, each) for name, each in outputs.items()}


def labelled_figure(meaning: Meaning, data: Any, outputs: list[Any]) -> Figure:
    """mAP or mIoU against the labels."""
    truths = [truth for _, truth in data.batches(1)]
    if meaning.task == "detection":
        score = AveragePrecision(data, meaning.decode)
        for output, truth in zip(outputs, truths, strict=True):
            score.add(output, truth)
        return mean_average_precision(score.evaluator())
    overlaps = Overlap(data, meaning.ignore)
    pairs = zip(outputs, truths, strict=True)
    return mean_overlap(torch.stack([matrix for output, truth in pairs for matrix in overlaps.matrices(output, truth)]))


def detection_counts(meaning: Meaning, reference: list[Any], outputs: list[Any]) -> Tensor:
    """Pairs, detections expected and found of each picture, int64 [pictures, 3]."""
    pairs = zip(reference, outputs, strict=True)
    decoded = [(detections_of(meaning.decode, a)[0], detections_of(meaning.decode, b)[0]) for a, b in pairs]
    return torch.tensor([same_detections(*pair) for pair in decoded])


def compared(
    meaning: Meaning, figures: dict[str, Figure], outputs: dict[str, list[Any]], places: range
) -> dict[str, Any]:
    """Float and quantized network on some of the pictures."""
    comparison = Comparison(meaning)
    for place in places:
        comparison.add(outputs[FLOAT][place], outputs[QUANTIZED][place])
    found: dict[str, Any] = {name: figure(places) for name, figure in figures.items()}
    return {
        "pictures": len(places),
        **found,
        **asdict(bootstrapped(figures[FLOAT], figures[QUANTIZED], places)),
        "agreement": comparison.agreement,
        "mean_divergence": comparison.divergence,
    }


def by_output(reference: list[Any], outputs: list[Any]) -> list[dict[str, float]]:
    """Squared error over variance of each output of the network: mean and largest of its channels."""
    errors = ChannelErrors()
    for pair in zip(reference, outputs, strict=True):
        errors.add(*pair)
    return [
        {"channels": len(ratio), "mean": float(ratio.mean()), "largest": float(ratio.max())}
        for ratio in errors.channels()
    ]


def worst_layers(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Layers whose rounding alone costs most at the width that they were given, with their share of the sum."""
    costs = {layer["name"]: layer["sensitivity"].get(str(layer["weight_bits"]), 0.0) for layer in result["layers"]}
    total = sum(costs.values())
    chosen = sorted(result["layers"], key=lambda layer: -costs[layer["name"]])[:WORST] if total else []
    return [
        {name: layer[name] for name in ("name", "parameters", "weight_bits")}
        | {"sensitivity": costs[layer["name"]], "share": costs[layer["name"]] / total}
        for layer in chosen
    ]


if __name__ == "__main__":
    main()

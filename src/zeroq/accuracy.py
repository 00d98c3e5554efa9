"""evaluate(): a run, an ONNX file or a network in floating point, on labelled data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import zeroq.devices as devices
from zeroq.deploy.model_file import load_network
from zeroq.errors import DataError, ModelError, OptionError
from zeroq.evaluate import evaluate as measure
from zeroq.evaluate import onnx_predictor, open_data, preprocessing_of, task_named
from zeroq.evaluate.predict import metadata_of
from zeroq.models import LoadedModel, load_model
from zeroq.models.digits import load_test_split
from zeroq.models.inputs import read_preprocessing
from zeroq.preprocessing import Preprocessing
from zeroq.run_directory import RECORD, read_json
from zeroq.stages import FILES

BATCH = 32
Predict = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Subject:
    """What is evaluated: how it answers, how pictures become its input, and which float network it came from."""

    predict: Predict
    classes: int
    preprocessing: Preprocessing
    task: str
    reference: LoadedModel | None


def evaluate(
    target: str,
    *,
    data: str,
    weights: Path | None = None,
    preprocess: Path | None = None,
    batch: int | None = None,
    threads: int | None = None,
    reference: str | None = None,
    simulation: bool = False,
    on_progress: Callable[[str, int, int], None] | None = None,
) -> dict[str, Any]:
    """Accuracy of RUN, FILE.onnx or MODEL; the keys are those of `zeroq evaluate --json`.

    data: a folder of class folders, an npz, or "digits".  reference: MODEL in floating point for agreement and
    divergence; by default what the run says it came from, if its weights are the same.
    """
    with devices.threads(threads):
        subject = find_subject(target, weights, preprocess, threads, reference, simulation)
        task_named(subject.task)
        source = load_test_split() if data == "digits" else Path(data)
        labelled = open_data(source, subject.preprocessing, subject.classes)
        done = 0

        def step(images: int) -> None:
            nonlocal done
            done += images
            if on_progress is not None:
                on_progress("evaluate", done, len(labelled))

        return measure(
            subject.predict,
            labelled,
            task=subject.task,
            batch=batch or BATCH,
            reference=None if subject.reference is None else in_inference(subject.reference.module),
            on_step=step,
        )


def find_subject(
    target: str,
    weights: Path | None,
    preprocess: Path | None,
    threads: int | None,
    reference: str | None,
    simulation: bool,
) -> Subject:
    """RUN is a directory, FILE.onnx a file; anything else is a MODEL."""
    path = Path(target)
    against = load_model(reference, weights=weights, preprocess=preprocess) if reference is not None else None
    override = None if preprocess is None else read_preprocessing(preprocess)
    if path.is_dir():
        return run_subject(path, threads, against, override, simulation, weights)
    if simulation:
        raise OptionError(
            f"--simulation is about a run, and {target} is none: leave it out, or name the run directory."
        )
    if path.suffix == ".onnx":
        return file_subject(path, threads, against, override)
    model = load_model(target, weights=weights, preprocess=preprocess)
    return Subject(
        in_inference(model.module), classes_of(model), model.picture(), model.task or "classification", against
    )


def run_subject(
    directory: Path,
    threads: int | None,
    against: LoadedModel | None,
    override: Preprocessing | None,
    simulation: bool,
    weights: Path | None,
) -> Subject:
    """A run's file in onnxruntime, or its simulation."""
    if not (directory / RECORD).is_file():
        raise ModelError(f"{directory} is no run directory, as it holds no {RECORD}: give what --out named.")
    record = read_json(directory / RECORD)
    onnx_file = onnx_predictor(directory / FILES["onnx"], threads)  # refuses what takes other than one picture
    preprocessing = override or Preprocessing.from_dict(record["preprocess"])
    against = against or float_network(record, weights)
    predict: Predict = onnx_file
    if simulation:
        predict = in_inference(load_network(directory / FILES["model"])[0])
    return Subject(
        predict, classes_in(onnx_file.output_shape, directory / FILES["onnx"]), preprocessing, record["task"], against
    )


def float_network(record: dict[str, Any], weights: Path | None) -> LoadedModel | None:
    """The network that a run came from; None where it was given as a module or cannot be found any more.

    Raises ModelError where it is there but has other weights.
    """
    stored = weights or (Path(record["weights"]) if record["weights"] else None)
    try:
        model = load_model(record["model"], weights=stored, input_shape=tuple(record["input_shape"]))
    except ModelError:
        return None
    if model.weights_sha256 != record["weights_sha256"]:
        raise ModelError(
            f"{record['model']} has other weights than the run was made from: give the same with --weights, "
            "or name another float network with --reference."
        )
    return model


def file_subject(
    path: Path, threads: int | None, against: LoadedModel | None, override: Preprocessing | None
) -> Subject:
    """An ONNX file, of ours or not."""
    predict = onnx_predictor(path, threads)
    preprocessing = override or preprocessing_of(path)
    if preprocessing is None:
        raise DataError(f"{path} does not say how pictures become its input: add --preprocess FILE.json.")
    task = metadata_of(path).get("task", "classification")
    return Subject(predict, classes_in(predict.output_shape, path), preprocessing, task, against)


def classes_in(shape: Sequence[int | str | None], path: Path) -> int:
    """Number of classes of a file's output, [N, K]."""
    if len(shape) != 2 or not isinstance(shape[1], int):
        raise DataError(f"{path} does not give class scores [N, K]: other tasks cannot be evaluated yet.")
    return shape[1]


def classes_of(model: LoadedModel) -> int:
    """Number of classes that a classifier tells apart."""
    model.picture()
    with torch.inference_mode():
        output = model.module(torch.zeros(2, *model.input_shape))
    if not isinstance(output, Tensor) or output.dim() != 2:
        raise ModelError(f"{model.name} does not give class scores [N, K]: other tasks cannot be evaluated yet.")
    return int(output.shape[1])


def in_inference(module: nn.Module) -> Predict:
    """A module as a function that keeps no gradients."""

    def predict(inputs: Tensor) -> Tensor:
        with torch.inference_mode():
            output: Tensor = module(inputs)
            return output

    return predict

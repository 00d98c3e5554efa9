"""evaluate(): a run, an ONNX file or a network in floating point, on labelled data."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

import zeroq.devices as devices
from zeroq.deploy.model_file import load_network
from zeroq.divergence import Meaning
from zeroq.divergence.channels import tensors_of
from zeroq.errors import CaptureError, DataError, ModelError, OptionError, ZeroqError
from zeroq.evaluate import TASKS, metadata_of, onnx_predictor, preprocessing_of
from zeroq.evaluate import evaluate as measure
from zeroq.graph import capture
from zeroq.graph.canonical import plain
from zeroq.models import LoadedModel, load_model
from zeroq.models.digits import load_test_split
from zeroq.models.inputs import read_preprocessing
from zeroq.models.meaning import Reading, meaning_of, stated
from zeroq.models.outputs import check_outputs
from zeroq.preparation import example_of, understood
from zeroq.preprocessing import Preprocessing
from zeroq.report.asked import in_python
from zeroq.run_directory import read_record
from zeroq.stages import FILES

BATCH = 32
SCORES = {"classification": "[N, K]", "segmentation": "[N, K, H, W]"}
Predict = Callable[[Tensor], Any]


@dataclass(frozen=True)
class Subject:
    """What is evaluated: how it answers, what that means, how pictures become its input, which float network it is of.

    classes: that it tells apart; 0 where its task has none.  warnings: what was guessed.
    """

    predict: Predict
    classes: int
    preprocessing: Preprocessing
    meaning: Meaning
    reference: LoadedModel | None
    warnings: tuple[str, ...] = ()


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
    on_warning: Callable[[str], None] = lambda sentence: None,
) -> dict[str, Any]:
    """Accuracy of RUN, FILE.onnx or MODEL; the keys are those of `zeroq evaluate --json`.

    data: a folder or an npz file, by the task, or "digits".  reference: MODEL in floating point for agreement and
    divergence; by default what the run says it came from, if its weights are the same.
    """
    with devices.threads(threads):
        subject = find_subject(target, weights, preprocess, threads, reference, simulation)
        for sentence in subject.warnings:
            on_warning(sentence)
        source = load_test_split() if data == "digits" else Path(data)
        task = TASKS[subject.meaning.task]
        labelled = task.open(source, subject.preprocessing, subject.meaning, subject.classes)
        done = 0

        def step(images: int) -> None:
            nonlocal done
            done += images
            if on_progress is not None:
                on_progress("evaluate", done, len(labelled))

        return measure(
            subject.predict,
            labelled,
            meaning=subject.meaning,
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
        if weights is not None and reference is None:
            raise OptionError("--weights are those of a float network: name it with --reference, or leave them out.")
        return file_subject(path, threads, against, override)
    return model_subject(load_model(target, weights=weights, preprocess=preprocess), against)


def model_subject(model: LoadedModel, against: LoadedModel | None) -> Subject:
    """A network in floating point."""
    preprocessing = model.picture()
    predict = in_inference(model.module)
    output = predict(torch.zeros(2, *model.input_shape))
    check_outputs(output, model.task)
    meaning, guessed = read_as(model, output)
    classes = classes_in(tensors_of(output)[0].shape, meaning.task, model.name)
    return Subject(predict, classes, preprocessing, meaning, against, tuple(guessed))


def read_as(model: LoadedModel, output: Any) -> tuple[Meaning, list[str]]:
    """What an output means, as `zeroq quantize` would read it, and a warning where that was guessed.

    Of a network that cannot be captured, which is not quantized either, by the output alone.
    """
    if model.task is None and isinstance(output, Tensor):
        with suppress(CaptureError):
            return understood(model, capture(model.module, example_of(model)))
    return meaning_of(model.task, model.reading, output)


def run_subject(
    directory: Path,
    threads: int | None,
    against: LoadedModel | None,
    override: Preprocessing | None,
    simulation: bool,
    weights: Path | None,
) -> Subject:
    """A run's file in onnxruntime, or its simulation."""
    record = read_record(directory, [FILES["onnx"]])
    onnx_file = onnx_predictor(directory / FILES["onnx"], threads)  # refuses what takes other than one picture
    preprocessing = override or Preprocessing.from_dict(record["preprocess"])
    warnings: tuple[str, ...] = ()
    if against is None:
        try:
            against = float_network(record, weights)
        except ModelError as error:
            if weights is not None:
                raise
            warnings = unheld(record, error)
    meaning = meaning_by(record["task"], record.get("ignore"), against, directory)
    classes = classes_in(onnx_file.output_shape, meaning.task, directory / FILES["onnx"])
    predict: Predict = onnx_file
    if simulation:
        predict = in_inference(load_network(directory / FILES["model"])[0])
    return Subject(in_form_of(predict, against), classes, preprocessing, meaning, against, warnings)


class OtherWeightsError(ZeroqError):
    """The network that a run came from is there, and has changed: no ModelError, of which it is not found."""


def unheld(record: dict[str, Any], error: ModelError) -> tuple[str, ...]:
    """The warning where agreement with the float network cannot be measured; there is none to load of a module."""
    if in_python(record):
        return ()
    return (
        f"The float network {record['model']} is not found from here, so agreement with it is not measured ({error}): "
        "run this where the network was quantized, or name it with --reference.",
    )


def float_network(record: dict[str, Any], weights: Path | None) -> LoadedModel:
    """The network that a run came from.

    Raises ModelError where it was given as a module or cannot be found any more, OtherWeightsError where it is there
    but has other weights.
    """
    if in_python(record):
        raise ModelError(f"{record['model']} was quantized as a module in Python, which no command can load again.")
    stored = weights or (Path(record["weights"]) if record["weights"] else None)
    how = None if record["preprocess"] is None else Preprocessing.from_dict(record["preprocess"])
    model = load_model(record["model"], weights=stored, preprocess=how)
    if model.weights_sha256 != record["weights_sha256"]:
        raise OtherWeightsError(
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
    says = metadata_of(path)
    stands_for = "classification" if against is None or against.task is None else against.task
    of_ours = says.get("task") in TASKS and "ignore" in says  # files of others may say something else by these names
    task, ignore = (says["task"], json.loads(says["ignore"])) if of_ours else (stands_for, None)
    meaning = meaning_by(task, ignore, against, path)
    classes = classes_in(predict.output_shape, meaning.task, path)
    return Subject(in_form_of(predict, against), classes, preprocessing, meaning, against)


def classes_of(model: LoadedModel) -> int:
    """Number of classes that a float network tells apart; 0 where its task has none."""
    return model_subject(model, None).classes


def meaning_by(task: str, ignore: int | None, against: LoadedModel | None, place: Path) -> Meaning:
    """The meaning of a file's output; functions are those of the float network."""
    reading = Reading() if against is None else against.reading
    if task == "detection" and reading.decode is None:
        raise ModelError(
            f"{place} is a detector's, and no decode says what its boxes are: name the FILE.py:FUNCTION that it was "
            "made from with --reference."
        )
    return stated(task, Reading(ignore, reading.decode, reading.divergence))


def classes_in(shape: Sequence[int | str | None], task: str, name: Path | str) -> int:
    """Number of classes of an output's scores, [N, K] or [N, K, H, W]; 0 where the task has none."""
    if task not in SCORES:
        return 0
    if len(shape) != len(SCORES[task].split(",")) or not isinstance(shape[1], int):
        raise ModelError(f"{name} does not give class scores {SCORES[task]}, which {task} needs: correct its TASK.")
    return shape[1]


def in_form_of(predict: Predict, against: LoadedModel | None) -> Predict:
    """The same outputs in the form in which the float network gives them, as `decode` takes them."""
    if against is None:
        return predict
    output = in_inference(against.module)(torch.zeros(2, *against.input_shape))
    form = pytree.tree_structure(output)

    def formed(inputs: Tensor) -> Any:
        leaves = pytree.tree_leaves(predict(inputs))
        return pytree.tree_unflatten(leaves, form) if len(leaves) == form.num_leaves else tuple(leaves)

    return formed


def in_inference(module: nn.Module) -> Predict:
    """A module as a function that keeps no gradients, and gives its outputs in the form that captured networks have."""

    def predict(inputs: Tensor) -> Any:
        with torch.inference_mode():
            return plain(module(inputs))

    return predict

"""benchmark(): a run's file beside the same network in floating point, in onnxruntime on this machine."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import onnx
import torch

import zeroq.devices as devices
from zeroq.accuracy import float_network
from zeroq.deploy.float_file import export_float, quantize_statically
from zeroq.deploy.timing import Timing, interleaved
from zeroq.deploy.verify import open_session
from zeroq.errors import ModelError, OptionError
from zeroq.evaluate import calibration_pictures
from zeroq.graph import Inputs, Network, as_inputs, as_tuple, capture
from zeroq.models import LoadedModel
from zeroq.models.several import image_names
from zeroq.numbers.tensor_file import read_tensor_file
from zeroq.preparation import CALIBRATION_PICTURES, example_of
from zeroq.reason import reason
from zeroq.run_directory import read_record
from zeroq.stages import FILES
from zeroq.whole_files import read_object

FLOAT, QUANTIZED, STATIC = "float", "quantized", "onnxruntime_static"
DISTILLED = "distilled"
BATCHES = (1, 32)
NAMED = 6  # operators in a warning
ADVICE = " zeroq quantize --fastest finds layers that are faster in floating point here."

OnProgress = Callable[[str, int, int], None]


def benchmark(
    directory: Path,
    *,
    batch: Sequence[int] = BATCHES,
    threads: int | None = None,
    static: str | None = None,
    on_progress: OnProgress = lambda stage, done, total: None,
) -> dict[str, Any]:
    """Milliseconds of a run's file and of the float network's, interleaved; keys are those of `benchmark --json`.

    static: "distilled" or a folder of pictures, for the ranges of onnxruntime's own static quantization, beside it.
    Raises RunError where the directory is no finished run, ModelError where its float network is not at hand.
    """
    record, network, model = opened(directory)
    result = read_object(directory / "result.json")
    count = threads or devices.cores()
    with tempfile.TemporaryDirectory(prefix="zeroq-benchmark-") as name, devices.threads(count):
        folder = Path(name)
        files = {FLOAT: folder / "float.onnx", QUANTIZED: directory / FILES["onnx"]}
        on_progress("files", 0, 2)
        onnx.save(export_float(network), files[FLOAT])
        on_progress("files", 1, 2)
        if static is not None:
            files[STATIC] = folder / "static.onnx"
            images = images_of(directory, static, model, network, record)
            quantize_statically(files[FLOAT], images, files[STATIC], folder)
        on_progress("files", 2, 2)
        rows, load = timed(files, network, batch, count, on_progress)
    fastest = bool(record["options"].get("fastest"))
    return {
        "cpu": devices.processor(),
        "integer_instructions": devices.integer_instructions(),
        "threads": count,
        "rows": rows,
        "load_ms": load,
        "float_nodes": result["float_nodes"],
        "warnings": warnings_of(rows, result["float_nodes"], fastest=fastest),
    }


def opened(directory: Path) -> tuple[dict[str, Any], Network, LoadedModel]:
    """What run.json holds, and the float network that the run was made from."""
    record = read_record(directory, ["result.json", FILES["onnx"]])
    try:
        model = float_network(record, None)
    except ModelError as error:
        raise ModelError(
            f"{directory} is timed beside the network that it was made from in floating point, which is not at hand: "
            f"{error}"
        ) from error
    return record, capture(model.module, example_of(model)), model


def images_of(
    directory: Path, static: str, model: LoadedModel, network: Network, record: dict[str, Any]
) -> Inputs:
    """Images for onnxruntime's ranges: the run's own, or a folder's."""
    if static != DISTILLED:
        return calibration_pictures(Path(static), model.picture(), CALIBRATION_PICTURES, int(record["options"]["seed"]))
    path = directory / FILES["images"]
    if not path.is_file():
        raise OptionError(f"{directory} keeps no distilled images: name a folder of pictures with --static FOLDER.")
    stored = read_tensor_file(path)[0]
    return as_inputs([stored[name] for name in image_names(network.example, model.preprocessing)])


def timed(
    files: dict[str, Path], network: Network, batches: Sequence[int], threads: int, on_progress: OnProgress
) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Rows of the table, and milliseconds that each file takes to load."""
    load, sessions = {}, {}
    for name, path in files.items():
        stored = path.read_bytes()
        begin = time.perf_counter()
        try:
            sessions[name] = open_session(stored, threads, spinning=False)
        except Exception as error:  # onnxruntime's errors share no base
            raise ModelError(f"onnxruntime cannot load {path} ({reason(error)}): quantize again.") from error
        load[name] = round(1000 * (time.perf_counter() - begin), 2)
    names = [each.name for each in sessions[QUANTIZED].get_inputs()]
    rows = []
    for done, size in enumerate(batches, 1):
        examples = as_tuple(batch_of(network, size))
        feed = {name: value.numpy() for name, value in zip(names, examples, strict=True)}
        rows += [row(name, size, timing) for name, timing in interleaved(sessions, feed).items()]
        on_progress("batches", done, len(batches))
    return rows, load


def batch_of(network: Network, size: int) -> Inputs:
    """The network's example inputs again and again, so many of them: how long integers take hangs on no value."""
    return as_inputs([torch.cat([value] * -(-size // len(value)))[:size] for value in network.example])


def row(name: str, size: int, timing: Timing) -> dict[str, Any]:
    """One file at one batch."""
    numbers = {"median_ms": timing.median, "low_ms": timing.low, "high_ms": timing.high}
    return {"file": name, "batch": size, **{key: round(value, 4) for key, value in numbers.items()}}


def warnings_of(rows: Sequence[dict[str, Any]], float_nodes: dict[str, int], *, fastest: bool = False) -> list[str]:
    """Where integers are not faster than floating point, with what did not become integers.

    fastest: the run was made with --fastest, and there is no need to speak of it.
    """
    found = []
    times = {(each["file"], each["batch"]): each["median_ms"] for each in rows}
    for size in dict.fromkeys(each["batch"] for each in rows):
        quantized, floating = times[QUANTIZED, size], times[FLOAT, size]
        if quantized >= floating:
            most = sorted(float_nodes.items(), key=lambda item: -item[1])[:NAMED]
            named = ", ".join(f"{count} {name}" for name, count in most)
            found.append(
                f"At batch {size} the quantized file takes {quantized:.3g} ms and the float file {floating:.3g} ms: "
                + (f"in floating point it computes {named}." if named else "all of it computes in integers.")
                + ("" if fastest else ADVICE)
            )
    return found

"""What a person sees in the terminal: progress on standard error, a run's and an evaluation's figures as tables."""

from __future__ import annotations

import shlex
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from zeroq.preprocessing import Preprocessing
from zeroq.report.words import TASKS, stage_seconds

OnProgress = Callable[[str, int, int], None]  # stage, done, total
SHARES = ("top1", "top5", "standard_error", "miou", "pixel_accuracy", "map", "map50", "agreement")

BOUNDS = {  # what each is called, and its unit
    "bit_operations": ("bit operations of an image", "x 10^9"),
    "activation_mb": ("peak of activations", "MB"),
    "latency_ms": ("latency of an image", "ms"),
}


@contextmanager
def progress(quiet: bool) -> Iterator[OnProgress]:
    """Show how far each stage is: a bar in a terminal, one line for each finished stage elsewhere.

    Meanwhile, what libraries and a user's own file print on standard output goes to standard error, so that results
    stand there alone.
    """
    console = Console(file=sys.stderr)
    with redirect_stdout(sys.stderr):
        if quiet:
            yield lambda stage, done, total: None
        elif console.is_terminal:
            with _bars(console) as on_progress:
                yield on_progress
        else:
            yield _lines(console)


@contextmanager
def _bars(console: Console) -> Iterator[OnProgress]:
    columns = TextColumn("{task.description:12}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    tasks: dict[str, TaskID] = {}
    with Progress(*columns, console=console) as bars:

        def on_progress(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total)
            bars.update(tasks[stage], completed=done, total=total)

        yield on_progress


def _lines(console: Console) -> OnProgress:
    began: dict[str, float] = {}

    def on_progress(stage: str, done: int, total: int) -> None:
        begin = began.setdefault(stage, time.monotonic())
        if done == total:
            console.print(f"{stage}: {done} of {total}, {time.monotonic() - begin:.1f} s", highlight=False)

    return on_progress


def warn(sentence: str) -> None:
    """A warning on standard error."""
    Console(file=sys.stderr, highlight=False).print(f"warning: {sentence}", markup=False, soft_wrap=True)


def show_run(result: Mapping[str, Any], directory: Path, preprocessing: Preprocessing | None = None) -> None:
    """The figures of result.json that a person asks for first, how a picture becomes its input, and warnings."""
    console = Console(file=sys.stdout, highlight=False)
    rows = list(run_rows(result))
    if preprocessing is not None:
        rows.append(("a picture becomes", input_of(preprocessing)))
    console.print(_table(str(result["model"]), rows))
    for warning in result["warnings"]:
        console.print(f"warning: {warning}", markup=False)
    console.print(f"report: {directory / 'report.html'}", markup=False, soft_wrap=True)


def show_summary(summary: Mapping[str, Any], directory: Path) -> None:
    """One line for each of many networks."""
    table = Table(title=Text(str(summary["setting"])), title_justify="left")
    for name in ("run", "file", "of float", "bits", "agreement", "time"):
        table.add_column(name, justify="left" if name == "run" else "right")
    for entry in summary["models"]:
        title = Text(entry["directory"])
        if entry["error"] is not None:
            table.add_row(title, "failed", "", "", "", "")
            continue
        seconds = sum(stage_seconds(entry["seconds"]).values())
        size, ratio = entry["onnx_bytes"], entry["float_bytes"] / entry["onnx_bytes"]
        table.add_row(
            title, megabytes(size), f"1 / {ratio:.1f}", f"{entry['average_bits']:.2f}",
            share(entry["divergence"]["agreement"]), f"{seconds:.1f} s",
        )  # fmt: skip
    console = Console(file=sys.stdout, highlight=False)
    console.print(table)
    console.print(f"summary: {directory / 'summary.html'}", markup=False, soft_wrap=True)


def run_rows(result: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Name and text of each figure of a run."""
    yield "size in float", megabytes(result["float_bytes"])
    yield (
        "size of model.onnx",
        f"{megabytes(result['onnx_bytes'])}, 1 / {result['float_bytes'] / result['onnx_bytes']:.1f}",
    )
    yield "bits of a weight, mean", f"{result['average_bits']:.2f}, {layers_by_width(result)}"
    if any("activation_sensitivity" in layer for layer in result["layers"]):
        yield "bits of an input", layers_by_width(result, "activation_bits")
    for name, bound in result["bounds"].items():
        what, unit = BOUNDS[name]
        yield what, f"{bound['reached']:.4g} {unit}, asked for at most {bound['asked']:g}"
    if (expected := result["forecast"]) is not None:
        drop, low, high = (f"{100 * expected[key]:.1f}" for key in ("drop", "low", "high"))
        text = f"{drop} points, {low} to {high}; labelled pictures measure it"
        yield f"{expected['metric']} to lose, by forecast", text
    divergence = result["divergence"]
    agreement, images = share(divergence["agreement"]), divergence["images"]
    yield TASKS[result["task"]].agreement, f"{agreement}, on {images} held-out image{'s' if images > 1 else ''}"
    yield "divergence from float", f"{divergence['mean']:.2g}"
    counted = "of the multiply-accumulates of convolutions, linear layers and products"
    yield "in integers", f"{share(result['integer_share'])} {counted}"
    for layer in result["not_quantized"]:
        yield "stays in float", f"{layer['name']}: {layer['reason']}"
    if "fastest" in result:
        yield "fastest", result["fastest"]["note"]
    yield "file equals simulation", share(result["verification"]["agreement"])
    yield "load time of the file", f"{1000 * result['seconds']['load']:.0f} ms"
    yield "time", stage_times(result)


def input_of(preprocessing: Preprocessing) -> str:
    """What is done to a picture, in one line."""
    (height, width), resize = preprocessing.size, preprocessing.resize
    shape = {
        None: f"scaled to cover {height} x {width}, centre cropped",
        "stretch": f"stretched to {height} x {width}",
        "letterbox": f"fitted into {height} x {width} on black",
    }.get(resize, f"shorter side {resize}, centre cropped to {height} x {width}")  # type: ignore[arg-type]
    numbers = [", ".join(f"{value:.4g}" for value in values) for values in (preprocessing.mean, preprocessing.std)]
    parts = (shape, preprocessing.interpolation, preprocessing.channels or f"{preprocessing.channel_count} channels")
    return f"{', '.join(parts)}, pixel / 255 less {numbers[0]} over {numbers[1]}"


def show_evaluation(result: Mapping[str, Any], target: str) -> None:
    """Every figure of an evaluation that there is, beside the float network's; shares in percent."""
    of_float = result["float"] or {}

    def text(name: str) -> str:
        found = [figures[name] for figures in (result, of_float) if name in figures]
        return ", in float ".join(share(value) if name in SHARES else _plain(value) for value in found)

    rows = (
        (name.replace("_", " "), text(name)) for name, value in result.items() if value is not None and name != "float"
    )
    Console(file=sys.stdout, highlight=False).print(_table(target, rows))


def show_restatistic(result: Mapping[str, Any]) -> None:
    """What was measured again, and the command that goes on from there."""
    console = Console(file=sys.stdout, highlight=False)
    mean, deviation = (",".join(f"{value:g}" for value in result[name]) for name in ("input_mean", "input_std"))
    rows = [
        ("BatchNorms measured", f"{result['batchnorms']}, on {result['images']} pictures"),
        ("weights", str(result["file"])),
        ("mean of pixels", mean),
        ("deviation of pixels", deviation),
    ]
    console.print(_table(str(result["model"]), rows))
    for warning in result["warnings"]:
        console.print(f"warning: {warning}", markup=False)
    words = ["zeroq", "quantize", result["model"], "--weights", result["file"], *result["given"]]
    words += ["--input-mean", mean, "--input-std", deviation]
    console.print(f"next: {shlex.join(map(str, words))}", markup=False, soft_wrap=True)


FILES = {"float": "float", "quantized": "quantized", "onnxruntime_static": "onnxruntime's static"}


def show_benchmark(result: Mapping[str, Any], target: str) -> None:
    """Milliseconds of each file at each batch, and how many times as fast as floating point it is."""
    console = Console(file=sys.stdout, highlight=False)
    table = Table(title=Text(target), title_justify="left")
    for name in ("file", "batch", "ms, median", "10 to 90 %", "times as fast as float", "load, ms"):
        table.add_column(name, justify="left" if name == "file" else "right")
    float_ms = {row["batch"]: row["median_ms"] for row in result["rows"] if row["file"] == "float"}
    for row in result["rows"]:
        median, batch = row["median_ms"], row["batch"]
        table.add_row(
            FILES[row["file"]], str(batch), f"{median:.3g}", f"{row['low_ms']:.3g} to {row['high_ms']:.3g}",
            f"{float_ms[batch] / median:.2f}", f"{result['load_ms'][row['file']]:.3g}",
        )  # fmt: skip
    console.print(table)
    count = result["threads"]
    console.print(f"{result['cpu']}, {result['integer_instructions']}, {count} thread{'s' if count > 1 else ''}")
    for warning in result["warnings"]:
        console.print(f"warning: {warning}", markup=False)


def megabytes(count: float) -> str:
    """Bytes as megabytes of 10^6, as everywhere here."""
    return f"{count / 1e6:.3f} MB"


def share(fraction: float | None) -> str:
    """A fraction of one in percent, never 100 or 0 unless it is exactly that; null where it could not be measured."""
    if fraction is None:
        return "not measured"
    if 0.99995 <= fraction < 1:
        return "over 99.99 %"
    return "under 0.01 %" if 0 < fraction < 0.00005 else f"{100 * fraction:.2f} %"


def layers_by_width(result: Mapping[str, Any], of: str = "weight_bits") -> str:
    """How many layers have how many bits: "3 layers at 2, 5 at 8"."""
    widths = sorted(Counter(layer[of] for layer in result["layers"]).items())
    names = [" layer" if count == 1 else " layers" for _, count in widths[:1]] + [""] * (len(widths) - 1)
    return ", ".join(f"{count}{name} at {bits}" for name, (bits, count) in zip(names, widths, strict=True))


def stage_times(result: Mapping[str, Any]) -> str:
    """Seconds of every stage and their sum."""
    seconds = stage_seconds(result["seconds"])
    parts = ", ".join(f"{stage} {value:.1f}" for stage, value in seconds.items())
    return f"{sum(seconds.values()):.1f} s ({parts})"


def _table(title: str, rows: Iterable[tuple[str, str]]) -> Table:
    table = Table(title=Text(title), show_header=False, title_justify="left")
    table.add_column(no_wrap=True)
    table.add_column()
    for name, text in rows:
        table.add_row(name, Text(text))  # Text: brackets in a layer's name are no markup
    return table


def _plain(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)

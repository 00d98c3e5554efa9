"""From the record of a run to one page of HTML that needs nothing but itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

import zeroq.report.asked as asked
import zeroq.report.charts as charts
import zeroq.report.words as words
from zeroq.options import Options
from zeroq.preprocessing import Preprocessing
from zeroq.report.pictures import contact_sheet
from zeroq.report.record import RunRecord
from zeroq.report.snippet import LINES_FOR_ARRAYS, lines_to_run

BOUNDS = {  # what each is called, and its unit
    "bit_operations": ("bit operations", "10⁹ for each image"),
    "activation_mb": ("peak of activations", "MB at one time, for one image"),
    "latency_ms": ("latency", "ms for one image, measured on this machine"),
}
OWN = "your own divergence"
LEAST_AGREEMENT = 0.99  # below, verification warns
MOST_BEYOND_ONE_STEP = 0.05


@dataclass(frozen=True)
class Figure:
    """One large figure of the opening: the value, what it is, and how to read it."""

    value: str
    label: str
    note: str


@dataclass(frozen=True)
class Check:
    """One line of the verification, and whether it holds."""

    holds: bool
    text: str


def render(record: RunRecord) -> str:
    """The page, equal for equal records."""
    return environment().get_template("page.html.j2").render(values_of(record))


def environment() -> Environment:
    """Templates of this folder, with numbers as a person reads them."""
    made = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    for name in ("size", "compact", "number", "percent", "duration", "count_of"):
        made.filters[name] = getattr(words, name)
    return made


def values_of(record: RunRecord) -> dict[str, Any]:
    """All that the template shows."""
    run, result = record.run, record.result
    options = Options.of(**run["options"])
    sheet = contact_sheet(record.images)
    sources = {each["source"] for each in record.ranges["quantizers"].values()}
    distilled = options.iterations != 0 and not sources.isdisjoint(("distilled", "batchnorm"))
    return {
        "run": run,
        "result": result,
        "options": options,
        "asked": asked.sentence(options, distilled=distilled),
        "command": asked.command(run),
        "in_python": asked.in_python(run),
        "figures": figures(result, divergence_of(run)),
        "checks": checks(result),
        "portions": charts.file_portions(result),
        "times_smaller": words.number(result["float_bytes"] / result["onnx_bytes"]),
        "float_percent": round(100 * result["onnx_bytes"] / max(result["float_bytes"], result["onnx_bytes"]), 2),
        "frontier": charts.frontier_chart(
            record.frontier, sum(layer["parameters"] for layer in result["layers"]), result["onnx_bytes"]
        ),
        "depth": charts.depth_chart(result["layers"], record.sensitivity),
        "left_over": counted_in_part(record.frontier),
        "divergence": divergence_of(run),
        "measure": divergence_of(run) + remarks(record.sensitivity),
        "ranges": charts.range_chart(record.ranges["quantizers"]),
        "weighed": record.ranges.get("weighed", False),
        "sheet": sheet,
        "images_sentence": asked.images_sentence(options, len(sheet.addresses), distilled=distilled) if sheet else "",
        "times": charts.time_portions(result["seconds"]),
        "total_seconds": sum(words.stage_seconds(result["seconds"]).values()),
        "fastest": result.get("fastest", {}).get("note"),
        "float_operators": result["float_nodes"] if isinstance(result["float_nodes"], Mapping) else {},
        "one_picture": takes_one_picture(run),
        "input_shape": shape_of(run["input_shape"]),
        "snippet": lines_to_run(Preprocessing.from_dict(run["preprocess"]), result["task"])
        if takes_one_picture(run)
        else LINES_FOR_ARRAYS,
    }


def remarks(sensitivity: Mapping[str, Any]) -> str:
    """What is to be said of how sensitivities were measured."""
    nearest = ", rounded to nearest" if sensitivity["measure"] == "kl" else ""
    derived, coarse = (" and ".join(map(str, sensitivity.get(name, ()))) for name in ("derived", "coarse"))
    return (
        nearest
        + (f", at {derived} bits from the squared errors of the layer's output" if derived else "")
        + (f", at {coarse} bits computed in bf16" if coarse else "")
    )


def counted_in_part(frontier: Mapping[str, Any]) -> Mapping[str, float]:
    """By layer, what of its sensitivity the choice counted; nothing where all of it counted, or nothing was chosen."""
    left: Mapping[str, float] = frontier.get("left_over", {})  # runs of before have none
    return left if any(share < 1 for share in left.values()) else {}


def takes_one_picture(run: Mapping[str, Any]) -> bool:
    """Whether the network takes one picture, and not several inputs or other data."""
    return run["preprocess"] is not None and not isinstance(run["input_shape"][0], list)


def shape_of(shape: list[Any]) -> str:
    """An input's shape, "3 × 8 × 8"; those of several with commas between them."""
    if shape and isinstance(shape[0], list):
        return ", ".join(shape_of(each) for each in shape)
    return " × ".join(map(str, shape))


def divergence_of(run: Mapping[str, Any]) -> str:
    """By what outputs were compared."""
    return OWN if run.get("own_divergence") else words.TASKS[run["task"] or "regression"].divergence


def figures(result: Mapping[str, Any], compared: str) -> tuple[Figure, ...]:
    """The few figures that say what was reached; compared: the name of the divergence."""
    number, divergence, forecast = words.number, result["divergence"], result["forecast"]
    agreement = words.TASKS[result["task"] or "regression"].agreement
    images = words.count_of(divergence["images"], "held-out image")
    shown = [
        Figure(words.percent(divergence["agreement"]), "agreement", f"{agreement}, on {images}"),
        Figure(number(divergence["mean"]), "divergence", f"{compared}, from floating point; 0 is equal"),
        Figure(number(result["average_bits"]), "bits per weight", "on average; 32 in floating point"),
        Figure(f"{number(result['compression'])}×", "compression", "of the weights: 32 over their average bits"),
        Figure(
            words.percent(result["integer_share"]), "in integers",
            "of the multiply-accumulates of convolutions, linear layers and products",
        ),
        Figure(words.duration(sum(words.stage_seconds(result["seconds"]).values())), "time", f"on {result['cpu']}"),
    ]  # fmt: skip
    for name, bound in result.get("bounds", {}).items():  # runs of before have none
        label, unit = BOUNDS[name]
        shown.append(Figure(number(bound["reached"]), label, f"{unit}; at most {number(bound['asked'])} was asked for"))
    if forecast is not None:
        drop, low, high = (f"{100 * forecast[key]:.1f}".replace("-", "−") for key in ("drop", "low", "high"))
        note = f"to expect, {low} to {high}: a forecast from the divergence; labelled pictures measure it"
        shown.insert(0, Figure(drop, f"points of {forecast['metric']} lost", note))
    return tuple(shown)


def checks(result: Mapping[str, Any]) -> tuple[Check, ...]:
    """What the exporter verified, as sentences; none where nothing was verified."""
    verification = result["verification"]
    if not verification:
        return ()
    steps, beyond = verification["largest_steps"], verification["share_over_one_step"]
    same, plain = verification["agreement"], float(verification["optimised_equals_plain"])
    integer, floating = (words.count_of(count(result[key]), "operator") for key in ("integer_nodes", "float_nodes"))
    of = words.TASKS[result["task"] or "regression"].agreed
    run = "runs" if count(result["integer_nodes"]) == 1 else "run"
    explained = result["integer_share"] >= 1 or bool(result["not_quantized"])
    return (
        Check(steps <= 1 or beyond <= MOST_BEYOND_ONE_STEP, differences(steps, beyond)),
        Check(same >= LEAST_AGREEMENT, f"File and simulation agree on {words.percent(same)} {of}."),
        Check(plain >= LEAST_AGREEMENT, optimised(plain, of)),
        Check(explained, f"{integer} {run} in integers, {floating} in floating point."),
    )


def differences(steps: int, beyond: float) -> str:
    if steps == 0:
        return "Every operator of the file gives exactly the simulation's integers."
    if steps == 1:
        return "No operator of the file is more than one step of its integers off the simulation."
    share = words.percent(beyond)
    return (
        f"Operators of the file are up to {steps} steps off the simulation, {share} of their values by more than one."
    )


def optimised(plain: float, of: str) -> str:
    if plain == 1:
        return "The graph as onnxruntime optimises it answers like the plain one."
    return f"The graph as onnxruntime optimises it answers like the plain one on {words.percent(plain)} {of}."


def count(nodes: Any) -> int:
    """The number of operators, whether they are counted by kind or all together."""
    return sum(nodes.values()) if isinstance(nodes, Mapping) else int(nodes)

"""Geometry of the charts: values of a run to places in percent, which the template draws at any width."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from zeroq.report.axes import Axis, Tick, linear, logarithmic, square_root
from zeroq.report.words import compact, size, stage_seconds

MOST_BITS = 8
GIGA = 10**9
MOST_VERTICES = 300  # a frontier has thousands of points; more than a screen's columns show nothing new


@dataclass(frozen=True)
class Candidate:
    """A verified setting: predicted and measured divergence over its size, or over its bit operations."""

    name: str
    average_bits: float
    weight_bytes: float
    predicted: float | None
    measured: float | None
    chosen: bool
    x: float
    predicted_y: float | None
    measured_y: float | None


@dataclass(frozen=True)
class FrontierChart:
    """The exact frontier as a stepped line, candidates upon it, and the limit that was asked for."""

    path: str
    candidates: tuple[Candidate, ...]
    points: int
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    limit: Tick | None
    over: str  # what the axis shows
    gap: float | None  # that the best setting may be above the best that there is, where that is not known exactly


@dataclass(frozen=True)
class Dot:
    """Sensitivity of a layer at one width."""

    bits: int
    at: float
    chosen: bool
    value: float


@dataclass(frozen=True)
class LayerColumn:
    """One layer in the profile along the depth."""

    layer: Mapping[str, Any]
    bits_height: float
    weights_height: float
    dots: tuple[Dot, ...]


@dataclass(frozen=True)
class DepthChart:
    """Bits, sensitivity and number of weights of every layer, in the order of the network."""

    columns: tuple[LayerColumn, ...]
    widths: tuple[int, ...]
    bits_ticks: tuple[Tick, ...]
    sensitivity_ticks: tuple[Tick, ...]
    weights_ticks: tuple[Tick, ...]


@dataclass(frozen=True)
class RangeColumn:
    """One activation quantizer: its range as a bar from `at` upwards."""

    name: str
    low: float
    high: float
    bits: int
    source: str
    at: float
    height: float


@dataclass(frozen=True)
class RangeChart:
    """All activation ranges around a common zero."""

    columns: tuple[RangeColumn, ...]
    ticks: tuple[Tick, ...]
    sources: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Portion:
    """A part of a bar that shows a whole."""

    label: str
    key: str
    percent: float
    amount: str


def frontier_chart(frontier: Mapping[str, Any], weights: int, file_bytes: int) -> FrontierChart | None:
    """Size against predicted divergence, the latter logarithmic; None where nothing was there to choose.

    Bit operations take the place of the size where these alone were limited.
    weights: number of all quantized weights, from which a limit on average bits becomes a size.  file_bytes: of the
    chosen setting's file, by which a limit on the file becomes one on its weights.
    """
    operations = frontier.get("over") == "bit_operations"
    points = [(x / (1 if operations else 8), value) for x, value in frontier["points"]]
    if not points:
        return None
    settings = frontier["candidates"]
    beside = file_bytes - frontier["chosen"]["weight_bytes"]
    asked = frontier["limit"]
    limit = GIGA * asked["bit_operations"] if operations else limit_bytes(asked, weights, beside)
    sizes = [*(x for x, _ in points), *(place_of(setting, operations) for setting in settings), *filter(None, [limit])]
    measured = [setting[key] for setting in settings for key in ("sensitivity", "divergence")]
    heights = [y for _, y in points] + [value for value in measured if value is not None]
    label = compact if operations else size
    x_axis = size_axis(min(sizes), max(sizes), label)
    y_axis = logarithmic(heights)
    chosen = frontier["chosen"]["name"]
    return FrontierChart(
        path=stepped_path(sorted(points), x_axis, y_axis),
        candidates=tuple(
            candidate(setting, setting["name"] == chosen, x_axis, y_axis, operations) for setting in settings
        ),
        points=len(points),
        x_ticks=x_axis.ticks,
        y_ticks=y_axis.ticks,
        limit=Tick(x_axis.place(limit), label(limit)) if limit else None,
        over="bit operations of an image" if operations else "size of the weights",
        gap=frontier.get("optimum", {}).get("gap"),
    )


def place_of(setting: Mapping[str, Any], operations: bool) -> float:
    """Where a setting stands on the axis: bytes of its weights, or bit operations."""
    return float(GIGA * setting["bit_operations"] if operations else setting["weight_bytes"])


def limit_bytes(limit: Mapping[str, Any], weights: int, beside: float) -> float | None:
    """Bytes of weights that the target allows; beside: what the file holds beside them, whatever the setting."""
    if limit.get("average_bits") is not None:
        return limit["average_bits"] * weights / 8
    if limit.get("compression") is not None:
        return 4 * weights / limit["compression"]
    if limit.get("size_mb") is not None:
        return 1e6 * limit["size_mb"] - beside
    return None


def size_axis(low: float, high: float, label: Callable[[float], str]) -> Axis:
    """From `low` to `high`, with a margin on both sides so that marks at the ends are whole."""
    margin = 0.04 * ((high - low) or high)
    return linear(low - margin, high + margin, 6, label=label)


def candidate(
    setting: Mapping[str, Any], chosen: bool, x_axis: Axis, y_axis: Axis, operations: bool = False
) -> Candidate:
    predicted, measured = setting["sensitivity"], setting["divergence"]
    return Candidate(
        name=setting["name"],
        average_bits=setting["average_bits"],
        weight_bytes=setting["weight_bytes"],
        predicted=predicted,
        measured=measured,
        chosen=chosen,
        x=x_axis.place(place_of(setting, operations)),
        predicted_y=None if predicted is None else y_axis.place(predicted),
        measured_y=None if measured is None else y_axis.place(measured),
    )


def stepped_path(points: Sequence[tuple[float, float]], x_axis: Axis, y_axis: Axis) -> str:
    """SVG path in a box of 100 x 100, y downwards: from each size on, its divergence is the least that there is.

    Of points in the same column of the box only the last, lowest one is drawn.
    """
    columns: dict[int, tuple[float, float]] = {}
    for x, y in points:
        place = x_axis.place(x)
        columns[int(place * MOST_VERTICES / 100)] = (place, round(100 - y_axis.place(y), 2))
    (first_x, first_y), *others = columns.values()
    return f"M{first_x:g} {first_y:g}" + "".join(f"H{x:g}V{y:g}" for x, y in others)


def depth_chart(layers: Sequence[Mapping[str, Any]], sensitivity: Mapping[str, Any]) -> DepthChart:
    """The profile of bits, sensitivity and weights; without sensitivities that lane has no dots and no ticks."""
    table: Mapping[str, Mapping[str, float]] = sensitivity["layers"]
    values = [value for row in table.values() for value in row.values()]
    y_axis = logarithmic(values)
    weights_axis = linear(0, max((layer["parameters"] for layer in layers), default=1), 3, label=compact)
    columns = tuple(
        LayerColumn(
            layer=layer,
            bits_height=round(100 * layer["weight_bits"] / MOST_BITS, 2),
            weights_height=weights_axis.place(layer["parameters"]),
            dots=dots(table.get(layer["name"], {}), layer["weight_bits"], y_axis),
        )
        for layer in layers
    )
    return DepthChart(
        columns=columns,
        widths=tuple(sorted({layer["weight_bits"] for layer in layers}.union(map(int, sensitivity["widths"])))),
        bits_ticks=tuple(Tick(100 * bits / MOST_BITS, str(bits)) for bits in (2, 4, 6, 8)),
        sensitivity_ticks=y_axis.ticks if values else (),
        weights_ticks=weights_axis.ticks,
    )


def dots(row: Mapping[str, float], chosen: int, y_axis: Axis) -> tuple[Dot, ...]:
    """One dot a width, the chosen one last, so that it lies on top."""
    every = [Dot(int(width), y_axis.place(value), int(width) == chosen, value) for width, value in row.items()]
    return tuple(sorted(every, key=lambda dot: (dot.chosen, dot.bits)))


def range_chart(quantizers: Mapping[str, Mapping[str, Any]]) -> RangeChart:
    """Ranges side by side, in the order in which they were stored."""
    axis = square_root(
        min((quantizer["low"] for quantizer in quantizers.values()), default=0.0),
        max((quantizer["high"] for quantizer in quantizers.values()), default=1.0),
    )
    columns = []
    for name, quantizer in quantizers.items():
        low, high = quantizer["low"], quantizer["high"]
        at = axis.place(low)
        height = round(axis.place(high) - at, 2)
        columns.append(RangeColumn(name, low, high, quantizer["bits"], quantizer["source"], at, height))
    sources = [column.source for column in columns]
    return RangeChart(tuple(columns), axis.ticks, tuple((name, sources.count(name)) for name in sorted(set(sources))))


def file_portions(result: Mapping[str, Any]) -> tuple[Portion, ...]:
    """What the file consists of: weights by width, and the rest; percent of the file."""
    whole = result["onnx_bytes"]
    by_bits: dict[int, float] = {}
    for layer in result["layers"]:
        bits = layer["weight_bits"]
        by_bits[bits] = by_bits.get(bits, 0) + layer["parameters"] * bits / 8
    parts = [(f"{bits}-bit weights", f"w{bits}", count) for bits, count in sorted(by_bits.items())]
    rest = max(0.0, whole - sum(by_bits.values()))
    parts.append(("scales, biases, graph, floating point", "rest", rest))
    return tuple(Portion(label, key, round(100 * count / whole, 2), size(count)) for label, key, count in parts)


def time_portions(seconds: Mapping[str, float | None]) -> tuple[tuple[str, float, float], ...]:
    """(stage, seconds, percent of the longest), in the order of the stages."""
    known = stage_seconds(seconds)
    longest = max(known.values(), default=0) or 1
    return tuple((stage, spent, round(100 * spent / longest, 2)) for stage, spent in known.items())

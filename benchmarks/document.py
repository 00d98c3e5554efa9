"""docs/benchmarks.md from the results of all rows: values in, one text out."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Generic

from benchmarks import limits
from benchmarks.bootstrap import Difference
from benchmarks.halves import CONFIRMATION, SELECTION
from benchmarks.paired import PairedDifference
from benchmarks.process import AnyRow
from benchmarks.rows import DISTILLED, MIXED, NETWORKS, RANDOM, REAL, W4, W8, W8_NOT_PORTABLE, Row

Record = Mapping[str, Any]
STAGES = ("capture", "distill", "ranges", "sensitivity", "allocate", "rounding", "export", "verify", "report")
NOTHING = "–"
HEAD = """# Benchmarks

Written by `python -m benchmarks.accuracy --data ../shared/data`; change nothing here by hand.

Top-1 in per cent. The *selection* half is for choices of the method, limits are on the *confirmation* half (ImageNet
networks: another source of pictures; CIFAR networks: odd places of the test images). A difference is in points,
quantized minus float on the same pictures, with its paired 90 % interval. A limit is missed where that interval lies
wholly beyond it; the mean over all networks must hold as it stands, and is not judged before all are there. What is
evaluated is the ONNX file in onnxruntime. A result marked `stale` was measured with other options or another version
of the method.
"""


def document(found: Mapping[Row, Record], stale: Collection[Row], further: Sequence[str] = ()) -> str:
    """found: what each row's file holds.  stale: rows whose result no longer holds.  further: sections at the end."""
    results, failures = succeeded(found, stale)
    parts = [HEAD, machine(results.records.values()), *accuracy_of_w8(results), *mixed(results), *files(results)]
    parts += [*times(results), *portability(results), *further, *failed(failures)]
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


class Results(Generic[AnyRow]):
    """Rows that were measured."""

    def __init__(self, records: Mapping[AnyRow, Record], stale: frozenset[AnyRow]) -> None:
        self.records = records
        self.stale = stale

    def cell(self, row: AnyRow, text: Callable[[Record], str]) -> str:
        """What a row says, marked if it no longer holds."""
        if row not in self.records:
            return NOTHING
        return text(self.records[row]) + self.mark(row)

    def mark(self, *rows: AnyRow) -> str:
        """What follows a value that is made of these rows."""
        return " `stale`" if self.stale.intersection(rows) else ""

    def pair(self, first: AnyRow, second: AnyRow, role: str) -> PairedDifference | None:
        """Second minus first, of classifiers; None where one is missing."""
        if first not in self.records or second not in self.records:
            return None
        return limits.against_row(self.records[first], self.records[second], role)


def succeeded(found: Mapping[AnyRow, Record], stale: Collection[AnyRow]) -> tuple[Results[AnyRow], dict[AnyRow, str]]:
    """The rows that were measured, and why the others failed; found, stale: as document() has them."""
    records = {row: record for row, record in found.items() if record["error"] is None}
    failures = {row: str(record["error"]) for row, record in found.items() if record["error"] is not None}
    return Results(records, frozenset(stale)), failures


def machine(records: Iterable[Record]) -> str:
    """What the rows were measured on; several where they differ."""
    seen = list(records)
    if not seen:
        return "Nothing was measured yet."

    def several(value: Callable[[Record], str]) -> str:
        return "; ".join(sorted({value(record) for record in seen}))

    entries = {
        "processor": several(lambda r: f"{r['cpu']}, {r['integer_instructions']}"),
        "quantized on": several(lambda r: str(r.get("gpu") or "the processor")),
        "threads": several(lambda r: str(r["threads"])),
        "precision of the distillation": several(lambda r: str(r["precision"])),
        "versions": several(lambda r: ", ".join(f"{name} {version}" for name, version in r["versions"].items())),
    }
    return table(["", ""], [[name, value] for name, value in entries.items()])


def accuracy_of_w8(results: Results[Row]) -> list[str]:
    """Table 1."""
    rows = []
    for network in NETWORKS:
        row = Row(network, W8, DISTILLED)
        cells = [results.cell(row, text) for role in (SELECTION, CONFIRMATION) for text in versus_float(role)]
        rows.append([network, *cells, results.cell(row, near_float)])
    average = mean_row(results, W8, limits.W8_MEAN)
    header = ["network", "float", "W8A8", "difference, selection", "float", "W8A8", "difference, confirmation"]
    return [
        "## 1. W8A8",
        f"Limits, confirmation: within {-limits.W8_EACH:g} point of float, within {-limits.W8_MEAN:g} in the mean.",
        table([*header, "limit"], [*rows, *average]),
    ]


def near_float(record: Record) -> str:
    """Whether W8A8 keeps its limit."""
    return kept(not limits.missed(limits.against_float(record, CONFIRMATION), limits.W8_EACH))


def versus_float(role: str) -> list[Callable[[Record], str]]:
    """Cells: float, quantized, difference."""
    return [
        lambda record: top1(record, role, "float_top1"),
        lambda record: top1(record, role, "top1"),
        lambda record: interval(limits.against_float(record, role)),
    ]


def mean_row(results: Results[Row], setting: str, limit: float) -> list[list[str]]:
    """Means over the networks that were measured, and whether the limit of the confirmation half holds."""
    rows = shown(results, setting)
    records = [results.records[row] for row in rows]
    if not records:
        return []
    cells = []
    for role in (SELECTION, CONFIRMATION):
        for entry in ("float_top1", "top1"):
            cells.append(f"{statistics.mean(share(record, role, entry) for record in records):.2f}")
        cells.append(f"{statistics.mean(limits.against_float(record, role).difference for record in records):+.2f}")
    differences = [limits.against_float(record, CONFIRMATION).difference for record in records]
    return [[f"mean of {len(records)}{results.mark(*rows)}", *cells, judged(differences, limit)]]


def mixed(results: Results[Row]) -> list[str]:
    """Table 2, once for each half."""
    parts = [
        "## 2. Mixed 2, 4, 8 bits at an average of 4, A8",
        "Beside it: all weights at 4 bits (`--weight-bits 4 --edge-bits same`), and the mixed setting fitted on 64 "
        "real pictures, and on 64 of uniformly random pixels, in place of distilled ones. Limits, confirmation: not "
        "worse than uniform 4, each and in the mean; average bits at most 4 (exactly, not as printed).",
    ]
    for role in (CONFIRMATION, SELECTION):
        rows = [*mixed_rows(results, role), *mixed_mean(results, role)]
        parts += [f"### {role.capitalize()}", table(MIXED_HEADER, rows)]
    return parts


MIXED_HEADER = [
    "network", "average bits", "layers at 2, 4, 8", "float", "mixed", "to float", "uniform 4", "mixed to uniform 4",
    "real pictures", "random pixels", "limit",
]  # fmt: skip


def mixed_rows(results: Results[Row], role: str) -> list[list[str]]:
    rows = []
    for network in NETWORKS:
        row, uniform = Row(network, MIXED, DISTILLED), Row(network, W4, DISTILLED)
        pair = results.pair(uniform, row, role)
        others = [results.cell(Row(network, MIXED, images), versus_float(role)[1]) for images in (REAL, RANDOM)]
        within = row in results.records and limits.average_kept(results.records[row])
        held = kept(within and not limits.missed(pair, 0.0)) if pair is not None and role == CONFIRMATION else NOTHING
        rows.append(
            [
                network,
                results.cell(row, lambda record: f"{record['average_bits']:.3f}"),
                results.cell(row, widths),
                *(results.cell(row, text) for text in versus_float(role)),
                results.cell(uniform, versus_float(role)[1]),
                NOTHING if pair is None else interval(pair) + results.mark(row, uniform),
                *others,
                held,
            ]
        )
    return rows


def mixed_mean(results: Results[Row], role: str) -> list[list[str]]:
    """Means over the networks of which mixed and uniform were measured; a column that lacks one of them has none."""
    pairs = {
        network: pair
        for network in NETWORKS
        if (pair := results.pair(Row(network, W4, DISTILLED), Row(network, MIXED, DISTILLED), role)) is not None
    }
    if not pairs:
        return []

    def mean(setting: str, images: str, entry: str = "top1") -> str:
        records = [results.records.get(Row(network, setting, images)) for network in pairs]
        shares = [share(record, role, entry) for record in records if record is not None]
        return f"{statistics.mean(shares):.2f}" if len(shares) == len(pairs) else NOTHING

    differences = [pair.difference for pair in pairs.values()]
    there = [results.records[Row(network, MIXED, DISTILLED)] for network in pairs]
    to_float = [limits.against_float(record, role).difference for record in there]
    held = judged(differences, limits.MIXED_MEAN) if role == CONFIRMATION else NOTHING
    mark = results.mark(*(Row(network, setting, DISTILLED) for network in pairs for setting in (MIXED, W4)))
    return [[
        f"mean of {len(pairs)}{mark}", "", "", mean(MIXED, DISTILLED, "float_top1"), mean(MIXED, DISTILLED),
        f"{statistics.mean(to_float):+.2f}", mean(W4, DISTILLED), f"{statistics.mean(differences):+.2f}",
        mean(MIXED, REAL), mean(MIXED, RANDOM), held,
    ]]  # fmt: skip


def files(results: Results[Row]) -> list[str]:
    """Table 3."""
    rows = []
    for row in shown(results, W8, W4, MIXED):
        record = results.records[row]
        simulation = record["simulation"]
        held = limits.files_agree(record) and limits.in_integers(record) and limits.size_kept(record)
        rows.append([
            row.network, results.cell(row, lambda _, row=row: row.setting),  # type: ignore[misc]
            f"{simulation['same_class']} of {simulation['images']}",
            counted(record["integer_nodes"]), counted(record["float_nodes"]),
            f"{record['layers']}, {'all' if limits.in_integers(record) else 'not all'}",
            f"{100 * record['integer_share']:.1f} %",
            *(f"{record[name]:,}" for name in ("weight_bytes", "other_bytes", "onnx_bytes")),
            f"{100 * limits.size_excess(record):+.1f} %", f"{record['float_bytes'] / record['onnx_bytes']:.1f}",
            f"{1000 * record['load_seconds']:.0f}", kept(held),
        ])  # fmt: skip
    header = [
        "network", "setting", "same class as the simulation", "integer nodes", "float nodes",
        "weight layers, in integers", "integer share of multiply-accumulates", "weight_bytes", "other_bytes",
        "onnx_bytes", "over both", "float size / file", "load, ms", "limits",
    ]  # fmt: skip
    return [
        "## 3. The file",
        f"Limits: the class of the simulation on at least {limits.AGREEMENT:.0%} of the images (confirmation half, at "
        "most 300); every convolution and linear layer an integer kernel of onnxruntime's optimised graph; "
        "`onnx_bytes` at most 3 % and 100 kB over `weight_bytes` + `other_bytes`.",
        table(header, rows),
    ]


def times(results: Results[Row]) -> list[str]:
    """Table 4."""
    rows = []
    for row in shown(results, W8, MIXED):
        record = results.records[row]
        limited = row.network == limits.UNITS_NETWORK
        rows.append([
            row.network, results.cell(row, lambda _, row=row: row.setting),  # type: ignore[misc]
            *(seconds(record["seconds"].get(stage)) for stage in STAGES),
            f"{record['total_seconds']:.1f}", f"{record['unit_seconds']:.2f}", f"{record['units']:.0f}",
            f"{record['peak_memory_mb']:.0f}", kept(record["units"] <= limits.UNITS) if limited else NOTHING,
        ])  # fmt: skip
    return [
        "## 4. Time",
        "Seconds at `--effort balanced`, and in units: a unit is one plain pass forward and backward of 32 pictures in "
        f"the precision of the run, on the same machine. Limit: {limits.UNITS_NETWORK} within {limits.UNITS:g} units.",
        table(["network", "setting", *STAGES, "total", "unit", "units", "peak memory, MB", "limit"], rows),
    ]


def portability(results: Results[Row]) -> list[str]:
    """Table 5."""
    rows = []
    for network in NETWORKS:
        plain, portable = Row(network, W8_NOT_PORTABLE, DISTILLED), Row(network, W8, DISTILLED)
        cells = []
        for role in (SELECTION, CONFIRMATION):
            pair = results.pair(plain, portable, role)
            cells += [results.cell(row, versus_float(role)[1]) for row in (plain, portable)]
            cells.append(NOTHING if pair is None else interval(pair) + results.mark(plain, portable))
        rows.append([network, *cells])
    header = ["network"]
    for role in (SELECTION, CONFIRMATION):
        header += ["not portable", "portable", f"cost, {role}"]
    return [
        "## 5. What portability costs",
        "W8A8 with weights that no processor's 16-bit pair sums can saturate (the default), against `--no-portable`. "
        "On a processor without VNNI the second may saturate, so that its figures say nothing of another processor.",
        table(header, rows),
    ]


def failed(failures: Mapping[AnyRow, str]) -> list[str]:
    if not failures:
        return []
    return ["## Rows that failed", table(["row", "why"], [[row.name, why] for row, why in failures.items()])]


def shown(results: Results[Row], *settings: str) -> list[Row]:
    """Measured rows of distilled images, network by network."""
    rows = [Row(network, setting, DISTILLED) for network in NETWORKS for setting in settings]
    return [row for row in rows if row in results.records]


def table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)


def share(record: Record, role: str, entry: str) -> float:
    half = record["sets"][role]
    return float(100 * half[entry] / half["images"])


def top1(record: Record, role: str, entry: str) -> str:
    return f"{share(record, role, entry):.2f}"


def interval(pair: PairedDifference | Difference) -> str:
    """In points, with its 90 % interval."""
    return f"{pair.difference:+.2f} [{pair.low:+.2f}, {pair.high:+.2f}]"


def kept(held: bool) -> str:
    return "met" if held else "**missed**"


def widths(record: Record) -> str:
    """Number of layers at 2, 4 and 8 bits."""
    return ", ".join(str(record["layers_by_bits"].get(width, 0)) for width in ("2", "4", "8"))


def judged(differences: list[float], least: float) -> str:
    """Whether the mean over the networks keeps its limit; nothing as long as one is missing."""
    return kept(limits.mean_kept(differences, least)) if len(differences) == len(NETWORKS) else NOTHING


def counted(nodes: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(nodes.items())) or "none"


def seconds(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.1f}"

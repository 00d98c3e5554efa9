"""docs/performance.md from the results of all parts: values in, one text out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from benchmarks.document import NOTHING, seconds, table
from benchmarks.document import STAGES as RUN_STAGES
from benchmarks.speed_limits import (
    LIMITS,
    PARTS,
    PEER,
    QUALITIES,
    RUNS,
    STAGES,
    STEP,
    Record,
    computed_by_cpu,
    gain_of,
    runs_of,
    title,
)


def document(found: Mapping[str, Sequence[Record]]) -> str:
    """found: records of each of PARTS, those that there are."""
    every = [record for part in PARTS for record in found.get(part, ())]
    limits = [limit for part in PARTS for record in found.get(part, ()) for limit in LIMITS[part](record)]
    parts = [HEAD, *(f"- {machine}" for machine in sorted({machine_of(record) for record in every}))]
    if limits:
        parts += [
            "## Limits",
            LIMITED,
            table(["measure", "network", "found", "must reach", "limit"], [*map(list, limits)]),
        ]
    for part, write in SECTIONS.items():
        if records := found.get(part):
            parts += write(records)
    return "\n\n".join(part.strip() for part in parts) + "\n"


def machine_of(record: Record) -> str:
    if not computed_by_cpu(record):
        return f"{record['device']}, {record['precision']}"
    return f"{record['cpu']}, {record['integer_instructions']}, {record['threads']} thread(s), {record['precision']}"


def stages(records: Sequence[Record]) -> list[str]:
    """Tables of times and of quality beside the recipe."""
    times, qualities = [], []
    for record in records:
        for stage, both in record["seconds"].items():
            memory = record.get("peak_mb", {}).get(stage)
            held = [NOTHING] * 2 if memory is None else [f"{memory[who]:.0f}" for who in ("recipe", "ours")]
            times.append([
                title(record), stage, f"{both['recipe']:.4g}", f"{both['ours']:.4g}", f"{gain_of(both):.1f}",
                f"{both['ours'] / record['unit_seconds']:.1f}", *held,
            ])  # fmt: skip
        qualities += [[title(record), who, *quality_cells(values)] for who, values in record["quality"].items()]
    header = ["network", "stage", "recipe, s", "ours, s", "times as fast", "ours, units", "recipe, MB", "ours, MB"]
    return [
        "## Time beside the paper's recipe", TIMES, table(header, times),
        "## Quality of the images", QUALITY, table(["network", "images", *quality_names()], qualities),
    ]  # fmt: skip


def quality_names() -> list[str]:
    return [name for name, _ in QUALITIES.values()]


def quality_cells(values: Mapping[str, float]) -> list[str]:
    """A network without real pictures has none of what these are needed for."""
    return [f"{values[entry]:.3f}" if entry in values else NOTHING for entry in QUALITIES]


def step(records: Sequence[Record]) -> list[str]:
    """Steps beside their floors, and by kinds of operators."""
    whole, parts = [], []
    for record in records:
        spent, peaks = record["step_seconds"], record["peaks"]
        floor = sum(part["floor_seconds"] for part in record["parts"].values())
        whole.append([
            record["network"], record["precision"], str(record["threads"]), f"{record['unit_seconds']:.3f}",
            f"{spent:.3f}", f"{spent / record['unit_seconds']:.2f}", f"{floor:.3f}", f"{spent / floor:.1f}",
            f"{peaks['multiply_accumulates'] / 1e9:.0f}", f"{peaks['bytes_moved'] / 1e9:.1f}",
        ])  # fmt: skip
        for kind, part in record["parts"].items():
            if not part["share"] and not part["floor_seconds"]:
                continue
            measured, least = part["share"] * spent, part["floor_seconds"]
            parts.append([
                record["network"], kind, f"{part['multiply_accumulates'] / 1e9:.2f}",
                f"{part['bytes_moved'] / 1e6:.0f}", f"{1000 * least:.1f}", f"{1000 * measured:.1f}",
                f"{part['share']:.1%}", f"{measured / least:.1f}" if least else NOTHING,
                f"{1000 * (measured - least):.1f}",
            ])  # fmt: skip
    header = ["network", "precision", "threads", "unit, s", "step, s", "step, units", "floor, s", "times its floor"]
    header += ["10^9 multiply-accumulates a second", "10^9 bytes a second"]
    by_kind = ["network", "part", "10^9 multiply-accumulates", "10^6 bytes", "floor, ms", "measured, ms", "share"]
    by_kind += ["times its floor", "gap, ms"]
    return ["## One step of distillation", STEPS, table(header, whole), table(by_kind, parts)]


def runs(records: Sequence[Record]) -> list[str]:
    """Seconds of each stage, and units."""
    rows = [
        [title(record) + which, *times_of(times), *(size_of(record) if times is record else [NOTHING] * 3)]
        for record in records for which, times in runs_of(record)
    ]  # fmt: skip
    units = [
        [title(record), *(of_units(record, stage) for stage in RUN_STAGES), f"{record['units']:.1f}"]
        for record in records
    ]
    header = ["network", *RUN_STAGES, "total", "unit", "units", "peak memory, MB"]
    return ["## Whole runs", WHOLE, table(header, rows), table(["units", *RUN_STAGES, "total"], units)]


def times_of(times: Record) -> list[str]:
    """Seconds of each stage, and of all."""
    return [*(seconds(times["seconds"].get(stage)) for stage in RUN_STAGES), f"{times['total_seconds']:.1f}"]


def size_of(record: Record) -> list[str]:
    """The unit, the run in units, and its memory."""
    peak = max(record["peak_memory_mb"].values())
    return [f"{record['unit_seconds']:.3f}", f"{record['units']:.0f}", f"{peak:.0f}"]


def of_units(record: Record, stage: str) -> str:
    spent = record["seconds"].get(stage)
    return NOTHING if spent is None else f"{spent / record['unit_seconds']:.1f}"


def peers(records: Sequence[Record]) -> list[str]:
    """Ours and the toolkit's."""
    lines = []
    for record in records:
        for row in record["rows"]:
            who = "ours" if row["who"] == "ours" else f"toolkit, {row['iterations']} iterations"
            calculated = " (calculated)" if row.get("calculated") else ""
            lines.append([record["network"], who, f"{row['seconds']:.1f}{calculated}", *quality_cells(row["quality"])])
    versions = sorted({", ".join(f"{name} {each}" for name, each in record["versions"].items()) for record in records})
    header = ["network", "images", "seconds", *quality_names()]
    return ["## Beside model-compression-toolkit", PEERS.format(versions="; ".join(versions)), table(header, lines)]


SECTIONS: dict[str, Callable[[Sequence[Record]], list[str]]] = {STAGES: stages, STEP: step, RUNS: runs, PEER: peers}
HEAD = """# Performance

Written by `python -m benchmarks.speed --data ../shared/data`; change nothing here by hand.

A unit is one forward and backward pass of 32 pictures in the precision of the run, on the same machine. `resnet18`,
`mobilenetv2_w1` and `resnet50` are the paper's, at 224 x 224 and without trained weights: weights as initialised,
running statistics those of synthetic pictures. The others are trained.
"""
LIMITED = "Of processors, but for what names a GPU."
TIMES = """This project beside the paper's recipe, implemented from its description (arXiv:2001.00281;
`benchmarks/recipe.py`): same network, same number of images, same run, same machine. Unless its images are listed
below, the recipe was timed for a few of its 500 iterations and multiplied; of its full passes, one for every layer
and width, a few are timed as well. Memory is the peak of the whole process in 10^6 bytes, libraries and network among
them.
"""
QUALITY = """Statistics loss: what our distillation makes small, over the whole set of images. Range error: mean over
layers of |log| of the 99.9 percentile of each layer's input over that of 64 real pictures. Rank correlation: of the
sensitivities of all layers and widths (weights to nearest) with those from 32 real pictures, Spearman's. Networks
without trained weights have no real pictures to be held against.
"""
STEPS = """Each step passes 32 images forward to the last BatchNorm and back to the images, and moves them. *Floor*:
of every operator, forward and backward, the longer of two times: its multiply-accumulates (of gradients that of its
input alone, as weights have none) at the rate of a product of two large matrices in the run's precision, and the
bytes of what it reads and writes at the rate of a large copy, both measured in the run. It takes no operator for
fused with another and nothing for cached, so that small networks may stay below it. *Step* and *unit* are medians,
measured in turns; *share* is by torch's profiler. BatchNorms' own arithmetic is with their statistics, as one pass
over the values computes both; the *rest* is sums, pooling, sums of gradients, conversion between types, and Python.
"""
WHOLE = (
    "`zeroq quantize --average-bits 4` at `--effort balanced`, activations in 8 bits: seconds, then the same in units. "
    "What is not *again* is a process's first run, which also imports modules and, on a GPU, loads its libraries."
)
PEERS = """Images of Sony's model-compression-toolkit, with its own settings, in an environment of its own
({versions}), same number of images, same machine and threads: as many iterations as fit into the time that ours took,
at least one, and all of its own; where those are calculated, from a few, its images were not made.
"""

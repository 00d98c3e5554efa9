"""Whether runs keep within --memory-limit, and what that costs: peaks predicted and measured, seconds:

    python -m benchmarks.memory                                        # everything that is missing or no longer holds
    python -m benchmarks.memory --networks resnet20_cifar10
    python -m benchmarks.memory --iterations 2 --networks resnet152
    python -m benchmarks.memory --markdown-only

Every row is measured in a process of its own and kept in benchmarks/results/memory/; docs/memory.md is written anew
after each. No trained weights are needed: statistics are made plausible (plausible.py).
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.document import NOTHING, STAGES, kept, table
from benchmarks.process import options_in_words, read, renewed, run_apart
from benchmarks.rows import METHOD, ROOT, code_of, key_of

RESULTS = ROOT / "benchmarks" / "results" / "memory"
DOCUMENT = ROOT / "docs" / "memory.md"
TIME_LIMIT = 6 * 3600  # seconds for one row
ITERATIONS = 4
PARTS = (*METHOD, "demand.py", "memory.py", "resident.py")  # where a change may change a row
FORMAT = 1  # of a row's file; a new one makes every row stale
HEAD = """# Memory

Written by `python -m benchmarks.memory`; change nothing here by hand.

`--memory-limit GB` (10^9 bytes) bounds what the process holds in memory at any time, as the kernel counts it: resident
pages, those of libraries among them. When the network is captured, it is predicted of every stage what it needs, and
as much is computed at a time as there is room for; a limit that cannot be met is then refused with the least one that
can. What the plan is stands in `run.json` under `memory`, and a resumed run keeps it. Without a limit the same is done
where a run would hold more than four fifths of what is free.

| what is made smaller | changes results | costs |
| --- | --- | --- |
| images whose values stay in memory while weights are rounded (1) | no, to the last bit | files, layer by layer |
| images that are distilled together, at least 8 | yes: other images, statistics matched over fewer | not timed apart |
| images that everything else is computed on at a time, at least 1 | the last bits | not timed apart |
| images that the file is verified on, at least 1 of 8 | the figures of the verification | nothing |
| memory that is freed, as it goes back to the system at once | no | new pages: seconds with a wide limit beside none |

(1) The others' values lie in files without names in the run directory, which are gone with the process: as many bytes
as are missing in memory, written and read for every layer.

A limit that leaves room for everything gives the same bytes as none. What a run needs in any case: the libraries and
the network in several copies, second moments of the layer of most inputs per filter in nine copies of
(inputs per filter)^2 numbers, the images themselves, and capture, which is over before anything can be refused.

Predictions are bounds from above. A limit beyond what a run takes without one shows nothing but its cost: compare
*measured* without a limit.

The networks have no trained weights; weights are as initialised, running statistics those of synthetic pictures.
They are quantized to {bits} bits on average, after {iterations} steps of distillation. A result marked `stale` was
measured with another version of the method.
"""


@dataclass(frozen=True)
class Row:
    """A network, how many images, and the limit in 10^9 bytes."""

    network: str
    images: int
    limit: float | None

    @property
    def name(self) -> str:
        return f"{self.network}-{self.images}-{'none' if self.limit is None else f'{self.limit:g}'}"

    @property
    def file(self) -> Path:
        return RESULTS / f"{self.name}.json"

    def key(self, iterations: int, code: str) -> str:
        """Of everything that decides the row."""
        return key_of([FORMAT, self.name, iterations, code])


ROWS = (
    Row("resnet20_cifar10", 64, None),
    Row("resnet20_cifar10", 64, 0.7),
    Row("resnet20_cifar10", 256, None),
    Row("resnet20_cifar10", 256, 0.7),
    Row("resnet18", 64, 2.0),
    Row("resnet152", 64, 8.5),  # 8 GiB are 8.59 GB
)


def main() -> int:
    asked = arguments()
    failures = 0
    for row in () if asked.markdown_only else ROWS:
        if row.network in asked.networks:
            failures += not bring_up_to_date(row, asked)
    write_document()
    return 1 if failures else 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.memory", description=(__doc__ or "").split("\n")[0])
    known = list(dict.fromkeys(row.network for row in ROWS))
    parser.add_argument("--networks", type=lambda text: text.split(","), default=known, help=", ".join(known))
    parser.add_argument("--iterations", type=int, default=ITERATIONS, help="steps of distillation")
    parser.add_argument("--threads", type=int, help="for torch and onnxruntime; by default all")
    parser.add_argument("--time-limit", type=float, default=TIME_LIMIT, metavar="S", help="seconds for one row")
    parser.add_argument("--markdown-only", action="store_true", help="measure nothing, write the document again")
    asked = parser.parse_args()
    if unknown := [name for name in asked.networks if name not in known]:
        parser.error(f"--networks {unknown[0]}: choose from {', '.join(known)}.")
    return asked


def bring_up_to_date(row: Row, asked: argparse.Namespace) -> bool:
    """Measure a row unless its result still holds; whether there is a result now. A failed one is tried again."""
    given = {"images": row.images, "iterations": asked.iterations, "limit": row.limit, "threads": asked.threads}
    words = [row.network, *options_in_words(given)]
    facts = {
        "network": row.network, "images": row.images, "limit": row.limit, "iterations": asked.iterations,
        "key": row.key(asked.iterations, code_of(PARTS)),
    }  # fmt: skip
    return renewed(
        row.name, row.file, facts, lambda: run_apart("benchmarks.memory_row", words, asked.time_limit), write_document
    )


def write_document() -> None:
    """docs/memory.md from all results there are; those of another version of the method are marked."""
    DOCUMENT.write_text(document([(row, read(row.file)) for row in ROWS], code_of(PARTS)), encoding="utf-8")


def document(found: list[tuple[Row, dict[str, Any] | None]], code: str) -> str:
    """Peaks of whole runs, then of their stages."""
    good = [(row, record) for row, record in found if record is not None and record["error"] is None]
    iterations = "; ".join(sorted({str(record["iterations"]) for _, record in good})) or NOTHING
    machines = sorted({f"{each['cpu']}, {each['threads']} thread(s)" for _, each in good})
    title = {
        row: f"{row.network}{'' if record['key'] == row.key(record['iterations'], code) else ' `stale`'}"
        for row, record in good
    }
    whole = [[title[row], *figures(row, record)] for row, record in good]
    header = ["network", "images", "limit, GB", "predicted, GB", "measured, GB", "kept", "in memory", "batch, GB"]
    parts = [HEAD.format(bits=4, iterations=iterations), *(f"- {each}" for each in machines)]
    parts += ["## Whole runs", WHOLE, table([*header, "seconds"], whole)]
    stages = [[title[row], str(row.images), limit_of(row), *by_stage(record)] for row, record in good]
    parts += ["## By stage", BY_STAGE, table(["network", "images", "limit, GB", *STAGES], stages)]
    if failed := [f"- {row.name}: {r['error']}" for row, r in found if r is not None and r["error"] is not None]:
        parts += ["## Failed", "\n".join(failed)]
    return "\n\n".join(part.strip() for part in parts) + "\n"


WHOLE = """*In memory*: chunks of 8 images or fewer whose values are not on disk while weights are rounded. *Batch*:
values that are kept while images are distilled, at most."""
BY_STAGE = "Predicted and measured peak of the whole process in 10^6 bytes; without a limit nothing is predicted."


def figures(row: Row, record: dict[str, Any]) -> list[str]:
    """What the first table says of a row."""
    measured = max(record["measured_mb"].values()) / 1000
    seconds = f"{sum(each for name, each in record['seconds'].items() if name in STAGES and each):.0f}"
    if row.limit is None:
        return [str(row.images), NOTHING, NOTHING, f"{measured:.2f}", NOTHING, "all", NOTHING, seconds]
    amounts, predicted = record["amounts"], max(record["predicted_mb"].values()) / 1000
    return [
        str(row.images), limit_of(row), f"{predicted:.2f}", f"{measured:.2f}", kept(measured <= row.limit),
        "all" if amounts["kept"] is None else str(amounts["kept"]), f"{amounts['batch_bytes'] / 1e9:.2f}", seconds,
    ]  # fmt: skip


def limit_of(row: Row) -> str:
    return NOTHING if row.limit is None else f"{row.limit:g}"


def by_stage(record: dict[str, Any]) -> list[str]:
    """Predicted and measured, stage by stage."""
    predicted, measured = record["predicted_mb"] or {}, record["measured_mb"]
    return [
        f"{measured[stage]:.0f}" if stage not in predicted else f"{predicted[stage]:.0f} / {measured[stage]:.0f}"
        for stage in STAGES
    ]


if __name__ == "__main__":
    sys.exit(main())

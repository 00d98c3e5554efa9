"""Which of two ways to correct what rounding does is better on pictures, and which one held-out images choose:

    python -m benchmarks.corrections --data ../shared/data

Results go to benchmarks/results/corrections/; one whose options and method are unchanged is not measured again.
docs/corrections.md is written anew after each. Runs are those of benchmarks.low_bits, and taken up where these are.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.document import table
from benchmarks.halves import CONFIRMATION, SELECTION
from benchmarks.process import add_common, parsed, read, renewed
from benchmarks.rows import (
    DISTILLED,
    FAMILIES,
    MIXED,
    MIXED_3,
    ROOT,
    W4_EDGES_8,
    W4A4,
    W6A6,
    Row,
    at_best,
    key_of,
    method_code,
)
from benchmarks.up_to_setting import PICTURES, chosen
from zeroq import devices
from zeroq.candidates import Misfit
from zeroq.final_network import CORRECTED, chosen_correction

RESULTS, DOCUMENT = ROOT / "benchmarks" / "results" / "corrections", ROOT / "docs" / "corrections.md"
SETTINGS = {
    at_best(W6A6): "W6A6", at_best(MIXED): "average 4, A8", at_best(W4_EDGES_8): "W4A8", at_best(W4A4): "W4A4",
    at_best(MIXED_3): "average 3, A8",
}  # fmt: skip
CHOICES = {"networks": list(FAMILIES), "settings": list(SETTINGS)}
HEAD = """# Corrections

Written by `python -m benchmarks.corrections --data ../shared/data`; change nothing here by hand.

Behind the allocation the chosen setting's layers are rounded in two ways. *Errors*: one after another, each weight
drawn to what undoes the errors of the layers before it. *Means*: each layer alone, its bias keeping its output's means.
The first is fitted to more, and to images that are not pictures; where it is worse on distilled images that it was not
fitted to, the second is kept (`final_network.chosen_correction`). Below, at `--effort best`, without reconstruction and
with all outputs quantized:

- *Held out*: divergence from float on those images; *noise*: the same on noise, which the choice does not look at, as
  errors are corrected on noise too.
- *Divergence*, *top-1*: of the simulation, on up to {pictures} pictures of each half.
- Each cell: errors; means. The one that is kept stands in the column *kept*, the one with less divergence over both
  halves in the column *better*.
"""


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.corrections", description=(__doc__ or "").split("\n")[0])
    add_common(parser, CHOICES)
    asked = parsed(parser, CHOICES)
    rows = [(name, setting) for name in asked.networks for setting in asked.settings]
    for name, setting in [] if asked.markdown_only else rows:
        facts = {"network": name, "setting": setting, "key": key(name, setting)}
        file, row = RESULTS / f"{name}-{setting}.json", Row(name, setting, DISTILLED)
        renewed(f"{name} {setting}", file, facts, partial(measured, row, asked.data, asked.threads), write_document)
    write_document()
    return 0


def key(network: str, setting: str) -> str:
    """Of everything that decides a result."""
    return key_of([network, setting, method_code(network)])


def measured(row: Row, data: Path, threads: int | None) -> tuple[dict[str, Any], None]:
    """A network in a setting, corrected in both ways; no error."""
    with chosen(row, data, threads) as run:
        tried = run.candidates.tried(run.setting, list(CORRECTED), lambda done, total: None)
        found = {name: run.state(run.candidates, weights) for name, (weights, _) in tried.items()}
    return found | {"cpu": devices.processor()}, None


def write_document() -> None:
    """docs/corrections.md, from all results."""
    DOCUMENT.write_text(document([read(path) for path in sorted(RESULTS.glob("*.json"))]), encoding="utf-8")


def document(records: list[Any]) -> str:
    """The page; a result of another program is marked."""
    header = ["network", "setting", "held out", "noise", "kept", "better"]
    header += [f"{word}, {role}" for role in (SELECTION, CONFIRMATION) for word in ("divergence", "top-1")]
    rows, same = [], 0
    for record in records:
        states = [record[name] for name in CORRECTED]
        misfits = {name: Misfit(record[name]["held_out"], record[name]["misfit"]) for name in CORRECTED}
        kept = chosen_correction(misfits)
        better = min(CORRECTED, key=lambda name: divergence_on_pictures(record[name]))
        same += kept == better
        noise = "; ".join(f"{each['misfit'] - each['held_out']:.4f}" for each in states)
        cells = [record["network"], SETTINGS[record["setting"]], both(states, "held_out"), noise, kept]
        cells.append(better + ("" if key(record["network"], record["setting"]) == record["key"] else " `stale`"))
        for role in (SELECTION, CONFIRMATION):
            halves_of = [each["sets"][role] for each in states]
            cells.append(both(halves_of, "divergence"))
            cells.append("; ".join(f"{100 * each['top1'] / each['images']:.2f}" for each in halves_of))
        rows.append(cells)
    cpu = "; ".join(sorted({record["cpu"] for record in records}))
    summary = f"Measured on {cpu}. The better one is kept in {same} of {len(rows)}."
    return "\n\n".join([HEAD.format(pictures=PICTURES).strip(), summary, table(header, rows)]) + "\n"


def divergence_on_pictures(state: dict[str, Any]) -> float:
    """Over both halves, added."""
    return sum(state["sets"][role]["divergence"] for role in (SELECTION, CONFIRMATION))


def both(states: list[Any], name: str) -> str:
    """One number of each correction."""
    return "; ".join(f"{each[name]:.4f}" for each in states)


if __name__ == "__main__":
    sys.exit(main())

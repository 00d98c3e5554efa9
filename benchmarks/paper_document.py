"""The paper's tables with ours beside what others published: values in, one text out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.document import NOTHING, table
from benchmarks.published import CLASSIFIERS, DETECTOR_FLOAT, DETECTOR_ROWS, FLOAT, RETINANET, ROWS, Published

Results = Mapping[tuple[str, str], Mapping[str, Any]]  # by network and setting
OURS = "ours"
HEAD = """# The paper's tables

Written by `python -m benchmarks.paper`. Accuracies in per cent; those of others are as they were published, none of
them on these pictures: float baselines differ by checkpoint and by preprocessing, so compare drops. *Drop* is float
minus quantized on the same pictures, in points."""


def document(results: Results) -> str:
    """results: what each measured row holds."""
    parts = [HEAD, "## ImageNet, top-1", *sections(CLASSIFIERS, FLOAT, ROWS, results)]
    parts += ["## COCO, mAP", *sections((RETINANET,), DETECTOR_FLOAT, DETECTOR_ROWS, results)]
    if failed := [f"- {name}, {setting}: {r['error']}" for (name, setting), r in results.items() if r["error"]]:
        parts += ["## Not measured", "\n".join(failed)]
    return "\n\n".join(parts) + "\n"


def sections(
    networks: Sequence[str], baseline: Published, published: Sequence[Published], results: Results
) -> list[str]:
    """One table: every published row, ours after the last of each setting."""
    rows = [of_others(baseline, networks), ours("float", networks, results)]
    for number, row in enumerate(published):
        rows.append(of_others(row, networks))
        if number + 1 == len(published) or published[number + 1].setting != row.setting:
            rows += [ours(row.setting, networks, results), drops(row.setting, networks, results)]
    return [table(["setting", "method", *networks], rows)]


def of_others(row: Published, networks: Sequence[str]) -> list[str]:
    cells = [f"{row.accuracy[name]:.2f}" if name in row.accuracy else NOTHING for name in networks]
    return [row.setting, row.method, *cells]


def ours(setting: str, networks: Sequence[str], results: Results) -> list[str]:
    values = [accuracy(name, setting, results) for name in networks]
    return [setting, f"**{OURS}**", *(NOTHING if value is None else f"**{value:.2f}**" for value in values)]


def drops(setting: str, networks: Sequence[str], results: Results) -> list[str]:
    cells = []
    for name in networks:
        before, after = accuracy(name, "float", results), accuracy(name, setting, results)
        cells.append(NOTHING if before is None or after is None else f"{before - after:+.2f}")
    return [setting, f"{OURS}, drop", *cells]


def accuracy(name: str, setting: str, results: Results) -> float | None:
    """In per cent; None where it was not measured."""
    value = results.get((name, setting), {}).get("accuracy")
    return None if value is None else 100 * float(value)

"""What block reconstruction (rounding.reconstruct) is worth behind the closed-form rounding:

    python -m benchmarks.reconstruction --data ../shared/data

The simulation on real pictures of both halves, before and after, beside what held-out distilled images say. Results go
to benchmarks/results/reconstruction/; one whose options and method are unchanged is not measured again.
docs/reconstruction.md is written anew after each.
"""

from __future__ import annotations

import argparse
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.document import table
from benchmarks.halves import CONFIRMATION, SELECTION
from benchmarks.process import read, renewed
from benchmarks.rows import DISTILLED, ROOT, W4_EDGES_8, W4A4, Row, code_of, key_of, method_code
from benchmarks.up_to_setting import PICTURES, chosen
from zeroq import devices
from zeroq.candidates import Misfit
from zeroq.final_network import CLEARLY, CORRECTED, chosen_correction, clearly_less, reconstructed

RESULTS, DOCUMENT = ROOT / "benchmarks" / "results" / "reconstruction", ROOT / "docs" / "reconstruction.md"
SETTINGS = {W4_EDGES_8: "W4A8", W4A4: "W4A4"}  # by what the table calls them
HEAD = """# Block reconstruction

Written by `python -m benchmarks.reconstruction --data ../shared/data`; change nothing here by hand.

`zeroq.rounding.reconstruct` learns integers, biases and activation steps of one block after another, by the squared
error of what the block gives, from the closed-form rounding on (BRECQ, arXiv:2102.05426; QDrop, arXiv:2203.05740). A
block is kept only where that error falls on held-out distilled images. Below, uniform settings with the first and the
last layer at 8 bits, as `--effort balanced` rounds them, before and after {steps} steps of 32 images for each block.

- *Held out*: divergence from float on distilled images that nothing was fitted to; *misfit*: that, and on noise.
- *Divergence*, *top-1*: of the simulation, on up to {pictures} pictures of each half.
- *Sign*: whether distilled images speak for it: held out at most {clearly:g} of before, and the misfit no larger.

MobileNetV2 gains by it where activations have 4 bits, and there alone the sign is for it. It takes long:
`--effort best` tries it where activations have at most 4 bits, and keeps it by the sign. A result marked `stale` was
measured with another version of the method.
"""


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.reconstruction", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--networks", default="resnet20_cifar10,resnet20_cifar100,shufflenet_cifar10,mobilenet_v2")
    parser.add_argument("--settings", default=",".join(SETTINGS))
    parser.add_argument("--steps", type=int, default=150, help="of each block")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--markdown-only", action="store_true", help="measure nothing, write the document again")
    asked = parser.parse_args()
    rows = [(name, setting) for name in asked.networks.split(",") for setting in asked.settings.split(",")]
    for name, setting in [] if asked.markdown_only else rows:
        row, facts = Row(name, setting, DISTILLED), {"network": name, "setting": setting, "steps": asked.steps}
        renewed(
            f"{name} {setting}", RESULTS / f"{name}-{setting}.json", facts | {"key": key(facts)},
            partial(measured, row, asked.data.resolve(), asked.steps, asked.threads), write_document,
        )  # fmt: skip
    write_document()
    return 0


def key(facts: dict[str, Any]) -> str:
    """Of everything that decides a result; facts: network, setting and steps of its row."""
    return key_of([facts["network"], facts["setting"], facts["steps"], method(facts["network"])])


def method(network: str) -> list[str]:
    """Of the program: that of all results of a network, and that of reconstruction."""
    return [method_code(network), code_of(["rounding", "graph/blocks.py"])]


def measured(row: Row, data: Path, steps: int, threads: int | None) -> tuple[dict[str, Any], None]:
    """A network in a setting, rounded as `--effort balanced` does, and then reconstructed; no error."""
    with chosen(row, data, threads) as run:
        candidates = run.candidates
        tried = candidates.tried(run.setting, list(CORRECTED), lambda done, total: None)
        weights = tried[chosen_correction({name: misfit for name, (_, misfit) in tried.items()})][0]
        begin = time.perf_counter()
        learned, better = reconstructed(candidates, weights, steps, lambda done, total: None)
        seconds = time.perf_counter() - begin
        found = {
            "before": run.state(candidates, weights),
            "after": run.state(learned, better),
            "seconds": round(seconds, 1),
            "cpu": devices.processor(),
        }
        return found, None


def write_document() -> None:
    """docs/reconstruction.md, from all results."""
    DOCUMENT.write_text(document([read(path) for path in sorted(RESULTS.glob("*.json"))]), encoding="utf-8")


def document(records: list[Any]) -> str:
    """The page; a result of another program is marked."""
    header = ["network", "setting", "seconds", "held out", "misfit", "sign"]
    header += [f"{word}, {role}" for role in (SELECTION, CONFIRMATION) for word in ("divergence", "top-1")]
    rows = []
    for record in records:
        pair = record["before"], record["after"]
        before, after = (Misfit(each["held_out"], each["misfit"]) for each in pair)
        cells = [record["network"], SETTINGS[record["setting"]], f"{record['seconds']:.0f}"]
        cells += [f"{pair[0][name]:.3f} to {pair[1][name]:.3f}" for name in ("held_out", "misfit")]
        sign = "for" if clearly_less(after, before) else "against"
        cells.append(sign + ("" if key(record) == record["key"] else " `stale`"))
        for role in (SELECTION, CONFIRMATION):
            halves_of = [each["sets"][role] for each in pair]
            cells.append(" to ".join(f"{each['divergence']:.3f}" for each in halves_of))
            cells.append(" to ".join(f"{100 * each['top1'] / each['images']:.2f}" for each in halves_of))
        rows.append(cells)
    steps = ", ".join(str(count) for count in sorted({record["steps"] for record in records}))
    cpu = "; ".join(sorted({record["cpu"] for record in records}))
    head = HEAD.format(steps=steps, pictures=PICTURES, clearly=CLEARLY)
    return "\n\n".join([head.strip(), f"Measured on {cpu}.", table(header, rows)]) + "\n"


if __name__ == "__main__":
    sys.exit(main())

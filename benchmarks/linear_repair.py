"""What a linear repair of each block is worth behind the rounding, as an operator of its own:

    python -m benchmarks.linear_repair --data ../shared/data

QwT (arXiv:2411.13918): behind each quantized block a linear map of what the block is given, in floating point, fitted
in closed form to what the block misses. Results go to benchmarks/results/linear_repair/; one whose method is unchanged
is not measured again. docs/linear-repair.md is written anew after each.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks import linear_maps
from benchmarks.document import table
from benchmarks.halves import CONFIRMATION, SELECTION
from benchmarks.linear_maps import repaired, run_with
from benchmarks.process import read, renewed
from benchmarks.rows import DISTILLED, ROOT, W4_EDGES_8, W4A4, Row, key_of, method_code, program
from benchmarks.up_to_setting import PICTURES, chosen
from zeroq import devices
from zeroq.candidates import CHUNK, Misfit, joined
from zeroq.final_network import CLEARLY, CORRECTED, chosen_correction, clearly_less
from zeroq.graph import chunks

RESULTS, DOCUMENT = ROOT / "benchmarks" / "results" / "linear_repair", ROOT / "docs" / "linear-repair.md"
SETTINGS = {W4_EDGES_8: "W4A8", W4A4: "W4A4"}  # by what the table calls them
HEAD = """# A linear repair of each block

Written by `python -m benchmarks.linear_repair --data ../shared/data`; change nothing here by hand.

QwT (arXiv:2411.13918) puts behind each quantized block a linear map of what the block is given, fitted in closed form
to what the block misses. zeroq has that repair without an operator of its own: each layer is rounded to the regression
of its outputs in floating point on the inputs that it has (`src/zeroq/rounding/targets.py`), which is the repair of
what stands before it, merged into the layer that follows. Below is what QwT's own maps add to that: 1 x 1 convolutions
in floating point, in front of the quantizer at a block's end, fitted one after another on the distilled images and
variants that weights are rounded on. A map is kept where a quarter of these, which it was not fitted to, miss less by
it. Uniform settings with the first and the last layer at 8 bits, as `--effort balanced` rounds them.

- *Blocks*: with a map, of all that can have one.
- *Held out*, *misfit*: divergence from float on distilled images that nothing was fitted to; that, and on noise.
- *Sign*: whether distilled images speak for the maps: held out at most {clearly:g} of before, and the misfit no larger.
- *Divergence*, *top-1*: of the simulation, on up to {pictures} pictures of each half.
- *Parameters*: of the maps, in floating point, as part of the network's own.

They are no part of zeroq. They help most where nothing is residual, so that every layer is a block (MobileNetV1 0.25 at
W4A8), and there they add half of the network's parameters once more: in 8 bits more than 8-bit weights would take,
which lose less. With few blocks they cost little and gain little, and images mostly speak against them; MobileNetV2 is
ruined by them at W4A4. A result marked `stale` was measured with another version of the method.
"""


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.linear_repair", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--networks", default="resnet20_cifar10,resnet20_cifar100,shufflenet_cifar10,mobilenet_v1_025")
    parser.add_argument("--settings", default=",".join(SETTINGS))
    parser.add_argument("--threads", type=int)
    parser.add_argument("--markdown-only", action="store_true", help="measure nothing, write the document again")
    asked = parser.parse_args()
    rows = [(name, setting) for name in asked.networks.split(",") for setting in asked.settings.split(",")]
    for name, setting in [] if asked.markdown_only else rows:
        renewed(
            f"{name} {setting}", RESULTS / f"{name}-{setting}.json",
            {"network": name, "setting": setting, "key": key(name, setting)},
            partial(measured, Row(name, setting, DISTILLED), asked.data.resolve(), asked.threads), write_document,
        )  # fmt: skip
    write_document()
    return 0


def key(network: str, setting: str) -> str:
    """Of everything that decides a result."""
    fitting = program(Path(linear_maps.__file__).read_text(encoding="utf-8"))
    return key_of([network, setting, method_code(network), fitting])


def measured(row: Row, data: Path, threads: int | None) -> tuple[dict[str, Any], None]:
    """A network in a setting, rounded as `--effort balanced` does, and then with maps; no error."""
    with chosen(row, data, threads) as run:
        candidates = run.candidates
        tried = candidates.tried(run.setting, list(CORRECTED), lambda done, total: None)
        weights = tried[chosen_correction({name: misfit for name, (_, misfit) in tried.items()})][0]
        network, folded = candidates.network(weights), candidates.prepared.folded
        images = joined(candidates.images.rounding, candidates.images.variants)
        with torch.inference_mode():
            maps, tried_at = repaired(network, folded, [*chunks(images, CHUNK)])
        return {
            "blocks": [len(maps), tried_at],
            "parameters": sum(each.matrix.numel() + len(each.offset) for each in maps)
            / sum(layer.parameters for layer in folded.layers),
            "before": run.of_network(candidates, partial(run_with, network, {})),
            "after": run.of_network(candidates, partial(run_with, network, {each.end: each for each in maps})),
            "cpu": devices.processor(),
        }, None


def write_document() -> None:
    """docs/linear-repair.md, from all results."""
    DOCUMENT.write_text(document([read(path) for path in sorted(RESULTS.glob("*.json"))]), encoding="utf-8")


def document(records: list[Any]) -> str:
    """The page; a result of another program is marked."""
    header = ["network", "setting", "blocks", "parameters", "held out", "misfit", "sign"]
    header += [f"{word}, {role}" for role in (SELECTION, CONFIRMATION) for word in ("divergence", "top-1")]
    lines = []
    for record in records:
        pair = record["before"], record["after"]
        stale = "" if key(record["network"], record["setting"]) == record["key"] else " `stale`"
        cells = [record["network"] + stale, SETTINGS[record["setting"]], "{} of {}".format(*record["blocks"])]
        cells.append(f"{100 * record['parameters']:.0f} %")
        cells += [f"{pair[0][name]:.3f} to {pair[1][name]:.3f}" for name in ("held_out", "misfit")]
        before, after = (Misfit(each["held_out"], each["misfit"]) for each in pair)
        cells.append("for" if clearly_less(after, before) else "against")
        for role in (SELECTION, CONFIRMATION):
            halves_of = [each["sets"][role] for each in pair]
            cells.append(" to ".join(f"{each['divergence']:.3f}" for each in halves_of))
            cells.append(" to ".join(f"{100 * each['top1'] / each['images']:.2f}" for each in halves_of))
        lines.append(cells)
    cpu = "; ".join(sorted({record["cpu"] for record in records}))
    parts = [HEAD.format(pictures=PICTURES, clearly=CLEARLY), f"Measured on {cpu}.", table(header, lines)]
    return "\n\n".join(part.strip() for part in parts) + "\n"


if __name__ == "__main__":
    sys.exit(main())

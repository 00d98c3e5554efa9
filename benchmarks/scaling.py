"""How the cost of sensitivities and of the frontier grows with the number of layers:

    python -m benchmarks.scaling
    python -m benchmarks.scaling --networks resnet18,resnet50
    python -m benchmarks.scaling --networks "" --shared resnet18 --processes 1,2
    python -m benchmarks.scaling --networks "" --coarse resnet20_cifar10,mobilenet_v2 --data ../shared/data

The third measures one network shared out among processes (benchmarks/ranks.py), the last how exact sensitivities in
bf16 are (benchmarks/coarse.py).

ResNets of the paper with plausible statistics; how long they take hangs on no value. Results go to
benchmarks/results/scaling/; docs/scaling.md and docs/scaling.svg are written anew after each.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

import benchmarks.coarse as coarse
import benchmarks.ranks as ranks
from benchmarks.document import kept, table
from benchmarks.nearest import rounded_to_nearest
from benchmarks.process import listed, read, write
from benchmarks.published_networks import NETWORKS as PUBLISHED
from benchmarks.published_networks import build
from benchmarks.rows import ROOT
from zeroq import devices
from zeroq.allocate import pareto_frontier
from zeroq.candidates import JUDGED_IMAGES
from zeroq.graph import Network, capture, fold
from zeroq.precision import Precision, forward_seconds, passes_in_bf16
from zeroq.sensitivity import CHUNK, derivable, measure_sensitivity, measuring_costs, shortenable

RESULTS = ROOT / "benchmarks" / "results" / "scaling"
DOCUMENT, PICTURE = ROOT / "docs" / "scaling.md", ROOT / "docs" / "scaling.svg"
NETWORKS = ("resnet18", "resnet50", "resnet152")
WIDTHS = (2, 4, 8)
SHARED, SHORT = "shared-", "coarse-"  # before the name of a network's result
IMAGES = JUDGED_IMAGES
REPEATS = 5
LEAST_GAIN = {"resnet50": 3.0}  # times less than full passes
LEAST_GAIN_IN_BF16 = {"resnet50": 6.0}  # where a pass is clearly faster in bf16
MOST_FRONTIER = {"resnet152": 0.2}  # seconds
HEAD = """# Scaling

Written by `python -m benchmarks.scaling`; change nothing here by hand.

The paper's way to measure sensitivities is a full pass of the network for every layer and bit width. Here what comes
before a layer is computed once for all of its widths, so that only what lies behind it is computed for each: about
half of all passes. What more than 4 bits cost follows from the layer's own errors, without a pass. *Calculated* is that
share of the multiply-accumulates; *measured* the share of the seconds that full passes in 32-bit floats take ({widths}
bits, {images} pictures as in a run, one after another in one process), which are the module's own in PyTorch. Ours gain
beside what is not computed because BatchNorms are folded, channels lie last in memory, and values that nobody reads any
more are written over. *In bf16*: how many times as long as in 32-bit floats a pass through our network takes in it on
this machine, and the bits that were measured in it, where that is clearly faster; only then 6 times less is asked of
ResNet50. The frontier is exact.
"""


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.scaling", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--networks", type=lambda text: text.split(","), default=list(NETWORKS))
    parser.add_argument("--shared", choices=list(PUBLISHED), help="a network to share out among processes")
    parser.add_argument("--processes", type=lambda text: [int(each) for each in text.split(",")], default=[1, 2])
    parser.add_argument("--options", default="--precision fp32", help="of benchmarks.ranks, in quotes")
    parser.add_argument("--coarse", type=listed, metavar="A,B", default=[], help="trained networks, measured in bf16")
    parser.add_argument("--data", type=Path, help="the folder of trained networks")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--markdown-only", action="store_true", help="measure nothing, write the document again")
    asked = parser.parse_args()
    asked.networks = [name for name in asked.networks if name]
    if unknown := [name for name in asked.networks if name not in NETWORKS]:
        parser.error(f"--networks {unknown[0]}: choose from {', '.join(NETWORKS)}.")
    for name in [] if asked.markdown_only else asked.networks:
        with devices.threads(asked.threads):
            write(path_of(name), measured(name))
        write_document()
        print(name, flush=True)
    if asked.coarse and asked.data is None:
        parser.error("--coarse is of trained networks: name their folder by --data.")
    for name in [] if asked.markdown_only else asked.coarse:
        write(RESULTS / f"{SHORT}{name}.json", coarse.measured(name, asked.data.resolve(), asked.threads))
    if asked.shared and not asked.markdown_only:
        record = ranks.measured(asked.shared, asked.processes, asked.options.split())
        write(RESULTS / f"{SHARED}{asked.shared}.json", record)
    write_document()
    return 0


def measured(name: str) -> dict[str, Any]:
    """Seconds of full passes, of all sensitivities and of the frontier."""
    built = build(name)
    shape = built.preprocessing.input_shape
    network = fold(capture(built.module, torch.zeros(2, *shape)))
    images = torch.randn(IMAGES, *shape, generator=torch.Generator().manual_seed(0))
    weight = rounded_to_nearest(network, WIDTHS)

    def full_pass() -> None:
        with torch.inference_mode():
            built.module(images)

    short = passes_in_bf16(network, "auto", CHUNK)
    multiplied = IMAGES * sum(measuring_costs(network.layers).values())
    before = [seconds(full_pass) for _ in range(REPEATS)]
    begin = time.perf_counter()
    found = measure_sensitivity(
        network, devices.ordered(images), WIDTHS, lambda layer, width: (weight(layer, width), None),
        derived=derivable(WIDTHS), coarse=shortenable(WIDTHS, multiplied) if short else (),
    )  # fmt: skip
    spent = time.perf_counter() - begin
    passes = before + [seconds(full_pass) for _ in range(REPEATS)]
    sizes = [[width * layer.parameters for width in WIDTHS] for layer in network.layers]
    costs = [list(row) for row in found.values]
    return {
        "network": name,
        "cpu": devices.processor(),
        "threads": torch.get_num_threads(),
        "layers": len(network.layers),
        "pass_seconds": statistics.median(passes),
        "bf16_share": min(forward_seconds(network, Precision(torch.bfloat16), CHUNK) for _ in range(REPEATS))
        / min(forward_seconds(network, Precision(), CHUNK) for _ in range(REPEATS)),
        "coarse": list(found.coarse),
        "sensitivity_seconds": spent,
        "calculated": calculated_share(network),
        "frontier_seconds": statistics.median(seconds(lambda: pareto_frontier(sizes, costs)) for _ in range(REPEATS)),
        "frontier_points": len(pareto_frontier(sizes, costs).sizes),
    }


def seconds(function: Callable[[], Any]) -> float:
    """Of one call."""
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin


def calculated_share(network: Network) -> float:
    """Share of the multiply-accumulates of full passes.

    Each layer's own and those of all behind it, once for every width that is measured; and each layer's own once more
    for every width that follows, and twice to compare that with. The walk over the network itself, once in all, is left
    out.
    """
    counts, derived = [layer.multiply_accumulates for layer in network.layers], len(derivable(WIDTHS))
    behind = sum(sum(counts[index:]) for index in range(len(counts)))
    own = sum(counts) * (derived + 2 if derived else 0)
    return ((len(WIDTHS) - derived) * behind + own) / (len(WIDTHS) * len(counts) * sum(counts))


def path_of(name: str) -> Path:
    return RESULTS / f"{name}.json"


def write_document() -> None:
    """The page and its picture, from all results there are."""
    records = [record for name in NETWORKS if (record := read(path_of(name))) is not None]
    shared = [record for name in PUBLISHED if (record := read(RESULTS / f"{SHARED}{name}.json")) is not None]
    short = [record for name in coarse.NETWORKS if (record := read(RESULTS / f"{SHORT}{name}.json")) is not None]
    DOCUMENT.write_text(document(records, shared, short), encoding="utf-8")
    PICTURE.write_text(picture(records), encoding="utf-8")


def document(
    records: list[dict[str, Any]], shared: Sequence[dict[str, Any]] = (), short: Sequence[dict[str, Any]] = ()
) -> str:
    """One line for each network; behind them those measured in bf16, and those shared out among processes."""
    lines = []
    for record in records:
        share = record["sensitivity_seconds"] / full_seconds(record)
        asked = LEAST_GAIN_IN_BF16 if record["coarse"] else LEAST_GAIN
        least, most = asked.get(record["network"]), MOST_FRONTIER.get(record["network"])
        bits = ", ".join(map(str, record["coarse"])) or "none"
        gain = f"{1 / share:.1f}" + ("" if least is None else f" ({least:g}) {kept(1 / share >= least)}")
        frontier = record["frontier_seconds"]
        lines.append([
            record["network"], str(record["layers"]), f"{record['pass_seconds']:.3f}", f"{full_seconds(record):.1f}",
            f"{record['bf16_share']:.2f}; {bits}", f"{record['sensitivity_seconds']:.1f}",
            f"{record['calculated']:.2f}", f"{share:.2f}", gain,
            f"{frontier:.3f}" + ("" if most is None else f" ({most:g}) {kept(frontier <= most)}"),
            f"{record['frontier_points']:,}",
        ])  # fmt: skip
    machines = sorted({f"{each['cpu']}, {each['threads']} thread(s)" for each in records})
    header = ["network", "layers", "one pass, s", "full passes, s", "in bf16", "sensitivities, s"]
    header += ["calculated", "measured", "times less", "frontier, s", "its points"]
    parts = [HEAD.format(widths=", ".join(map(str, WIDTHS)), images=IMAGES), *(f"- {each}" for each in machines)]
    parts += [table(header, lines), "![Seconds of sensitivities over layers times widths](scaling.svg)"]
    parts += coarse.document(short)
    parts += ranks.document(shared)
    return "\n\n".join(part.strip() for part in parts) + "\n"


def full_seconds(record: dict[str, Any]) -> float:
    """Of a full pass for every layer and width."""
    return float(record["pass_seconds"] * record["layers"] * len(WIDTHS))


WIDTH, HEIGHT, MARGIN = 480, 320, 48


def picture(records: list[dict[str, Any]]) -> str:
    """SVG: passes' worth of sensitivities over layers times widths, beside full passes and half of them."""
    most = max((record["layers"] * len(WIDTHS) for record in records), default=1) * 1.1

    def place(across: float, up: float) -> tuple[float, float]:
        return (
            round(MARGIN + across / most * (WIDTH - 2 * MARGIN), 1),
            round(HEIGHT - MARGIN - up / most * (HEIGHT - 2 * MARGIN), 1),
        )

    def line(slope: float, style: str, name: str) -> str:
        (x1, y1), (x2, y2) = place(0, 0), place(most, slope * most)
        ends = f'x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}"'
        return f'<line {ends} stroke="#777" {style}/><text x="{x2 - 70}" y="{y2 - 6}">{name}</text>'

    parts = [line(1.0, "", "full passes"), line(0.5, 'stroke-dasharray="4 4"', "half")]
    for record in records:
        x, y = place(record["layers"] * len(WIDTHS), record["sensitivity_seconds"] / record["pass_seconds"])
        parts.append(f'<circle cx="{x}" cy="{y}" r="4" fill="#06c"/>')
        parts.append(f'<text x="{x + 7}" y="{y + 4}">{record["network"]}</text>')
    parts.append(f'<text x="{MARGIN}" y="{HEIGHT - 12}">layers x widths</text><text x="8" y="20">passes</text>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        f'font-size="12">\n' + "\n".join(parts) + "\n</svg>\n"
    )


if __name__ == "__main__":
    sys.exit(main())

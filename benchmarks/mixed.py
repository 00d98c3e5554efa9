"""How well sensitivities foretell the divergence of whole networks, as they stand and with what later layers leave:

    python -m benchmarks.mixed --data ../shared/data

Settings of an average of 4 bits are drawn around the frontier, each rounded whole and measured on held-out distilled
images; no picture is used. Results go to benchmarks/results/mixed/; one whose options and method are unchanged is not
measured again. docs/mixed-precision.md is written anew after each.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.document import table
from benchmarks.process import read, write
from benchmarks.rows import DISTILLED, MIXED, ROOT, Row, key_of, method_code
from benchmarks.up_to_setting import candidates_of
from zeroq import devices
from zeroq.allocate import best_within, pareto_frontier
from zeroq.candidates import ERRORS
from zeroq.compensation import RATE, seen_by
from zeroq.models import load_model
from zeroq.options import Options
from zeroq.selection import setting_of

RESULTS, DOCUMENT = ROOT / "benchmarks" / "results" / "mixed", ROOT / "docs" / "mixed-precision.md"
CHOSEN_ON = ("mobilenet_v1_025", "etinynet", "mobilenet_v2")
CONFIRMED_ON = ("resnet20_cifar10", "resnet20_cifar100", "shufflenet_cifar10", "efficientnet_lite0")
AVERAGE = 4.0
SETTINGS = 24
SPREAD = 1.2  # deviation of the logarithm of what each sensitivity is multiplied by
SLOPE = 2.0  # the largest rate at which early layers count less in a draw
RATES = (0.0, 1.0, 1.5, RATE, 2.5, 3.0, 4.0)
HEAD = """# Mixed precision: what sensitivities foretell

Written by `python -m benchmarks.mixed --data ../shared/data`; change nothing here by hand.

A sensitivity says how far the network's output goes when one layer alone has few bits. The frontier adds them up, as if
layers did not depend on one another. But here each layer is rounded to make up for the errors of those before it
(`src/zeroq/rounding/targets.py`), which takes away most of an early layer's error and nothing of the last one's. So the
choice counts a sensitivity times exp(-{rate:g} b), b the share of the other layers that see what the layer gives
(`src/zeroq/compensation.py`); at rate 0 it counts as it stands.

Below, {settings} settings of at most {average:g} bits on average with activations in 8 bits, drawn around the frontier,
are each rounded whole and their divergence measured on held-out distilled images: *correlation* of the sum of
sensitivities with it, by the rate. The rate was chosen on the networks marked so; no picture is used. A result marked
`stale` was measured with another version of the method.

|  |  |
| --- | --- |
| processor | {cpu} |
| effort | balanced |
"""


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.mixed")
    parser.add_argument("--data", type=Path, required=True, help="the folder of networks")
    parser.add_argument("--networks", default=",".join(CHOSEN_ON + CONFIRMED_ON))
    parser.add_argument("--threads", type=int)
    parser.add_argument("--markdown-only", action="store_true", help="measure nothing, write the document again")
    asked = parser.parse_args()
    for name in () if asked.markdown_only else asked.networks.split(","):
        key = present_key(name)
        path = RESULTS / f"{name}.json"
        if (known := read(path)) is not None and known["key"] == key:
            print(f"{name}: still holds", flush=True)
            continue
        write(path, {"network": name, "key": key} | measure(name, asked.data.resolve(), asked.threads))
        write_document()
        print(name, flush=True)
    write_document()
    return 0


def measure(name: str, data: Path, threads: int | None) -> dict[str, Any]:
    """Sensitivities of every layer in every setting, and the divergence of each whole network."""
    options = Options.of(average_bits=AVERAGE, threads=threads)
    model = load_model(f"{data / 'networks' / name}.py:{name}")
    with candidates_of(Row(name, MIXED, DISTILLED), model, options) as (stages, candidates):
        known = stages.sensitivity(candidates)
    prepared, plan = stages.prepared, stages.prepared.plan
    names = [layer.name for layer in plan.layers]
    assert known is not None, "every layer has a choice"
    sensitivities = np.array([[known.of(layer, bits) for bits in plan.widths[layer]] for layer in names])
    settings = []
    for options_of in drawn(plan.sizes, sensitivities, int(AVERAGE * sum(plan.parameters.values()))):
        weights = candidates.settled(setting_of(plan, options_of), ERRORS)
        divergence = candidates.divergence(candidates.network(weights))
        own = sensitivities[np.arange(len(names)), options_of]
        settings.append({"sensitivities": own.round(6).tolist(), "divergence": divergence})
    seen = seen_by(prepared.folded, plan.layers)
    return {"seen_by": [seen[layer] for layer in names], "settings": settings, "cpu": devices.processor()}


def drawn(sizes: list[list[int]], sensitivities: np.ndarray[Any, Any], limit: int) -> Iterator[tuple[int, ...]]:
    """Options of the layers: the best within the limit by sensitivities that are disturbed at random."""
    generator = np.random.default_rng(0)
    found: set[tuple[int, ...]] = set()
    layers = len(sizes)
    early = np.arange(layers)[::-1] / layers
    while len(found) < SETTINGS:
        factor = np.exp(generator.normal(0, SPREAD, layers) - generator.uniform(0, SLOPE) * early)
        frontier = pareto_frontier(sizes, (sensitivities * factor[:, None]).tolist())
        (setting,) = frontier.settings(np.array([best_within(frontier, limit)]))
        options = tuple(setting.tolist())
        if options not in found:
            found.add(options)
            yield options


def correlation(record: dict[str, Any], rate: float) -> float:
    """Of the sums of sensitivities, each times exp(-rate b), with the measured divergences."""
    seen = np.array(record["seen_by"])
    left = np.exp(-rate * seen / max(len(seen) - 1, 1))
    sums = [float(left @ np.array(setting["sensitivities"])) for setting in record["settings"]]
    return float(np.corrcoef(sums, [setting["divergence"] for setting in record["settings"]])[0, 1])


def write_document() -> None:
    """docs/mixed-precision.md, from all results."""
    records = [record for name in CHOSEN_ON + CONFIRMED_ON if (record := read(RESULTS / f"{name}.json"))]
    head = ["network", "layers", "divergence, least to most", *(f"rate {rate:g}" for rate in RATES)]
    rows = []
    for record in records:
        found = [setting["divergence"] for setting in record["settings"]]
        mark = " (chosen on)" if record["network"] in CHOSEN_ON else ""
        correlations = (f"{correlation(record, rate):.2f}" for rate in RATES)
        stale = "" if record["key"] == present_key(record["network"]) else " `stale`"
        rows.append(
            [
                record["network"] + mark + stale, str(len(record["seen_by"])), f"{min(found):.3f} to {max(found):.3f}",
                *correlations,
            ]
        )  # fmt: skip
    others = [record for record in records if record["network"] in CONFIRMED_ON]
    if others:
        means = (f"{math.fsum(correlation(each, rate) for each in others) / len(others):.2f}" for rate in RATES)
        rows.append([f"mean of the {len(others)} not chosen on", "", "", *means])
    cpu = "; ".join(sorted({record["cpu"] for record in records}))
    text = HEAD.format(rate=RATE, settings=SETTINGS, average=AVERAGE, cpu=cpu)
    DOCUMENT.write_text(f"{text}\n{table(head, rows)}\n", encoding="utf-8")


def present_key(name: str) -> str:
    """Of everything that decides a result, with the present method."""
    return key_of([name, AVERAGE, SETTINGS, SPREAD, SLOPE, method_code(name)])


if __name__ == "__main__":
    sys.exit(main())

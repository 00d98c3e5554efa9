"""How near sensitivities measured in bf16 come to those in 32-bit floats, of trained networks:

    python -m benchmarks.scaling --networks "" --coarse resnet20_cifar10,mobilenet_v2 --data ../shared/data

The section of docs/scaling.md behind its first table.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.document import table
from benchmarks.order import rank_correlation
from benchmarks.rows import DISTILLED, MIXED, Row
from benchmarks.up_to_setting import candidates_of
from zeroq import devices
from zeroq.models import load_model
from zeroq.options import Options
from zeroq.sensitivity import COARSE, measure_sensitivity
from zeroq.stages import DEFAULT_MEASURE, MEASURES

NETWORKS = ("resnet20_cifar10", "vgg_cifar10", "vit_cifar10", "mobilenet_v1_025", "mobilenet_v2")
WIDTHS = (2, 3, 4)
HEAD = """## In bf16

Where a run would measure for about a minute or more, and this CPU passes through the network clearly faster in bf16,
widths of at most {coarse} bits are measured in it. Of trained networks, under the rounding of a run, on its held-out
distilled images, beside 32-bit floats: Spearman's correlation over the layers, and the logarithm of the ratio, its size
in the median and at most. At more bits the rounding of bf16 comes near what is measured. A CPU without instructions for
bf16 sums in it as well, and is less exact than those on which it is used.
"""


def measured(name: str, data: Path, threads: int | None) -> dict[str, Any]:
    """Sensitivities of every layer by width, both in 32-bit floats and in bf16."""
    options = Options.of(average_bits=4, weight_bits=(*WIDTHS, 8), threads=threads)
    model = load_model(f"{data / 'networks' / name}.py:{name}")
    with candidates_of(Row(name, MIXED, DISTILLED), model, options) as (stages, candidates):
        parameters = candidates.parameters(MEASURES[DEFAULT_MEASURE])
        exact, short = (
            measure_sensitivity(
                stages.prepared.folded, candidates.judges, (*WIDTHS, 8), parameters, derived=(8,), coarse=coarse,
                meaning=stages.prepared.meaning, reference=candidates.reference,
            )
            for coarse in ((), WIDTHS[:-1])
        )  # fmt: skip
    return {
        "network": name,
        "cpu": devices.processor(),
        "exact": {str(width): [exact.of(layer, width) for layer in exact.layers] for width in WIDTHS[:-1]},
        "bf16": {str(width): [short.of(layer, width) for layer in short.layers] for width in WIDTHS[:-1]},
    }


def document(records: Sequence[dict[str, Any]]) -> list[str]:
    """Nothing of nothing."""
    if not records:
        return []
    lines = []
    for record in records:
        for width, exact in record["exact"].items():
            short = record["bf16"][width]
            ratios = [abs(math.log(one / other)) for one, other in zip(short, exact, strict=True)]
            lines.append([
                record["network"], width, f"{rank_correlation(exact, short):.4f}",
                f"{statistics.median(ratios):.3f}", f"{max(ratios):.3f}",
            ])  # fmt: skip
    header = ["network", "bits", "correlation", "logarithm of the ratio, median", "most"]
    machines = [f"- {each}" for each in sorted({record["cpu"] for record in records})]
    return [HEAD.format(coarse=COARSE), *machines, table(header, lines)]

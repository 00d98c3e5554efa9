"""What scales and grids that are found together with the integers leave of the error of GPTQ, on distilled and on real
pictures:

    python -m benchmarks.scales --data ../shared/data

Layer by layer, each on the inputs that it has in floating point, weights fitted on distilled images. Results are kept
in benchmarks/results/scales/; docs/scales.md is written anew after each network.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.document import NOTHING, table
from benchmarks.halves import CONFIRMATION, SELECTION
from benchmarks.process import add_common, parsed, read
from benchmarks.ranges import distilled, pictures_of
from benchmarks.rows import CACHE, FAMILIES, ROOT, key_of, method_code
from benchmarks.upkeep import renew_networks
from zeroq import devices
from zeroq.graph import Layer, Network, capture, fold
from zeroq.graph.walk import Walk
from zeroq.models import load_model
from zeroq.numbers.grid import Grid
from zeroq.rounding.filters import is_depthwise, to_filters
from zeroq.rounding.gptq import elimination, fixed
from zeroq.rounding.joint import round_jointly, round_on_best_grid
from zeroq.rounding.layers import taken_in
from zeroq.rounding.methods import importance
from zeroq.rounding.scales import search_scales

DOCUMENT = ROOT / "docs" / "scales.md"
RESULTS = ROOT / "benchmarks" / "results" / "scales"
BITS = (2, 3, 4, 6)
IMAGES = 64
DISTILLED = "distilled"
WHO = (DISTILLED, SELECTION, CONFIRMATION)
KINDS = {True: "depthwise", False: "others"}
CHOICES = {"networks": list(FAMILIES)}
HEAD = """# Scales and grids

Written by `python -m benchmarks.scales --data ../shared/data`; change nothing here by hand.

Below 8 bits the scale of a filter is found together with its integers: GPTQ rounds the filter at many scales, and the
one that leaves least is kept (`rounding/joint.py`). The scale that such a search starts from is the one that would be
best if every weight were rounded by itself. Below stands what is left of that one's squared error of a layer's output
(its variance, as the mean is kept by a bias): the geometric mean over layers, each on the inputs that it has in
floating point. The first figure is of signed grids, the second of the better of these and those that are shifted to
where a filter's weights lie (`numbers/grid.py`). Weights are fitted on distilled images alone, and judged on these and
on real pictures that no run has seen. A result marked `stale` was measured with another version of the method.
"""


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.scales", description=(__doc__ or "").split("\n")[0])
    add_common(parser, CHOICES)
    asked = parsed(parser, CHOICES)
    renew_networks(asked, RESULTS, key_for, measured, write_document, "left")
    return 0


def write_document() -> None:
    """docs/scales.md from all results there are."""
    DOCUMENT.write_text(document(), encoding="utf-8")


def key_for(name: str) -> str:
    """Of everything that decides a result."""
    return key_of([name, IMAGES, BITS, method_code(name)])


def measured(name: str, data: Path, threads: int | None) -> tuple[dict[str, Any], None]:
    """What is left, by bits, kind of layer and images; a failure ends the command."""
    model = load_model(f"{data}/networks/{name}.py:{name}")
    images = distilled(model, CACHE / "runs" / method_code(name)[:12] / name, threads)
    network = fold(capture(model.module, torch.zeros(2, *model.picture().input_shape)))
    inputs = {DISTILLED: images, **pictures_of(name, model, data)}
    left: dict[str, dict[str, dict[str, list[tuple[float, float]]]]] = {}
    with torch.no_grad():
        for layer, hessians in layers_of(network, {who: each[:IMAGES] for who, each in inputs.items()}):
            filters = to_filters(network.tensors[layer.weight].float(), layer.groups)
            kind = KINDS[is_depthwise(layer.shape, layer.groups)]
            for bits in BITS:
                for who, share in shares(filters, Grid(bits, signed=True), hessians).items():
                    left.setdefault(str(bits), {}).setdefault(kind, {}).setdefault(who, []).append(share)
    means = {
        bits: {
            kind: {who: [geometric(values) for values in zip(*pairs, strict=True)] for who, pairs in each.items()}
            for kind, each in kinds.items()
        }
        for bits, kinds in left.items()
    }
    return {"left": means}, None


def geometric(values: Iterable[float]) -> float:
    """Mean."""
    return round(statistics.geometric_mean(values), 4)


def layers_of(network: Network, inputs: Mapping[str, Tensor]) -> Iterator[tuple[Layer, dict[str, Tensor]]]:
    """Each layer with its Hessians, centred, by the images that they are of."""
    walks = {who: Walk.over(network.graph, network.tensors, devices.ordered(each)) for who, each in inputs.items()}
    for layer in network.layers:
        moments = {who: taken_in(walk, None, layer).moments() for who, walk in walks.items()}
        yield layer, {who: each.hessian(centred=True) for who, each in moments.items()}


def shares(filters: Tensor, grid: Grid, hessians: Mapping[str, Tensor]) -> dict[str, tuple[float, float]]:
    """By images, error with scales found together with the integers, on signed grids and on the better ones, over that
    with scales found before.
    """
    own = hessians[DISTILLED]
    columns = elimination(own)
    before = search_scales(filters, grid, importance(own))
    together = round_jointly(filters, before, grid, columns)
    rounded = [
        (before, fixed(filters, before, grid, columns, limited=False)[0]),
        (together.scale, together.integers),
        round_on_best_grid(filters, grid, columns, importance(own)),
    ]
    found = {}
    for who, each in hessians.items():
        apart, joint, best = (error(filters - integers * scale[..., None], each) for scale, integers in rounded)
        if min(apart, joint, best) > 0:
            found[who] = joint / apart, best / apart
    return found


def error(missed: Tensor, hessian: Tensor) -> float:
    """Sum of (w - q)^T H (w - q) over filters."""
    return float(((missed @ hessian) * missed).double().sum())


def cell(pair: Sequence[float]) -> str:
    """What signed grids leave, and what the better ones do."""
    return "; ".join(f"{each:.3f}" for each in pair)


def document() -> str:
    """The page, from all results there are."""
    found = {name: record for name in FAMILIES if (record := read(RESULTS / f"{name}.json")) is not None}
    stale = {name for name, record in found.items() if record["key"] != key_for(name)}
    parts = [HEAD, f"Processors: {', '.join(sorted({record['cpu'] for record in found.values()})) or NOTHING}."]
    for bits in map(str, BITS):
        lines = [
            [f"{name}{' `stale`' if name in stale else ''}", kind, *map(cell, map(values.get, WHO))]
            for name, record in found.items()
            for kind, values in record["left"][bits].items()
        ]
        parts.append(f"## {bits} bits\n\n{table(['network', 'layers', *WHO], lines)}")
    return "\n\n".join(part.strip() for part in parts) + "\n"


if __name__ == "__main__":
    sys.exit(main())

"""How well distilled images serve, by how they are made; beside real pictures and noise:

    python -m benchmarks.distillation --data ../shared/data --networks resnet20_cifar10,mobilenet_v1_025

Results go to benchmarks/results/distillation/; one whose method is unchanged is not measured again.
docs/distillation.md is written anew after each.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks import objectives
from benchmarks.document import table
from benchmarks.halves import CONFIRMATION, SELECTION, float_scores, halves, scores
from benchmarks.measure import compared
from benchmarks.nearest import rounded_to_nearest
from benchmarks.objectives import OBJECTIVES
from benchmarks.order import rank_correlation
from benchmarks.process import read, write
from benchmarks.rows import CACHE, NETWORKS, ROOT, key_of, method_code, program
from zeroq import devices
from zeroq.candidates import ERRORS, Candidates, Images, accompanied
from zeroq.channels import helpful_factors
from zeroq.distillation import distill
from zeroq.distillation.images import prepare as prepare_statistics
from zeroq.evaluate import calibration_pictures
from zeroq.graph import Network, replay
from zeroq.models import LoadedModel, load_model
from zeroq.numbers.values import BitSetting
from zeroq.options import Options
from zeroq.precision import Precision, choose_precision, step_seconds
from zeroq.preparation import Prepared, prepare
from zeroq.repair import middles
from zeroq.sensitivity import measure_sensitivity

RESULTS, DOCUMENT = ROOT / "benchmarks" / "results" / "distillation", ROOT / "docs" / "distillation.md"
CHOSEN = ("resnet20_cifar10", "mobilenet_v1_025", "etinynet")
WIDTHS = (2, 4, 8)
COMPARED = 32  # images that sensitivities are measured on
SAMPLE = 400_000  # values per layer and batch
REAL = "64 real pictures"
HEAD = """# Distilled images

Written by `python -m benchmarks.distillation --data ../shared/data`; change nothing here by hand.

Images are optimised from noise of natural spectrum until the inputs of all BatchNorms have the statistics of training,
over the whole batch (`src/zeroq/distillation/images.py`). Here is what their number, the steps, the variants that
weights are rounded on beside them (`variants.py`) and other ways to make them are worth, one changed at a time around
what `--effort balanced` takes: 64 images, 24 steps, variants. *Real* pictures go the same way, without variants, and
without the noise that ranges are fitted on beside distilled images. A result marked `stale` was measured with another
version of the method.

Other ways (`benchmarks/objectives.py`), each with one strength, as it stands there: *statistics of each image* and
*BatchNorms not weighed* as in ZeroQ (arXiv:2001.00281), *slack* of {tolerance:g} deviations (DSG, arXiv:2109.00212),
*flips and shifts* in each step, *smoothed* by total variation, *shifted strides* of convolutions (GENIE,
arXiv:2212.04780), *flat neighbourhoods*, the loss on images with noise, *stretched scores*, the cross entropy of one
class for each image, and statistics that no BatchNorm remembers: inputs of BatchNorms without *skewness and excess
kurtosis*, without *correlations* between channels. On MobileNetV1 0.25 each of them but the last leaves more divergence
on both halves than what zeroq does; on ResNet20 all are alike within chance. Without correlations images serve
MobileNetV1 better and EtinyNet no better, at several times the time. So none is part of zeroq.

- *Loss*: distance from the BatchNorms' statistics, which the steps make small.
- *Range error*: mean over layers of |log| of the 99.9 percentile of each layer's input over that on 64 real pictures.
- *Rank correlation*: Spearman's, of the sensitivities of all layers at 2, 4 and 8 bits with those of 32 real pictures.
- *W4A8*: all weights at 4 bits, the first and the last layer at 8: top-1 in per cent on the selection and the
  confirmation half, and the divergence from the float network there (mean KL), of the simulation.
- *Units*: seconds of the distillation over those of one pass forward and backward of 32 pictures.
"""


@dataclass(frozen=True)
class Case:
    """How images are made; steps None: real pictures."""

    images: int = 64
    steps: int | None = 24
    variants: bool = True
    made: str = ""  # by which of the OBJECTIVES; by default as the product does

    @property
    def name(self) -> str:
        if self.steps is None:
            return REAL
        made = f"{self.images} images, {self.steps} steps" if self.steps else f"{self.images} of noise"
        return ", ".join([made, *(["no variants"] if not self.variants else []), *([self.made] if self.made else [])])


CASES = (
    Case(), Case(variants=False), Case(steps=0, variants=False), Case(steps=12), Case(steps=48), Case(images=32),
    Case(images=128), *(Case(made=made) for made in OBJECTIVES), Case(steps=None, variants=False),
)  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.distillation")
    parser.add_argument("--data", type=Path, required=True, help="the folder of networks and pictures")
    parser.add_argument("--networks", default=",".join(CHOSEN))
    parser.add_argument("--threads", type=int)
    parser.add_argument("--markdown-only", action="store_true", help="measure nothing, write the document again")
    asked = parser.parse_args()
    for name in () if asked.markdown_only else asked.networks.split(","):
        for case in CASES:
            file, key = file_of(name, case), key_for(name, case)
            if (known := read(file)) is not None and known["key"] == key:
                print(f"{name}, {case.name}: still holds", flush=True)
                continue
            with devices.threads(asked.threads):
                found = measured(name, case, asked.data.resolve())
            write(file, {"network": name, "case": case.name, "key": key} | found)
            write_document()
            print(f"{name}, {case.name}: {line(found)}", flush=True)
    write_document()
    return 0


def file_of(name: str, case: Case) -> Path:
    words = "".join(letter if letter.isalnum() else "-" for letter in case.name.replace(",", ""))
    return RESULTS / f"{name}-{words}.json"


def measured(name: str, case: Case, data: Path) -> dict[str, Any]:
    """One line of the table."""
    model = load_model(f"{data}/networks/{name}.py:{name}")
    prepared = prepare(model, Options.of(weight_bits=4))
    real = pictures_of(name, model, data)
    images, precision = real, choose_precision(prepared.network)[0]
    begin = time.perf_counter()
    if case.made and case.steps is not None:
        images = objectives.distilled(case.made, prepared, case.images, case.steps, precision)
    elif case.steps is not None:
        images = distill(
            prepared.network, prepared.statistics[0], count=case.images, iterations=case.steps, precision=precision,
            trust=prepared.trust,
        )  # fmt: skip
    spent = time.perf_counter() - begin if case.steps else 0.0
    network = quantized(prepared, images, case)
    with torch.no_grad():
        loss = prepare_statistics(prepared.network, prepared.statistics[0], Precision()).loss(images).item()
    against, own = (layer_inputs(prepared.network, each)[0] for each in (real, images))
    order, reference = (np.ravel(sensitivities(prepared.folded, each[:COMPARED])) for each in (images, real))
    sets = {}
    for half in halves(name, model, data):
        sets[half.role] = compared(half, float_scores(name, model, half, CACHE), scores(network, half.data))
    return {
        "loss": round(loss, 4),
        "range_error": round(distance(own, against, 0), 4),
        "rank_correlation": round(rank_correlation(order, reference), 4),
        "units": round(spent / (32 * step_seconds(prepared.network, precision, 32)), 1),
        "sets": sets,
        "cpu": devices.processor(),
    }


def pictures_of(name: str, model: LoadedModel, data: Path) -> Tensor:
    """64 real pictures that are in neither half."""
    source = data / ("imagenet_train_64" if NETWORKS[name] == "imagenet" else f"{NETWORKS[name]}_other_64.npz")
    return calibration_pictures(source, model.picture(), 64, 0)


def quantized(prepared: Prepared, images: Tensor, case: Case) -> Callable[[Tensor], Tensor]:
    """W4A8 as the stages make it, with these images."""
    real = case.steps is None
    every = Images(images, "calibration" if real else "distilled")
    if not real:
        every = accompanied(every, prepared, seed=0)
        if not case.variants:
            every = replace(every, variants=None)
    prepared = prepared.centred(middles(prepared.folded, every.observed))
    factors, ranges = helpful_factors(prepared, every)
    candidates = Candidates(prepared.scaled(factors), every, ranges, lambda done, total: None)
    setting = BitSetting({layer: widths[0] for layer, widths in prepared.plan.widths.items()})
    network = candidates.network(candidates.settled(setting, ERRORS))

    def predict(inputs: Tensor) -> Tensor:
        with torch.inference_mode():
            return network(inputs)

    return predict


def sensitivities(network: Network, images: Tensor) -> list[list[float]]:
    """[layers][widths], weights to nearest."""
    weight = rounded_to_nearest(network, WIDTHS)
    found = measure_sensitivity(network, images, WIDTHS, lambda layer, width: (weight(layer, width), None))
    return [list(row) for row in found.values]


def layer_inputs(network: Network, images: Tensor) -> tuple[dict[str, tuple[float, float]], Tensor]:
    """Percentile 99.9 of the magnitude and deviation of each layer's input, and the network's scores."""
    nodes: list[Any] = [network.node(layer.sites[0]).args[0] for layer in network.layers]
    wanted = {str(node.name) for node in nodes}
    samples: dict[str, list[Tensor]] = {name: [] for name in wanted}

    def visit(node: torch.fx.Node, value: Tensor) -> None:
        if node.name in wanted:
            flat = value.flatten()
            samples[node.name].append(flat[:: max(1, flat.numel() // SAMPLE)].clone())

    found = []
    with torch.inference_mode():
        for batch in images.split(16):
            found.append(replay(network.graph, network.tensors, {network.inputs[0]: batch}, visit=visit)["output"])
    values = {name: torch.cat(parts).cpu().numpy() for name, parts in samples.items()}
    return {name: (float(np.quantile(abs(row), 0.999)), float(row.std())) for name, row in values.items()}, torch.cat(
        found
    )


def distance(found: dict[str, tuple[float, float]], reference: dict[str, tuple[float, float]], which: int) -> float:
    """Mean over layers of |log(found / reference)|."""
    pairs = [(found[name][which], reference[name][which]) for name in found]
    return sum(abs(math.log(one / other)) for one, other in pairs) / len(pairs)


def line(record: dict[str, Any]) -> str:
    return ", ".join(cells(record))


def cells(record: dict[str, Any]) -> list[str]:
    """What the table says of a case."""
    found = [f"{record['loss']:.3f}", f"{record['range_error']:.3f}", f"{record['rank_correlation']:.3f}"]
    for role in (SELECTION, CONFIRMATION):
        half = record["sets"][role]
        found += [f"{100 * half['top1'] / half['images']:.2f}", f"{half['mean_divergence']:.3f}"]
    return [*found, f"{record['units']:.0f}"]


def write_document() -> None:
    """docs/distillation.md from all results there are."""
    records = [record for file in sorted(RESULTS.glob("*.json")) if (record := read(file)) is not None]
    DOCUMENT.write_text(document(records), encoding="utf-8")


def key_for(name: str, case: Case) -> str:
    """Of everything that decides a result."""
    further = [program(Path(objectives.__file__).read_text(encoding="utf-8"))] if case.made else []
    return key_of([name, case.name, method_code(name), *further])


def document(records: list[dict[str, Any]]) -> str:
    """A table for each network, its cases in their order."""
    order, cases = {case.name: index for index, case in enumerate(CASES)}, {case.name: case for case in CASES}
    header = ["images", "loss", "range error", "rank correlation"]
    header += [f"{word}, {role}" for role in (SELECTION, CONFIRMATION) for word in ("W4A8", "divergence")]
    head = HEAD.format(tolerance=objectives.TOLERANCE)
    parts = [head, *(f"- {cpu}" for cpu in sorted({record["cpu"] for record in records}))]
    for name in sorted({record["network"] for record in records}, key=list(NETWORKS).index):
        own = [record for record in records if record["network"] == name and record["case"] in order]
        before = own[0]["sets"] if own else {}
        float_top1 = ", ".join(f"{100 * half['float_top1'] / half['images']:.2f}" for half in before.values())
        lines = [
            [
                record["case"] + ("" if record["key"] == key_for(name, cases[record["case"]]) else " `stale`"),
                *cells(record),
            ]
            for record in sorted(own, key=lambda record: order[record["case"]])
        ]
        parts += [f"## {name}", f"Float: {float_top1}.", table([*header, "units"], lines)]
    return "\n\n".join(part.strip() for part in parts) + "\n"


if __name__ == "__main__":
    sys.exit(main())

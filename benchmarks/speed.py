"""This project beside the paper's recipe, stage by stage, in one run on one machine:

    python -m benchmarks.speed --data ../shared/data --networks resnet18_cifar10,mobilenet_v2

The recipe (benchmarks/recipe.py) is timed for a few of its 500 iterations and of its full passes, and multiplied; with
--whole it is run to its end, so that the quality of its images can be measured as well. With --device cuda both compute
on a GPU. Writes docs/performance.md.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from benchmarks import recipe
from benchmarks.distillation import distance, layer_inputs
from benchmarks.document import table
from benchmarks.nearest import rounded_to_nearest
from benchmarks.order import rank_correlation
from benchmarks.process import read, write
from benchmarks.rows import NETWORKS, ROOT
from zeroq import devices
from zeroq.allocate import pareto_frontier
from zeroq.distillation import distill, natural_statistic
from zeroq.distillation.images import prepare
from zeroq.effort import EFFORTS
from zeroq.evaluate import calibration_pictures
from zeroq.graph import Layer, Network, capture, fold
from zeroq.models import load_model
from zeroq.sensitivity import measure_sensitivity

RESULTS = ROOT / "benchmarks" / "results" / "speed"
DOCUMENT = ROOT / "docs" / "performance.md"
WIDTHS = (2, 4, 8)
TIMED_STEPS, TIMED_PASSES = 4, 6  # of the recipe, after one that is not counted
ROUNDS = 5  # of the frontiers, which take milliseconds
PICTURES = {"imagenet": "imagenet_train_64", "cifar10": "cifar10_other_64.npz", "cifar100": "cifar100_other_64.npz"}

T = TypeVar("T")


@dataclass(frozen=True)
class Subject:
    """One network, with its BatchNorms and without, and real pictures to hold images against."""

    network: Network
    folded: Network
    statistic: Any
    real: Tensor
    weight: Callable[[Layer, int], Tensor]  # rounded to nearest

    @property
    def device(self) -> torch.device:
        """That all of it is on."""
        return self.real.device


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.speed", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--networks", default="resnet18_cifar10,mobilenet_v2")
    parser.add_argument("--whole", action="store_true", help="run the recipe to its end")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--device", default="cpu", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--markdown-only", action="store_true", help="measure nothing, write the document again")
    asked = parser.parse_args()
    if not asked.markdown_only:
        device = devices.resolve(asked.device)
        with devices.threads(asked.threads), devices.computing(device):
            for name in asked.networks.split(","):
                file = f"{name}.json" if device == devices.CPU else f"{name}_{device.type}.json"
                write(RESULTS / file, measured(name, asked.data, device, whole=asked.whole))
                write_document()
    write_document()
    return 0


def subject_of(name: str, data: Path, device: torch.device) -> Subject:
    """Everything that is not to be timed, on a device."""
    model = load_model(f"{data}/networks/{name}.py:{name}")
    network = capture(model.module, torch.zeros(2, *model.picture().input_shape))
    folded = fold(network).to(device)
    real = calibration_pictures(data / PICTURES[NETWORKS[name]], model.picture(), 64, 0).to(device)
    weight = rounded_to_nearest(folded, WIDTHS)
    return Subject(network.to(device), folded, natural_statistic(model.picture()), real, weight)


def measured(name: str, data: Path, device: torch.device, *, whole: bool) -> dict[str, Any]:
    """All stages of one network, ours and the recipe's, on the same number of images."""
    subject = subject_of(name, data, device)
    precision = devices.choose_precision(subject.network)[0]
    unit = statistics.median(32 * devices.step_seconds(subject.network, precision, 32) for _ in range(3))
    images, ours = timed(lambda: ours_distilled(subject, precision), device)
    theirs, recipe_images = recipe_distilled(subject, whole=whole)
    table_ours, seconds_ours = timed(lambda: ours_sensitivity(subject, images), device)
    seconds_theirs = recipe_sensitivity(subject, images)
    reference = ours_sensitivity(subject, subject.real[:32])
    found = {"ours": images} | ({} if recipe_images is None else {"recipe": recipe_images})
    return {
        "network": name,
        "cpu": devices.processor(),
        "device": devices.name_of(device),
        "integer_instructions": devices.integer_instructions(),
        "threads": torch.get_num_threads(),
        "precision": f"{precision.name} {precision.layout}",
        "unit_seconds": round(unit, 4),
        "layers": len(subject.folded.layers),
        "images": len(images),
        "whole": whole,
        "seconds": {
            "images": {"ours": round(ours, 3), "recipe": round(theirs, 3)},
            "sensitivity": {"ours": round(seconds_ours, 3), "recipe": round(seconds_theirs, 3)},
            "frontier": frontier_seconds(subject, table_ours),
        },
        "quality": {
            who: quality(subject, each, table_ours if who == "ours" else ours_sensitivity(subject, each), reference)
            for who, each in found.items()
        },
        "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000, 1),
    }


def timed(function: Callable[[], T], device: torch.device = devices.CPU) -> tuple[T, float]:
    """What a function gives, and its seconds; device: that computes, whose work is waited for."""
    devices.finish(device)
    begin = time.perf_counter()
    value = function()
    devices.finish(device)
    return value, time.perf_counter() - begin


def ours_distilled(subject: Subject, precision: devices.Precision) -> Tensor:
    """As many images as the recipe has, with the iterations of --effort balanced."""
    return distill(
        subject.network, subject.statistic, count=recipe.IMAGES, iterations=EFFORTS["balanced"].iterations, seed=0,
        precision=precision,
    )  # fmt: skip


def recipe_distilled(subject: Subject, *, whole: bool) -> tuple[float, Tensor | None]:
    """Seconds of the recipe's iterations, and its images if it was run to its end."""
    begin = recipe.start(subject.network)
    if whole:
        images, seconds = timed(lambda: recipe.distilled(begin, subject.network), subject.device)
        return seconds, images
    recipe.distilled(begin, subject.network, 1)
    _, seconds = timed(lambda: recipe.distilled(begin, subject.network, TIMED_STEPS), subject.device)
    return seconds / TIMED_STEPS * recipe.ITERATIONS, None


def ours_sensitivity(subject: Subject, images: Tensor) -> list[list[float]]:
    """[layers][widths], by our walk."""
    found = measure_sensitivity(
        subject.folded, images, WIDTHS, lambda layer, width: (subject.weight(layer, width), None)
    )
    return [list(row) for row in found.values]


def recipe_sensitivity(subject: Subject, images: Tensor) -> float:
    """Seconds of a full pass for every layer and width, from a few of them spread over the layers."""
    layers = subject.folded.layers
    chosen = [layers[int(place)] for place in np.linspace(0, len(layers) - 1, TIMED_PASSES)]
    with torch.inference_mode():
        reference = subject.folded.run(images)
    passes = []
    for layer in chosen:
        one_pass = partial(recipe.sensitivity, subject.folded, layer, 4, images, reference, subject.weight)
        passes.append(timed(one_pass, subject.device)[1])
    return statistics.median(passes) * len(layers) * len(WIDTHS)


def frontier_seconds(subject: Subject, costs: list[list[float]]) -> dict[str, float]:
    """Of our exact frontier and of the recipe's bins, medians."""
    sizes = [[width * layer.parameters for width in WIDTHS] for layer in subject.folded.layers]
    both: dict[str, Callable[[], Any]] = {
        "ours": lambda: pareto_frontier(sizes, costs),
        "recipe": lambda: recipe.binned(sizes, costs),
    }
    return {who: round(statistics.median(timed(each)[1] for _ in range(ROUNDS)), 5) for who, each in both.items()}


def quality(
    subject: Subject, images: Tensor, sensitivities: list[list[float]], reference: list[list[float]]
) -> dict[str, float]:
    """How near images come to real ones: ranges and sensitivities; and to the statistics that they are made for."""
    matching = prepare(subject.network, subject.statistic, devices.Precision())
    with torch.no_grad():
        loss = matching.loss(images).item()
        scores = [subject.network.run(batch) for batch in images.split(16)]
    ranges = distance(layer_inputs(subject.network, images)[0], layer_inputs(subject.network, subject.real)[0], 0)
    return {
        "statistics_loss": round(loss, 4),
        "range_error": round(ranges, 4),
        "rank_correlation": round(rank_correlation(np.ravel(sensitivities), np.ravel(reference)), 4),
        "confidence": round(float(torch.softmax(torch.cat(scores), 1).amax(1).mean()), 4),
    }


def write_document() -> None:
    """docs/performance.md from all results there are."""
    records = [record for file in sorted(RESULTS.glob("*.json")) if (record := read(file)) is not None]
    DOCUMENT.write_text(document(records), encoding="utf-8")


def document(records: list[dict[str, Any]]) -> str:
    """Tables of times and of quality."""
    times, qualities = [], []
    for record in records:
        name = record["network"] if computed_by_cpu(record) else f"{record['network']}, {record['device']}"
        for stage, seconds in record["seconds"].items():
            times.append([
                name, stage, f"{seconds['recipe']:.4g}", f"{seconds['ours']:.4g}",
                f"{seconds['recipe'] / seconds['ours']:.1f}", f"{seconds['ours'] / record['unit_seconds']:.1f}",
            ])  # fmt: skip
        for who, values in record["quality"].items():
            qualities.append([name, who, *(f"{value:.3f}" for value in values.values())])
    machines = sorted({
        f"{each['cpu']}, {each['integer_instructions']}, {each['threads']} thread(s), {each['precision']}"
        if computed_by_cpu(each)
        else f"{each['device']}, {each['precision']}"
        for each in records
    })  # fmt: skip
    parts = [
        HEAD,
        *(f"- {machine}" for machine in machines),
        "## Time",
        table(["network", "stage", "recipe, s", "ours, s", "times as fast", "ours, units"], times),
        "## Quality of the images",
        QUALITY,
        table(["network", "images", "statistics loss", "range error", "rank correlation", "confidence"], qualities),
    ]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def computed_by_cpu(record: dict[str, Any]) -> bool:
    """Whether a record is of a processor; the earliest name no other device."""
    return record.get("device", record["cpu"]) == record["cpu"]


HEAD = """# Performance

Written by `python -m benchmarks.speed --data ../shared/data`; change nothing here by hand.

This project beside the paper's recipe, implemented from its description (arXiv:2001.00281; `benchmarks/recipe.py`):
same network, same number of images, same run, same machine. Unless its images are listed below, the recipe was timed
for a few of its 500 iterations and multiplied; of its full passes, one for every layer and width, a few are timed as
well. A unit is one forward and backward pass of 32 pictures in the precision of the run.
"""
QUALITY = """Statistics loss: what our distillation makes small, over the whole set of images. Range error: mean over
layers of |log| of the 99.9 percentile of each layer's input over that of 64 real pictures. Rank correlation: of the
sensitivities of all layers and widths (weights to nearest) with those from 32 real pictures, Spearman's.
"""


if __name__ == "__main__":
    sys.exit(main())

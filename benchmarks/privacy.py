"""How near distilled images come to training pictures, where the training set is at hand: the embedded network, digits.

    python -m benchmarks.privacy

Writes benchmarks/results/privacy.json and the figures of docs/privacy.md.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.document import table
from benchmarks.rows import ROOT
from zeroq.distillation import distill, natural_statistic
from zeroq.effort import EFFORTS
from zeroq.graph import Network, capture, replay
from zeroq.models import load_model
from zeroq.models.digits import load_test_split, load_training_split
from zeroq.preprocessing import apply_pixels
from zeroq.whole_files import json_bytes

RESULT, DOCUMENT = ROOT / "benchmarks" / "results" / "privacy.json", ROOT / "docs" / "privacy.md"
BEGIN, END = "<!-- figures of python -m benchmarks.privacy -->", "<!-- end of figures -->"
EFFORT, SEEDS = "balanced", (0, 1, 2)


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.privacy")
    parser.add_argument("--markdown-only", action="store_true", help="measure nothing, write the figures again")
    if not parser.parse_args().markdown_only:
        RESULT.write_bytes(json_bytes(measure()))
    text = DOCUMENT.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    found = figures(json.loads(RESULT.read_text(encoding="utf-8")))
    DOCUMENT.write_text(f"{before}{BEGIN}\n\n{found}\n\n{END}{after}", encoding="utf-8")
    print(found)
    return 0


def measure() -> dict[str, Any]:
    """Distances of each kind of picture to the nearest training picture, in pixels and in features."""
    model = load_model("digits")
    network = capture(model.module, torch.zeros(2, *model.input_shape))
    statistic = natural_statistic(model.picture(), *(model.input_statistic or (None, None)))
    (training, _), (test, _) = load_training_split(), load_test_split()
    known, unknown = (apply_pixels(pixels, model.picture()) for pixels in (training, test))
    effort = EFFORTS[EFFORT]
    drawn = {
        name: torch.cat([
            distill(network, statistic, count=effort.images, iterations=steps, seed=seed) for seed in SEEDS
        ])
        for name, steps in (("noise of natural spectrum", 0), ("distilled images", effort.iterations))
    }  # fmt: skip
    spaces = {"features": lambda images: features(network, images), "pixels": lambda images: images.flatten(1)}
    return {
        "images": len(drawn["distilled images"]),
        "training": len(training),
        "test": len(test),
        "spaces": {name: compared(space, known, unknown, drawn) for name, space in spaces.items()},
    }


def features(network: Network, images: Tensor) -> Tensor:
    """What the last layer reads, [N, features]."""
    last: Any = network.node(network.layers[-1].sites[0]).args[0]
    kept: list[Tensor] = []

    def visit(node: torch.fx.Node, value: Any) -> None:
        if node.name == last.name:
            kept.append(value)

    with torch.inference_mode():
        replay(network.graph, network.tensors, {network.inputs[0]: images}, visit=visit)
    return kept[0].flatten(1)


def compared(space: Any, training: Tensor, test: Tensor, drawn: dict[str, Tensor]) -> dict[str, Any]:
    """Quantiles of the distance to the nearest training picture, in medians of test pictures; and nearer to which."""
    train, other = space(training), space(test)
    unit = nearest(other, train).median()
    within = torch.cdist(train, train).fill_diagonal_(torch.inf).min(1).values
    rows = {"training pictures, to another": within / unit, "test pictures": nearest(other, train) / unit}
    rows |= {name: nearest(space(images), train) / unit for name, images in drawn.items()}
    few = train[torch.randperm(len(train), generator=torch.Generator().manual_seed(0))[: len(other)]]
    distilled = space(drawn["distilled images"])
    closest = int((nearest(distilled, few) < nearest(distilled, other)).sum())
    quantiles = torch.tensor([0.0, 0.05, 0.5])
    return {
        "quantiles": {name: [round(float(q), 3) for q in torch.quantile(row, quantiles)] for name, row in rows.items()},
        "nearer_to_training": closest,
    }


def nearest(images: Tensor, others: Tensor) -> Tensor:
    """Distance of each of the images [N, D] to the nearest of the others [M, D]: [N]."""
    return torch.cdist(images, others).min(1).values


def figures(result: dict[str, Any]) -> str:
    """Two tables and a sentence on membership."""
    parts = []
    for name, space in result["spaces"].items():
        rows = [[kind, *(f"{value:.2f}" for value in values)] for kind, values in space["quantiles"].items()]
        parts.append(f"Distance in {name}:")
        parts.append(table(["", "least", "5 %", "median"], rows))
    count = result["images"]
    half = 1.645 * np.sqrt(0.25 / count)
    shares = " and ".join(
        f"{100 * space['nearer_to_training'] / count:.0f} % by {name}" for name, space in result["spaces"].items()
    )
    parts.append(
        f"Of {count} distilled images, {shares} are nearer to one of {result['test']} training pictures than to one of "
        f"the {result['test']} test pictures; {100 * (0.5 - half):.0f} to {100 * (0.5 + half):.0f} % would be chance."
    )
    return "\n\n".join(parts)


if __name__ == "__main__":
    sys.exit(main())

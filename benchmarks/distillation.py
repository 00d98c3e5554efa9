"""How near distilled images come to real pictures as calibration, by effort; prints a table and writes nothing:

    python -m benchmarks.distillation --data ../shared/data --networks resnet20_cifar10,mobilenet_v2

For every layer's input the 99.9 percentile of its magnitude and its deviation are compared with those on 64 real
pictures: the mean over layers of |logarithm of the ratio|. "real" is 32 of the pictures against the others: what chance
does. Loss: the distance from the BatchNorms' statistics. Confidence: mean of the largest probability. Classes: how many
are the most probable for some image. Steps are timed beside a unit, a plain forward and backward pass of 32 pictures.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.rows import NETWORKS
from zeroq.devices import Precision, choose_precision, step_seconds
from zeroq.distillation import EFFORTS, distill, natural_statistic
from zeroq.distillation.images import prepare
from zeroq.evaluate import calibration_pictures
from zeroq.graph import Network, capture, replay
from zeroq.models import load_model

SAMPLE = 400_000  # values per layer and batch
HEADER = (
    f"{'network':20} {'images':24} {'loss':>7} {'p99.9':>6} {'std':>6} {'confidence':>10} {'classes':>7} {'units':>6}"
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.distillation")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--efforts", default="fast,balanced")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    print(HEADER)
    for name in asked.networks.split(","):
        study(name, asked.data, asked.efforts.split(","), asked.seed)


def study(name: str, data: Path, efforts: list[str], seed: int) -> None:
    """The rows of one network."""
    model = load_model(f"{data}/networks/{name}.py:{name}")
    network = capture(model.module, torch.zeros(2, *model.picture().input_shape))
    statistic = natural_statistic(model.picture())
    matching = prepare(network, statistic, Precision())
    source = data / ("imagenet_train_64" if NETWORKS[name] == "imagenet" else f"{NETWORKS[name]}_other_64.npz")
    real = calibration_pictures(source, model.picture(), 64, seed)
    reference, precision = layer_inputs(network, real)[0], choose_precision(network)[0]
    unit = 32 * step_seconds(network, precision, 32)
    cases = {"real, 32 against 32": (real[:32], layer_inputs(network, real[32:])[0], 0.0)}
    for effort in ("none", *efforts):
        count, steps = (32, 0) if effort == "none" else (EFFORTS[effort].images, EFFORTS[effort].iterations)
        begin = time.perf_counter()
        images = distill(network, statistic, count=count, iterations=steps, seed=seed, precision=precision)
        units = (time.perf_counter() - begin) / unit
        cases[f"{effort}, {count} x {steps} steps"] = (images, reference, units)
    for case, (images, against, units) in cases.items():
        found, scores = layer_inputs(network, images)
        with torch.no_grad():
            loss = matching.loss(images).item()
        probable, classes = torch.softmax(scores, 1).max(1)
        print(
            f"{name:20} {case:24} {loss:7.3f} {distance(found, against, 0):6.3f} {distance(found, against, 1):6.3f} "
            f"{probable.mean():10.3f} {len(classes.unique()):7} {units:6.1f}",
            flush=True,
        )


def layer_inputs(network: Network, images: Tensor) -> tuple[dict[str, tuple[float, float]], Tensor]:
    """Percentile 99.9 of the magnitude and deviation of each layer's input, and the network's scores."""
    nodes: list[Any] = [network.node(layer.sites[0]).args[0] for layer in network.layers]
    wanted = {str(node.name) for node in nodes}
    samples: dict[str, list[Tensor]] = {name: [] for name in wanted}

    def visit(node: torch.fx.Node, value: Tensor) -> None:
        if node.name in wanted:
            flat = value.flatten()
            samples[node.name].append(flat[:: max(1, flat.numel() // SAMPLE)].clone())

    scores = []
    with torch.inference_mode():
        for batch in images.split(16):
            scores.append(replay(network.graph, network.tensors, {network.inputs[0]: batch}, visit=visit)["output"])
    values = {name: torch.cat(parts).numpy() for name, parts in samples.items()}
    return {name: (float(np.quantile(abs(row), 0.999)), float(row.std())) for name, row in values.items()}, torch.cat(
        scores
    )


def distance(found: dict[str, tuple[float, float]], reference: dict[str, tuple[float, float]], which: int) -> float:
    """Mean over layers of |log(found / reference)|."""
    pairs = [(found[name][which], reference[name][which]) for name in found]
    return sum(abs(math.log(one / other)) for one, other in pairs) / len(pairs)


if __name__ == "__main__":
    main()

"""What of well-known networks runs in integers, and what stays in floating point:

    python -m benchmarks.coverage                                  # what is missing of the packages installed here
    python -m benchmarks.coverage --networks pytorchcv:resnet18

Networks have fresh weights and plausible statistics (plausible.py); each is quantized to 8 bits on a few images, and
what is counted is the optimised graph of onnxruntime. Results are kept in benchmarks/results/coverage.json, from
which docs/models.md is written.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from benchmarks.document import table
from benchmarks.plausible import make_plausible
from benchmarks.process import read, write
from benchmarks.rows import ROOT
from zeroq import quantize
from zeroq.errors import ZeroqError
from zeroq.models.zoo import find_in_zoo

RESULTS = ROOT / "benchmarks" / "results" / "coverage.json"
DOCUMENT = ROOT / "docs" / "models.md"
OPTIONS: dict[str, Any] = {"images": 4, "iterations": 1, "threads": 1, "effort": "fast"}
CROP, SIDE, WHOLE = 64, 32, 224  # pixels of a side: what is counted hardly depends on it; many take one alone
NETWORKS: dict[str, int] = {
    "pytorchcv:resnet20_cifar10": SIDE,
    "pytorchcv:preresnet20_cifar10": SIDE,
    "pytorchcv:seresnet20_cifar10": SIDE,
    "pytorchcv:densenet40_k12_cifar10": SIDE,
    "pytorchcv:resnet18": WHOLE,
    "pytorchcv:vgg11": WHOLE,
    "pytorchcv:squeezenet_v1_1": WHOLE,
    "pytorchcv:mobilenetv2_wd4": WHOLE,
    "pytorchcv:mobilenetv3_small_w1": WHOLE,
    "pytorchcv:shufflenet_g1_wd4": WHOLE,
    "pytorchcv:shufflenetv2_wd2": WHOLE,
    "pytorchcv:efficientnet_b0": WHOLE,
    "torchvision:mobilenet_v3_small": CROP,
    "torchvision:efficientnet_b0": CROP,
    "torchvision:regnet_y_400mf": CROP,
    "torchvision:densenet121": CROP,
    "torchvision:convnext_tiny": CROP,
    "timm:convnext_atto": CROP,
    "timm:vit_tiny_patch16_224": WHOLE,
    "timm:deit_tiny_patch16_224": WHOLE,
    "timm:swin_tiny_patch4_window7_224": WHOLE,
}
HEAD = """# Networks

Written by `python -m benchmarks.coverage`; change nothing here by hand. `zeroq models` lists all names.

How much of each network runs in integers in onnxruntime, of the multiply-accumulates of its convolutions, linear layers
and products, and what stays in floating point, with how often. Weights are fresh, activations and weights have 8 bits.
Torchvision and timm need an environment of their own here: `make test-zoo` makes it.
"""


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.coverage", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--networks", type=lambda text: text.split(","), help="by default those that are missing")
    asked = parser.parse_args()
    found = read(RESULTS) or {}
    if unknown := [name for name in asked.networks or () if name not in NETWORKS]:
        parser.error(f"--networks {unknown[0]}: choose from {', '.join(NETWORKS)}.")
    for name in asked.networks or [name for name in NETWORKS if name not in found]:
        if importlib.util.find_spec(name.partition(":")[0]) is None:
            continue
        print(f"{name}: ", end="", flush=True)
        found[name] = covered(name)
        write(RESULTS, {name: found[name] for name in NETWORKS if name in found})
        print(found[name], flush=True)
    DOCUMENT.write_text(document(found), encoding="utf-8")
    return 0


def covered(name: str) -> dict[str, Any]:
    """What a network's file holds, in figures; or why there is none."""
    zoo, _, short = name.partition(":")
    torch.manual_seed(0)
    found = find_in_zoo(zoo, short, pretrained=False)
    assert found.preprocessing is not None
    size = (NETWORKS[name], NETWORKS[name])
    preprocessing = dataclasses.replace(found.preprocessing, size=size, resize="stretch")
    example = torch.zeros(1, *preprocessing.input_shape)
    make_plausible(found.module, preprocessing, pictures=4)
    with tempfile.TemporaryDirectory(prefix="coverage-") as folder:
        try:
            run = quantize(
                found.module, example, out=Path(folder) / "run", preprocess=preprocessing.to_dict(),
                task="classification", name=short, **OPTIONS,
            )  # fmt: skip
        except ZeroqError as error:
            return {"error": str(error)}
    return {
        "layers": len(run.result["layers"]),
        "integer_share": run.result["integer_share"],
        "largest_steps": run.result["verification"]["largest_steps"],
        "floating": dict(Counter(reason(entry["reason"]) for entry in run.result["not_quantized"])),
        "float_nodes": run.result["float_nodes"],
    }


def reason(text: str) -> str:
    """Why something stays in floating point, without what is said after it."""
    return text.split(", which")[0]


def document(found: dict[str, dict[str, Any]]) -> str:
    """docs/models.md."""
    rows = [row(name, found[name]) for name in NETWORKS if name in found]
    return f"{HEAD}\n{table(['network', 'layers', 'in integers', 'in floating point'], rows)}\n"


def row(name: str, record: dict[str, Any]) -> list[str]:
    """One line of the table."""
    if "error" in record:
        return [name, "–", "–", record["error"]]
    listed = "; ".join(f"{why} ({count})" for why, count in record["floating"].items())
    return [name, str(record["layers"]), f"{record['integer_share']:.1%}", listed or "nothing"]


if __name__ == "__main__":
    sys.exit(main())

"""What W8A8 loses by distorted BatchNorm statistics, the network's function in floating point staying the same:

    python -m benchmarks.distortion --data ../shared/data

In a tenth of the channels running mean and variance are each multiplied by a factor, log-uniform in 0.01..100, while
weight and bias of the BatchNorm make up for it. Results go to benchmarks/results/distortion/; one whose options and
method are unchanged is not measured again. docs/distortion.md is written anew after each.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.document import interval, kept, table
from benchmarks.halves import CONFIRMATION, SELECTION, halves, scores
from benchmarks.limits import against_row, missed
from benchmarks.measure import compared
from benchmarks.process import read, without_places, write
from benchmarks.rows import ROOT, key_of, method_code
from zeroq.evaluate import onnx_predictor
from zeroq.models import LoadedModel, load_model
from zeroq.models.weights import weights_sha256
from zeroq.options import Options
from zeroq.pipeline import quantize_model
from zeroq.whole_files import read_json

RESULTS, DOCUMENT = ROOT / "benchmarks" / "results" / "distortion", ROOT / "docs" / "distortion.md"
NETWORKS = ("resnet20_cifar10", "mobilenet_v2")
SEEDS = (None, 0, 1, 2)  # None: not distorted
SHARE, DECADES = 0.1, 2.0  # of the channels, and of the factors to either side of 1
LEAST = -1.0  # points of top-1 against the undistorted network's W8A8
HEAD = """# Distorted statistics

Written by `python -m benchmarks.distortion --data ../shared/data`; change nothing here by hand.

In a tenth of the channels of every BatchNorm, running mean and running variance are each multiplied by a factor that is
log-uniform in 0.01..100, while the BatchNorm's weight and bias are changed so that the network's function in floating
point stays the same. A distillation that believes these statistics makes images of values that the network never
sees. The program compares them with noise of natural spectrum, and leaves out channels that differ by far more than
the others (`src/zeroq/distillation/doubts.py`).

Top-1 of W8A8 in per cent, of the ONNX file in onnxruntime. Difference: distorted minus undistorted, both W8A8, on the
same pictures, in points, with its paired 90 % interval. Limit: at most 1 point less, missed where the interval lies
wholly beyond it. *Divergence*: mean KL from float, undistorted and distorted; it tells a loss from the luck of a few
pictures. *Selection*: what the method was chosen on; *confirmation*: pictures of another source (ImageNet) or the odd
places (CIFAR). A result marked `stale` was measured with another version of the method.
"""


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.distortion")
    parser.add_argument("--data", type=Path, required=True, help="the folder of networks and pictures")
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--effort", default="balanced")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--markdown-only", action="store_true", help="measure nothing, write the document again")
    asked = parser.parse_args()
    for name in () if asked.markdown_only else asked.networks.split(","):
        for seed in SEEDS:
            bring_up_to_date(name, seed, asked)
    write_document()
    return 0


def bring_up_to_date(name: str, seed: int | None, asked: argparse.Namespace) -> None:
    """Measure one case unless its result still holds."""
    options = Options.of(effort=asked.effort, threads=asked.threads)
    key = key_for(name, seed, asked.effort)
    path = RESULTS / f"{name}-{'clean' if seed is None else seed}.json"
    if (known := read(path)) is not None and known["key"] == key:
        print(f"{path.stem}: still holds", flush=True)
        return
    record = {"network": name, "seed": seed, "key": key} | measure(name, seed, asked.data.resolve(), options)
    write(path, record)
    write_document()
    print(f"{path.stem}: {json.dumps({role: half['top1'] for role, half in record['sets'].items()})}", flush=True)


def key_for(name: str, seed: int | None, effort: str) -> str:
    """Of everything that decides a result."""
    return key_of([name, seed, effort, SHARE, DECADES, method_code(name)])


def measure(name: str, seed: int | None, data: Path, options: Options) -> dict[str, Any]:
    """W8A8 of a network whose statistics are distorted by a seed, on both halves."""
    model = load_model(f"{data / 'networks' / name}.py:{name}")
    pictures = halves(name, model, data)
    expected = {half.role: scores_in_float(model, half) for half in pictures}
    distorted = 0 if seed is None else distort(model.module, seed)
    model = replace(model, weights_sha256=weights_sha256(model.module))
    changed = max(
        float((scores_in_float(model, half) - expected[half.role]).abs().max() / expected[half.role].abs().max())
        for half in pictures
    )
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        run = quantize_model(model, options, Path(folder) / "run")
        predict = onnx_predictor(Path(folder) / "run" / "model.onnx", torch.get_num_threads())
        sets = {half.role: compared(half, expected[half.role], scores(predict, half.data)) for half in pictures}
        statistics = read_json(Path(folder) / "run" / "run.json")["doubts"]
        warnings = [without_places(text, {"DATA": data, "TEMPORARY": Path(folder)}) for text in run.result["warnings"]]
    return {
        "effort": options.effort,
        "distorted_channels": distorted,
        "largest_change_in_float": changed,
        "left_out_channels": sum(doubt["channels"] for doubt in statistics if doubt["kind"] == "inconsistent"),
        "sets": sets,
        "warnings": warnings,
        "cpu": run.result["cpu"],
    }


def scores_in_float(model: LoadedModel, half: Any) -> torch.Tensor:
    """Scores [N, K] in floating point."""
    with torch.inference_mode():
        return scores(model.module, half.data)


@torch.no_grad()
def distort(module: nn.Module, seed: int) -> int:
    """Distort a module's running statistics in place, and give the number of channels.

    With sigma^2 the variance plus epsilon, g, b, mu and sigma become g sigma' / sigma, b + g (mu' - mu) / sigma, mu'
    and sigma': g (x - mu) / sigma + b stays.
    """
    generator, count = torch.Generator().manual_seed(seed), 0
    norms: list[Any] = [part for part in module.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        hit = torch.rand(norm.num_features, generator=generator) < SHARE
        exponents = (2 * torch.rand(2, norm.num_features, generator=generator) - 1) * DECADES
        of_mean, of_variance = torch.where(hit, 10**exponents, torch.ones(()))
        mean, deviation = norm.running_mean.clone(), torch.sqrt(norm.running_var + norm.eps)
        norm.running_mean.mul_(of_mean)
        norm.running_var.mul_(of_variance)
        norm.bias.add_(norm.weight * (norm.running_mean - mean) / deviation)
        norm.weight.mul_(torch.sqrt(norm.running_var + norm.eps) / deviation)
        count += int(hit.sum())
    return count


def write_document() -> None:
    """docs/distortion.md from all results there are."""
    records = [read_json(path) for path in sorted(RESULTS.glob("*.json"))]
    keys = {record["key"] for record in records}
    stale = keys - {key_for(record["network"], record["seed"], record["effort"]) for record in records}
    DOCUMENT.write_text(document(records, stale), encoding="utf-8")


def document(records: list[dict[str, Any]], stale: Collection[str] = ()) -> str:
    """The page. A case without its undistorted network has no row.  stale: keys of results that no longer hold."""
    clean = {record["network"]: record for record in records if record["seed"] is None}
    rows = []
    for record in records:
        before = clean.get(record["network"])
        if record["seed"] is None or before is None:
            continue
        mark = " `stale`" if record.get("key") in stale or before.get("key") in stale else ""
        cells = [f"{record['network']}{mark}", str(record["seed"]), record["effort"], f"{record['distorted_channels']}"]
        cells += [f"{record['left_out_channels']}", f"{before['left_out_channels']}"]
        held = []
        for role in (SELECTION, CONFIRMATION):
            pair = against_row(before, record, role)
            cells += [top1(before, role, "float_top1"), top1(before, role), top1(record, role), interval(pair)]
            cells.append(", ".join(f"{each['sets'][role]['mean_divergence']:.4f}" for each in (before, record)))
            held.append(not missed(pair, LEAST))
        rows.append([*cells, kept(all(held))])
    of_role = ["float", "undistorted", "distorted", "difference", "divergence"]
    header = ["network", "seed", "effort", "channels distorted", "left out", "left out undistorted"]
    header += [f"{word}, {role}" for role in (SELECTION, CONFIRMATION) for word in of_role]
    return "\n\n".join([HEAD.strip(), table([*header, "limit"], rows)]) + "\n"


def top1(record: dict[str, Any], role: str, entry: str = "top1") -> str:
    half = record["sets"][role]
    return f"{100 * half[entry] / half['images']:.2f}"


if __name__ == "__main__":
    sys.exit(main())

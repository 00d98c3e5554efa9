"""One row of benchmarks.recipes, in a process of its own:

    python -m benchmarks.recipe_measure NETWORK SETTING RECIPE --data FOLDER --out FILE.json
"""

from __future__ import annotations

import hashlib
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor

from benchmarks import dfq, recipe
from benchmarks.halves import float_scores, halves, scores
from benchmarks.measure import compared, shared_run
from benchmarks.plain import least_scales_of
from benchmarks.process import row_parser
from benchmarks.recipe_rows import DFQ, PAPER, RecipeRow
from benchmarks.rows import CACHE, ROOT, program
from zeroq import devices
from zeroq.deploy import export_onnx
from zeroq.evaluate import onnx_predictor
from zeroq.fitted_ranges import fit_ranges
from zeroq.models import LoadedModel, load_model
from zeroq.pipeline import facts
from zeroq.preparation import Prepared, prepare
from zeroq.rounding import round_weight
from zeroq.run_directory import RunDirectory
from zeroq.simulate import QuantizedNetwork, quantize_network
from zeroq.stages import Stages
from zeroq.whole_files import json_bytes


def main() -> None:
    asked = row_parser("benchmarks.recipe_measure", "network", "setting", "recipe", data=True).parse_args()
    row = RecipeRow(asked.network, asked.setting, asked.recipe)
    model = load_model(f"{asked.data / 'networks' / row.network}.py:{row.network}")
    with devices.threads(asked.threads):
        asked.out.write_bytes(json_bytes(measure(row, model, asked.data, asked.threads)))


def measure(row: RecipeRow, model: LoadedModel, data: Path, threads: int | None) -> dict[str, Any]:
    """Quantize by the recipe, write the file, and compare its answers with the float network's on both halves."""
    prepared = prepare(model, row.options(threads=threads))
    widths = {name: widths[0] for name, widths in prepared.plan.widths.items()}
    begin = time.perf_counter()
    network = quantized(row, prepared, widths)
    seconds = time.perf_counter() - begin
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        file = Path(folder) / "model.onnx"
        by_tensor = {f"{layer.weight}_integers": widths[layer.name] for layer in prepared.plan.layers}
        onnx.save(export_onnx(network, prepared.folded.example, by_tensor, {}), file)
        predict = onnx_predictor(file, torch.get_num_threads())
        sets = {}
        for half in halves(row.network, model, data):
            expected = float_scores(model.name, model, half, CACHE)
            sets[half.role] = compared(half, expected, scores(predict, half.data))
    return {
        "sets": sets,
        "seconds": round(seconds, 1),
        "weights_sha256": model.weights_sha256,
        "cpu": devices.processor(),
        "integer_instructions": devices.integer_instructions(),
        "threads": torch.get_num_threads(),
    }


def quantized(row: RecipeRow, prepared: Prepared, widths: dict[str, int]) -> QuantizedNetwork:
    """The network as a recipe quantizes it; widths: of each layer's weights."""
    bits = prepared.plan.input_bits
    if row.recipe == PAPER:
        return recipe.quantized(prepared.folded, recipe_images(prepared), widths, bits)
    if row.recipe == DFQ:
        return dfq.quantized(prepared.network, prepared.folded, prepared.statistics[0], widths, bits)
    return squant(row, prepared, widths)


def recipe_images(prepared: Prepared) -> Tensor:
    """The images of the paper's recipe, made once for all settings of a network."""
    text = program((ROOT / "benchmarks" / "recipe.py").read_text(encoding="utf-8"))
    identity = hashlib.sha256(f"{prepared.model.weights_sha256} {text}".encode()).hexdigest()[:16]
    path = CACHE / "recipe" / f"{prepared.model.name}-{identity}.npz"
    if not path.is_file():
        images = recipe.distilled(recipe.start(prepared.network), prepared.network)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}")  # savez adds .npz to any other ending
        np.savez(partial, images=images.numpy())
        partial.replace(path)
    with np.load(path) as arrays:
        return torch.from_numpy(arrays["images"])


def squant(row: RecipeRow, prepared: Prepared, widths: dict[str, int]) -> QuantizedNetwork:
    """Weights by SQuant, without images, with our scales; ranges from our images; nothing is corrected."""
    with RunDirectory(shared_run(row.images)) as run:
        run.describe(facts(prepared))
        stages = Stages(run, prepared, lambda stage, done, total: None)
        ranges = fit_ranges(prepared, stages.distil())[0]
    folded, placement, bits = prepared.folded, prepared.placement, prepared.plan.input_bits
    weights = {
        layer.name: round_weight(
            folded.tensors[layer.weight], widths[layer.name], None, groups=layer.groups, method="squant",
            least_scale=least_scales_of(folded, placement, ranges, layer, bits[layer.name]), name=layer.name,
        )
        for layer in prepared.plan.layers
    }  # fmt: skip
    return quantize_network(folded, placement, ranges, weights, bits)


if __name__ == "__main__":
    main()

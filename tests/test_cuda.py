"""On a GPU, where there is one: the stages end near what a CPU makes, and the file equals its simulation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.runs import QUICK, loaded
from zeroq.models import load_model
from zeroq.numbers.grid import Grid
from zeroq.numbers.tensor_file import read_tensor_file
from zeroq.options import Options
from zeroq.pipeline import quantize_model
from zeroq.rounding.gptq import elimination, round_gptq
from zeroq.rounding.joint import shifted_to
from zeroq.rounding.methods import round_widths
from zeroq.rounding.scales import search_scales
from zeroq.whole_files import read_json

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
ASKED: dict[str, Any] = {**QUICK, "precision": "fp32", "average_bits": 4}


@pytest.mark.parametrize("name", ["digits", "residual", "depthwise", "linear_depthwise", "attention"])
def test_a_gpu_makes_what_a_cpu_makes(name: str, tmp_path: Path) -> None:
    results = {}
    for device in ("cpu", "cuda"):
        model = load_model(name) if name == "digits" else loaded(name)
        results[device] = quantize_model(model, Options.of(**ASKED, device=device), tmp_path / device).result
    images = [read_tensor_file(tmp_path / device / "distilled.safetensors")[0]["images"] for device in results]
    assert torch.allclose(*images, atol=1e-2)
    ranges = [read_json(tmp_path / device / "ranges.json")["quantizers"] for device in results]
    assert all(each["high"] == pytest.approx(ranges[1][key]["high"], rel=0.05) for key, each in ranges[0].items())
    assert results["cuda"]["device"] == "cuda" and "device_name" in read_json(tmp_path / "cuda" / "run.json")
    assert results["cuda"]["average_bits"] <= 4
    assert results["cuda"]["verification"] == pytest.approx(results["cpu"]["verification"], abs=1e-3)


@pytest.mark.parametrize(
    ("groups", "filters", "columns", "bits", "limited"),
    [(1, 5, 9, 8, True), (1, 20, 300, 8, True), (3, 7, 27, 4, False), (2, 8, 129, 8, True), (16, 1, 9, 2, False)],
)
@pytest.mark.parametrize("shifted", [False, True])
def test_the_kernel_fixes_columns_as_the_loop_does(
    groups: int, filters: int, columns: int, bits: int, limited: bool, shifted: bool
) -> None:
    if shifted and bits == 8:
        pytest.skip("grids of 8 bits are not shifted")
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(groups, filters, columns, generator=generator)
    inputs = torch.randn(groups, 1000, columns, generator=generator)
    hessian = inputs.transpose(1, 2) @ inputs / 500
    grid, grid_there = (
        shifted_to(each, bits) if shifted else Grid(bits, signed=True) for each in (weight, weight.cuda())
    )
    scale = search_scales(weight, grid) if shifted else weight.abs().amax(-1) / (2 ** (bits - 1) - 1)
    here = round_gptq(weight, scale, grid, elimination(hessian), limited)
    there = round_gptq(weight.cuda(), scale.cuda(), grid_there, elimination(hessian.cuda()), limited).cpu()
    errors = [weight - integers * scale[..., None] for integers in (here, there)]
    losses = [torch.einsum("gfc,gcd,gfd->", error, hessian, error).item() for error in errors]
    assert (here != there).float().mean() < 0.02 and losses[1] == pytest.approx(losses[0], rel=0.01)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_scales_tried_together_are_those_tried_one_by_one(bits: int) -> None:
    generator = torch.Generator().manual_seed(0)
    filters, importance = torch.randn(2, 30, 90, generator=generator) ** 3, torch.rand(2, 90, generator=generator)
    grid = Grid(bits, signed=True)
    there = search_scales(filters.cuda(), grid, importance.cuda()).cpu()
    same = torch.isclose(there, search_scales(filters, grid, importance), rtol=1e-5)
    assert same.float().mean() > 0.95, "but for factors that are as good to the last bits"


def test_a_layer_is_rounded_as_well_as_on_a_cpu() -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(40, 30, 3, 3, generator=generator)
    inputs = torch.randn(1, 2000, 270, generator=generator)
    hessian = inputs.transpose(1, 2) @ inputs / 1000
    here, there = round_widths(weight, (2, 4, 8), hessian), round_widths(weight.cuda(), (2, 4, 8), hessian.cuda())
    for bits in here:
        missed = [weight - each[bits].dequantized().cpu() for each in (here, there)]
        losses = [error.square().sum().item() for error in missed]
        assert losses[1] == pytest.approx(losses[0], rel=0.02)

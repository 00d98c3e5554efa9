"""Values of the stages as JSON, the way a run directory holds them, and back."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from zeroq.numbers.values import ActivationRange, Ranges, SensitivityTable


def fingerprint(images: Tensor) -> str:
    """Which images these are, where they are not to be held."""
    return hashlib.sha256(images.contiguous().numpy().tobytes()).hexdigest()


def numbers_to_json(found: Mapping[str, Tensor]) -> dict[str, list[float]]:
    """Numbers of channels, [channels] each, by name."""
    return {name: each.tolist() for name, each in found.items()}


def numbers_from_json(data: Mapping[str, list[float]]) -> dict[str, Tensor]:
    """The same, float64."""
    return {name: torch.tensor(each, dtype=torch.float64) for name, each in data.items()}


def ranges_to_json(ranges: Ranges) -> dict[str, Any]:
    return {
        "weighed": ranges.weighed,
        "quantizers": {
            name: {"low": each.low, "high": each.high, "bits": each.bits, "source": each.source}
            for name, each in ranges.by_name.items()
        },
    }


def ranges_from_json(data: Mapping[str, Any]) -> Ranges:
    quantizers = {name: ActivationRange(**each) for name, each in data["quantizers"].items()}
    return Ranges(quantizers, weighed=data["weighed"])


def sensitivity_to_json(table: SensitivityTable | None, measure: str) -> dict[str, Any]:
    """Without a table (one width for each layer, nothing to choose) the layers are empty."""
    if table is None:
        return {"measure": measure, "widths": [], "derived": [], "layers": {}}
    stored = {"measure": table.measure, **rows_to_json(table)}
    return stored | ({} if table.inputs is None else {"inputs": rows_to_json(table.inputs)})


def rows_to_json(table: SensitivityTable) -> dict[str, Any]:
    rows = zip(table.layers, table.values, strict=True)
    layers = {name: {str(w): value for w, value in zip(table.widths, row, strict=True)} for name, row in rows}
    coarse = {"coarse": list(table.coarse)} if table.coarse else {}
    return {"widths": list(table.widths), "derived": list(table.derived), **coarse, "layers": layers}


def sensitivity_from_json(data: Mapping[str, Any]) -> SensitivityTable | None:
    if not data["layers"] and "inputs" not in data:
        return None
    inputs = table_from_rows(data["measure"], data["inputs"]) if "inputs" in data else None
    return replace(table_from_rows(data["measure"], data), inputs=inputs)


def table_from_rows(measure: str, data: Mapping[str, Any]) -> SensitivityTable:
    widths = tuple(data["widths"])
    values = tuple(tuple(row[str(width)] for width in widths) for row in data["layers"].values())
    kinds: dict[str, Any] = {name: tuple(data.get(name, ())) for name in ("derived", "coarse")}
    return SensitivityTable(measure, tuple(data["layers"]), widths, values, **kinds)

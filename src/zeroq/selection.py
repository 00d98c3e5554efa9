"""The bit setting: the frontier's best few and the uniform settings, verified on the whole quantized network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from zeroq.allocate import budget_in_weight_bits, candidates, pareto_frontier
from zeroq.numbers.values import BitSetting, SensitivityTable
from zeroq.options import TARGETS, Options
from zeroq.ranks import ALONE, Ranks
from zeroq.setting import LayerPlan

MOST_POINTS = 2000  # of the frontier, that frontier.json keeps


@dataclass(frozen=True)
class Selection:
    """What was chosen, as frontier.json has it."""

    record: Mapping[str, Any]

    @property
    def setting(self) -> BitSetting:
        return BitSetting(self.record["chosen"]["bits"])


def select(
    plan: LayerPlan,
    table: SensitivityTable | None,
    options: Options,
    other_bytes: int,
    divergence: Callable[[BitSetting], float],
    on_step: Callable[[int, int], None],
    *,
    left_over: Mapping[str, float],
    ranks: Ranks = ALONE,
) -> dict[str, Any]:
    """What frontier.json holds: the setting within the target whose whole quantized network diverges least.

    table: sensitivities of the layers that have a choice; None where none has.  other_bytes: of the file beside the
    weights, for a target in megabytes.  divergence: of the network with a setting, on held-out images.
    left_over: by layer, what of its sensitivity counts (`compensation`).  ranks: processes that share the settings out.
    Raises SizeError for a target that no setting reaches.
    """
    names = [layer.name for layer in plan.layers]
    widths = [plan.widths[name] for name in names]
    sizes = [[bits * layer.parameters for bits in plan.widths[layer.name]] for layer in plan.layers]
    costs = [
        [
            left_over[name] * cost(table, name, bits) if len(plan.widths[name]) > 1 else 0.0
            for bits in plan.widths[name]
        ]
        for name in names
    ]
    frontier = pareto_frontier(sizes, costs)
    limit = budget_in_weight_bits(
        least=int(frontier.sizes[0]), weights=sum(plan.parameters.values()), other_bytes=other_bytes,
        average_bits=options.average_bits, compression=options.compression, size_mb=options.size_mb,
    )  # fmt: skip
    tried = candidates(frontier, int(frontier.sizes[-1]) if limit is None else limit, widths, options.candidate_widths)
    if table is None:
        tried = tried[:1]
    settings = [setting_of(names, widths, candidate.setting) for candidate in tried]
    verify = divergence if len(tried) > 1 else lambda setting: None
    records = []
    for candidate, setting, found in zip(tried, settings, ranks.mapped(verify, settings, on_step), strict=True):
        records.append(describe(candidate.name if table else f"uniform-{options.candidate_widths[0]}", setting, plan))
        records[-1]["sensitivity"] = frontier.cost_of(candidate.setting)
        records[-1]["divergence"] = found
    chosen = min(records, key=lambda record: record["divergence"] or 0.0)
    points = list(zip(frontier.sizes.tolist(), frontier.costs.tolist(), strict=True)) if table else []
    return {
        "left_over": dict(left_over) if table else {},
        "limit": {name: value for name in TARGETS if (value := getattr(options, name)) is not None},
        "points": [list(point) for point in thinned(points)],
        "chosen": chosen,
        "candidates": records,
    }


def cost(table: SensitivityTable | None, name: str, bits: int) -> float:
    """Sensitivity of a layer that has a choice."""
    assert table is not None, "layers with a choice are measured"
    return table.of(name, bits)


def setting_of(names: Sequence[str], widths: Sequence[Sequence[int]], options: Sequence[int]) -> BitSetting:
    """Options of the layers, as bits."""
    rows = zip(names, widths, options, strict=True)
    return BitSetting({name: choices[option] for name, choices, option in rows})


def describe(name: str, setting: BitSetting, plan: LayerPlan) -> dict[str, Any]:
    """A candidate as frontier.json has it."""
    return {
        "name": name,
        "bits": dict(setting.bits),
        "average_bits": setting.average(plan.parameters),
        "weight_bytes": setting.weight_bits(plan.parameters) / 8,
    }


def thinned(points: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """Every n-th point, both ends among them, so that a large network's file stays readable."""
    step = max(1, -(-len(points) // MOST_POINTS))
    kept = points[::step]
    return kept if not points or kept[-1] == points[-1] else [*kept, points[-1]]

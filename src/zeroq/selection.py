"""The bit setting: the frontier's best few and the uniform settings, verified on the whole quantized network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from zeroq.allocate import (
    GIGA,
    Candidate,
    Frontier,
    Settings,
    best_first,
    candidates,
    compromise,
    pareto_frontier,
)
from zeroq.bounds import Limits, limits_of
from zeroq.numbers.values import BitSetting, SensitivityTable
from zeroq.options import BOUNDS, TARGETS, Options
from zeroq.setting import LayerPlan, Option

MOST_POINTS = 2000  # of the frontier, that frontier.json keeps


@dataclass(frozen=True)
class Selection:
    """What was chosen, as frontier.json has it."""

    record: Mapping[str, Any]

    @property
    def setting(self) -> BitSetting:
        return BitSetting(self.record["chosen"]["bits"])


@dataclass(frozen=True)
class Found:
    """Settings within all limits, the best first, and what is known of the costs that no setting can be below."""

    settings: Settings  # [settings, layers]
    frontier: Frontier  # that frontier.json shows
    lower_bound: float


def select(
    plan: LayerPlan,
    table: SensitivityTable | None,
    options: Options,
    other_bytes: int,
    divergence: Callable[[BitSetting], float],
    on_step: Callable[[int, int], None],
    *,
    left_over: Mapping[str, float],
) -> dict[str, Any]:
    """What frontier.json holds: the setting within the limits whose whole quantized network diverges least.

    table: sensitivities of the layers that have a choice; None where none has.  other_bytes: of the file beside the
    weights, for a target in megabytes.  divergence: of the network with a setting, on held-out images.
    left_over: by layer, what of its sensitivity counts (`compensation`).
    Raises SizeError for a limit that no setting keeps.
    """
    costs = [
        [
            left_over[layer.name] * cost(table, plan, layer.name, option) if len(choices) > 1 else 0.0
            for option in choices
        ]
        for layer, choices in zip(plan.layers, plan.options, strict=True)
    ]
    limits = limits_of(plan, options, other_bytes)
    found = search(plan, costs, limits)
    uniform = uniform_settings(plan, options, limits)
    tried = candidates(found.settings, uniform, choices=sum(len(choices) > 1 for choices in plan.options))
    if table is None:
        tried = [Candidate(f"uniform-{options.candidate_widths[0]}", tried[0].setting)]
    records = []
    for index, candidate in enumerate(tried):
        setting = setting_of(plan, candidate.setting)
        records.append(describe(candidate.name, setting, plan))
        if options.bit_operations is not None:
            records[-1]["bit_operations"] = sum_of(plan.operations, candidate.setting) / GIGA
        records[-1]["sensitivity"] = float(sum_of(costs, candidate.setting))
        records[-1]["divergence"] = divergence(setting) if len(tried) > 1 else None
        on_step(index + 1, len(tried))
    chosen = min(records, key=lambda record: record["divergence"] or 0.0)
    frontier = found.frontier
    points = list(zip(frontier.sizes.tolist(), frontier.costs.tolist(), strict=True)) if table else []
    record: dict[str, Any] = {
        "left_over": dict(left_over) if table else {},
        "limit": {name: value for name in (*TARGETS, *BOUNDS) if (value := getattr(options, name)) is not None},
        "points": [list(point) for point in thinned(points)],
        "chosen": chosen,
        "candidates": records,
    }
    if table is not None and any(getattr(options, name) is not None for name in BOUNDS):
        record["optimum"] = optimum(records[0]["sensitivity"], found.lower_bound)
        record["over"] = "bit_operations" if limits.weight_bits is None else "weight_bits"
    return record


def search(plan: LayerPlan, costs: list[list[float]], limits: Limits) -> Found:
    """The best settings within the limits: exact for one of them, by a multiplier for two."""
    sizes, operations = plan.sizes, plan.operations
    if limits.weight_bits is not None and limits.operations is not None:
        both = compromise(sizes, operations, costs, limits.weight_bits, limits.operations)
        return Found(both.settings, pareto_frontier(sizes, costs), both.lower_bound)
    limit = limits.weight_bits if limits.operations is None else limits.operations
    frontier = pareto_frontier(sizes if limits.operations is None else operations, costs)
    best = best_first(frontier, int(frontier.sizes[-1]) if limit is None else limit)
    return Found(best, frontier, frontier.cost_of(best[0]))


def uniform_settings(plan: LayerPlan, options: Options, limits: Limits) -> list[Candidate]:
    """One width for all layers that have a choice, within the limits, the widest first; the others keep theirs."""
    found = []
    for width in sorted(options.candidate_widths, reverse=True):
        setting = tuple(
            0 if len(choices) == 1 else [weight for weight, _ in choices].index(width) for choices in plan.options
        )
        kept = (
            limit is None or sum_of(sums, setting) <= limit
            for sums, limit in ((plan.sizes, limits.weight_bits), (plan.operations, limits.operations))
        )
        if all(kept):
            found.append(Candidate(f"uniform-{width}", setting))
    return found


def optimum(cost: float, lower_bound: float) -> dict[str, float]:
    """How near the best setting by the table comes to the best that there may be."""
    return {"sensitivity": cost, "lower_bound": min(lower_bound, cost), "gap": max(cost - lower_bound, 0.0)}


def cost(table: SensitivityTable | None, plan: LayerPlan, name: str, option: Option) -> float:
    """Sensitivity of a layer that has a choice."""
    assert table is not None, "layers with a choice are measured"
    return table.of(name, option[0])


def sum_of(table: Sequence[Sequence[Any]], setting: Sequence[int]) -> Any:
    """Of a table's numbers over the layers, added in their order."""
    return sum(layer[option] for layer, option in zip(table, setting, strict=True))


def setting_of(plan: LayerPlan, setting: Sequence[int]) -> BitSetting:
    """Options of the layers, as bits."""
    rows = zip(plan.layers, plan.options, setting, strict=True)
    return BitSetting({layer.name: choices[option][0] for layer, choices, option in rows})


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

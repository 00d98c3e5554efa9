"""The bit setting: the frontier's best few and the uniform settings, verified on the whole quantized network."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from zeroq.allocate import (
    GIGA,
    MEGABYTE,
    MILLISECOND,
    Candidate,
    Frontier,
    Settings,
    best_first,
    candidates,
    compromise,
    pareto_frontier,
    possible,
    within_peak,
)
from zeroq.bounds import Limits, least_latency, limits_of, quickest
from zeroq.numbers.values import BitSetting, SensitivityTable
from zeroq.options import BOUNDS, TARGETS, Options
from zeroq.ranks import ALONE, Ranks
from zeroq.setting import LayerPlan, Option
from zeroq.simulate.peak import Memory

MOST_POINTS = 2000  # of the frontier, that frontier.json keeps


@dataclass(frozen=True)
class Selection:
    """What was chosen, as frontier.json has it."""

    record: Mapping[str, Any]

    @property
    def setting(self) -> BitSetting:
        chosen = self.record["chosen"]
        return BitSetting(chosen["bits"], chosen.get("activation_bits", {}))


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
    memory: Memory,
    ranks: Ranks = ALONE,
) -> dict[str, Any]:
    """What frontier.json holds: the setting within the limits whose whole quantized network diverges least.

    table: sensitivities of the layers that have a choice; None where none has.  other_bytes: of the file beside the
    weights, for a target in megabytes.  divergence: of the network with a setting, on held-out images.
    left_over: by layer, what of its sensitivity counts (`compensation`).  memory: what is in it while the network runs.
    ranks: processes that share the settings out.
    Raises SizeError for a limit that no setting keeps.
    """
    price = Price(plan, table, left_over)
    limits = limits_of(plan, options, other_bytes, memory)
    plan, lower_bound = filtered(plan, price, limits, memory)
    found = search(plan, price, limits)
    tried = candidates(
        found.settings, uniform_settings(plan, options, limits), choices=sum(len(each) > 1 for each in plan.options)
    )
    if table is None:
        tried = [Candidate(f"uniform-{options.candidate_widths[0]}", tried[0].setting)]
    settings = [setting_of(plan, candidate.setting) for candidate in tried]
    verified = ranks.mapped(divergence if len(tried) > 1 else lambda setting: None, settings, on_step)
    records = []
    for candidate, setting, diverged in zip(tried, settings, verified, strict=True):
        records.append(describe(candidate.name, setting, plan) | taken(plan, setting, options, memory))
        records[-1]["sensitivity"] = float(sum_of(price.table(plan), candidate.setting))
        records[-1]["divergence"] = diverged
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
        lowest = found.lower_bound if lower_bound is None else lower_bound
        record["optimum"] = optimum(records[0]["sensitivity"], lowest)
        record["over"] = "bit_operations" if limits.operations and not limits.weight_bits else "weight_bits"
    return record


@dataclass(frozen=True)
class Price:
    """What the options of layers cost: the sensitivities of weights and input, as far as these have a choice."""

    plan: LayerPlan
    measured: SensitivityTable | None
    left_over: Mapping[str, float]

    def of(self, name: str, option: Option) -> float:
        """Of one layer's option."""
        weight, own = option
        cost = self.input(name, own)
        if len(self.plan.widths[name]) > 1:
            assert self.measured is not None, "layers with a choice are measured"
            cost += self.left_over[name] * self.measured.of(name, weight)
        return cost

    def input(self, name: str, bits: int) -> float:
        """Of one layer's input."""
        if name not in self.plan.input_widths:
            return 0.0
        assert self.measured is not None and self.measured.inputs is not None, "inputs with a choice are measured"
        return self.left_over[name] * self.measured.inputs.of(name, bits)

    def table(self, plan: LayerPlan) -> list[list[float]]:
        """Of all options that a plan leaves, [layers][options]."""
        rows = zip(plan.layers, plan.options, strict=True)
        return [[self.of(layer.name, option) for option in options] for layer, options in rows]


def filtered(plan: LayerPlan, price: Price, limits: Limits, memory: Memory) -> tuple[LayerPlan, float | None]:
    """The plan with those options alone of which every combination is within the peak.

    The least harmful ones, or those that take the least time where these take too long, as fewer bits do.  Beside it,
    where that takes away more than what no setting can have, the least cost that there could be.
    """
    if limits.activations is None or not plan.input_widths:
        return plan, None

    def left(widths: Mapping[str, tuple[int, ...]]) -> LayerPlan:
        return replace(plan, input_widths={name: widths[name] for name in plan.input_widths})

    any_of = left(possible(memory, plan.inputs, limits.activations))
    all_of = left(within_peak(memory, plan.inputs, limits.activations, price.input))
    if limits.latency is not None and least_latency(all_of, limits) > limits.latency:
        all_of = quickest(plan, limits, memory)
    return all_of, None if all_of == any_of else search(any_of, price, limits).lower_bound


def search(plan: LayerPlan, price: Price, limits: Limits) -> Found:
    """The best settings within the limits of sums: exact for one of them, by a multiplier for two."""
    costs, sums = price.table(plan), limits.sums(plan)
    in_operations = limits.operations is not None and limits.weight_bits is None
    shown = pareto_frontier(plan.operations if in_operations else plan.sizes, costs)
    if len(sums) > 1:
        (first, limit), (second, other_limit) = sums  # of three, options say that the latency hangs on no choice
        both = compromise(first, second, costs, limit, other_limit)
        return Found(both.settings, shown, both.lower_bound)
    alone = pareto_frontier(plan.latencies, costs) if limits.latency is not None else shown
    best = best_first(alone, sums[0][1] if sums else int(alone.sizes[-1]))
    return Found(best, shown, alone.cost_of(best[0]))


def uniform_settings(plan: LayerPlan, options: Options, limits: Limits) -> list[Candidate]:
    """The same widths for all layers that have a choice, within the limits, the widest first."""
    pairs = itertools.product(options.candidate_widths, options.activation_widths)
    sums = limits.sums(plan)
    found = []
    for weight, own in sorted(pairs, key=lambda pair: (pair[0] * pair[1], pair), reverse=True):
        setting = [nearest(choices, weight, own) for choices in plan.options]
        if all(sum_of(table, setting) <= limit for table, limit in sums):
            inputs = f"-a{own}" if len(options.activation_widths) > 1 else ""
            found.append(Candidate(f"uniform-{weight}{inputs}", tuple(setting)))
    return found


def nearest(choices: Sequence[Option], weight: int, own: int) -> int:
    """The widest option that is at most so wide; the narrowest where none is.

    An input that cannot have so few bits, as the network's own cannot, is left out of account.
    """
    own = max(own, min(each for _, each in choices))
    return max((index for index, each in enumerate(choices) if each[0] <= weight and each[1] <= own), default=0)


def optimum(cost: float, lower_bound: float) -> dict[str, float]:
    """How near the best setting by the table comes to the best that there may be."""
    return {"sensitivity": cost, "lower_bound": min(lower_bound, cost), "gap": max(cost - lower_bound, 0.0)}


def sum_of(table: Sequence[Sequence[Any]], setting: Sequence[int]) -> Any:
    """Of a table's numbers over the layers, added in their order."""
    return sum(layer[option] for layer, option in zip(table, setting, strict=True))


def setting_of(plan: LayerPlan, setting: Sequence[int]) -> BitSetting:
    """Options of the layers, as bits."""
    rows = zip(plan.layers, plan.options, setting, strict=True)
    chosen = {layer.name: choices[option] for layer, choices, option in rows}
    inputs = {name: chosen[name][1] for name in plan.input_widths}
    return BitSetting({name: weight for name, (weight, _) in chosen.items()}, inputs)


def describe(name: str, setting: BitSetting, plan: LayerPlan) -> dict[str, Any]:
    """A candidate as frontier.json has it."""
    return {
        "name": name,
        "bits": dict(setting.bits),
        **({"activation_bits": dict(setting.inputs)} if setting.inputs else {}),
        "average_bits": setting.average(plan.parameters),
        "weight_bytes": setting.weight_bits(plan.parameters) / 8,
    }


def taken(plan: LayerPlan, setting: BitSetting, options: Options, memory: Memory) -> dict[str, float]:
    """What a setting takes of that which is bounded."""
    own = plan.at(setting)
    found = {}
    if options.bit_operations is not None:
        found["bit_operations"] = own.operations_of(setting.bits) / GIGA
    if options.activation_mb is not None:
        found["activation_mb"] = memory.peak(own.input_bits) / MEGABYTE
    if own.latency is not None:
        found["latency_ms"] = own.latency.total(own.input_bits) / MILLISECOND
    return found


def thinned(points: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """Every n-th point, both ends among them, so that a large network's file stays readable."""
    step = max(1, -(-len(points) // MOST_POINTS))
    kept = points[::step]
    return kept if not points or kept[-1] == points[-1] else [*kept, points[-1]]

"""What was asked for, as limits of sums over layers; what no setting reaches is refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from zeroq.allocate import (
    budget_in_activation_bits,
    budget_in_operations,
    budget_in_ticks,
    budget_in_weight_bits,
    least_beside,
    least_peak,
    within_peak,
)
from zeroq.options import TARGETS, Options, flag
from zeroq.setting import LayerPlan
from zeroq.simulate.peak import Memory


@dataclass(frozen=True)
class Limits:
    """Of the bits of all weights together, the bit operations of one image, and the bits of its values at one time.

    latency: ticks that the layers take together, where these hang on a choice.  None where nothing limits them.
    """

    weight_bits: int | None
    operations: int | None
    activations: int | None = None
    latency: int | None = None

    def sums(self, plan: LayerPlan) -> list[tuple[list[list[int]], int]]:
        """What is limited as a sum over layers, [layers][options], each with its limit."""
        found = []
        if self.weight_bits is not None:
            found.append((plan.sizes, self.weight_bits))
        if self.operations is not None:
            found.append((plan.operations, self.operations))
        if self.latency is not None:
            found.append((plan.latencies, self.latency))
        return found


def limits_of(plan: LayerPlan, options: Options, other_bytes: int | None, memory: Memory) -> Limits:
    """The limits that the options set, exactly as the decimal numbers asked say.

    other_bytes: what a file holds beside the bits of the weights; None where that is not known yet, so that a size in
    megabytes cannot be judged.  memory: what is in it while the network runs.  A latency is judged once it is measured.
    Raises SizeError that names the least that can be asked for.
    """
    known = other_bytes is not None
    weight_bits = budget_in_weight_bits(
        least=sum(map(min, plan.sizes)), weights=sum(plan.parameters.values()), other_bytes=other_bytes or 0,
        average_bits=options.average_bits, compression=options.compression, size_mb=options.size_mb if known else None,
    )  # fmt: skip
    least, beside = sum(map(min, plan.operations)), ""
    if weight_bits is not None and options.bit_operations is not None:
        least, beside = least_beside(plan.sizes, plan.operations, weight_bits), beside_other(options, TARGETS)
    operations = budget_in_operations(least=least, bit_operations=options.bit_operations, beside=beside)
    peak = least_peak(memory, plan.inputs) if options.activation_mb is not None else 0
    activations = budget_in_activation_bits(least=peak, activation_mb=options.activation_mb)
    latency = (
        None if plan.latency is None else limit_of_latency(plan, options, Limits(None, operations, activations), memory)
    )
    return Limits(weight_bits, operations, activations, latency)


def limit_of_latency(plan: LayerPlan, options: Options, others: Limits, memory: Memory) -> int | None:
    """Ticks that the layers may take together within other limits; None where no choice makes a difference to them.

    Raises SizeError that names the least that was measured.
    """
    assert plan.latency is not None, "measured where it is bounded"
    hangs_on_choice = any(len(set(layer)) > 1 for layer in plan.latencies)
    least = plan.latency.beside + least_latency(quickest(plan, others, memory), others)
    beside = beside_other(options, ("bit_operations", "activation_mb")) if hangs_on_choice else ""
    budget = budget_in_ticks(least=least, latency_ms=options.latency_ms, beside=beside)
    return budget - plan.latency.beside if budget is not None and hangs_on_choice else None


def least_latency(plan: LayerPlan, limits: Limits) -> int:
    """Ticks that the layers take together in the fastest setting within the limit of bit operations."""
    if limits.operations is None:
        return sum(map(min, plan.latencies))
    return least_beside(plan.operations, plan.latencies, limits.operations)


def quickest(plan: LayerPlan, limits: Limits, memory: Memory) -> LayerPlan:
    """The plan with options alone of which every combination is within the peak, chosen for time."""
    if limits.activations is None or not plan.input_widths:
        return plan
    assert plan.latency is not None, "measured where it is bounded"
    kept = within_peak(memory, plan.inputs, limits.activations, plan.latency.of)
    return replace(plan, input_widths={name: kept[name] for name in plan.input_widths})


def beside_other(options: Options, names: Sequence[str]) -> str:
    """What else was asked for, for the sentence of an error."""
    asked = [f"{flag(name)} {getattr(options, name):g}" for name in names if getattr(options, name) is not None]
    return f" with {' and '.join(asked)}" if asked else ""

"""What was asked for, as limits of sums over layers; what no setting reaches is refused."""

from __future__ import annotations

from dataclasses import dataclass

from zeroq.allocate import (
    budget_in_activation_bits,
    budget_in_operations,
    budget_in_weight_bits,
    least_beside,
    least_peak,
)
from zeroq.options import TARGETS, Options, flag
from zeroq.setting import LayerPlan
from zeroq.simulate.peak import Memory


@dataclass(frozen=True)
class Limits:
    """Of the bits of all weights together, the bit operations of one image, and the bits of its values at one time.

    None where nothing limits them.
    """

    weight_bits: int | None
    operations: int | None
    activations: int | None = None


def limits_of(plan: LayerPlan, options: Options, other_bytes: int | None, memory: Memory) -> Limits:
    """The limits that the options set, exactly as the decimal numbers asked say.

    other_bytes: what a file holds beside the bits of the weights; None where that is not known yet, so that a size in
    megabytes cannot be judged.  memory: what is in it while the network runs.
    Raises SizeError that names the least that can be asked for.
    """
    known = other_bytes is not None
    weight_bits = budget_in_weight_bits(
        least=sum(map(min, plan.sizes)), weights=sum(plan.parameters.values()), other_bytes=other_bytes or 0,
        average_bits=options.average_bits, compression=options.compression, size_mb=options.size_mb if known else None,
    )  # fmt: skip
    least, beside = sum(map(min, plan.operations)), ""
    if weight_bits is not None and options.bit_operations is not None:
        least, beside = least_beside(plan.sizes, plan.operations, weight_bits), beside_target(options)
    operations = budget_in_operations(least=least, bit_operations=options.bit_operations, beside=beside)
    peak = least_peak(memory, plan.inputs) if options.activation_mb is not None else 0
    activations = budget_in_activation_bits(least=peak, activation_mb=options.activation_mb)
    return Limits(weight_bits, operations, activations)


def beside_target(options: Options) -> str:
    """The target of size, for the sentence of an error."""
    name = next(name for name in TARGETS if getattr(options, name) is not None)
    return f" with {flag(name)} {getattr(options, name):g}"

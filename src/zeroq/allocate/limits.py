"""What a person asked for as an exact whole number, in the unit of the sums that it limits, or the refusal of it."""

from __future__ import annotations

import math
from fractions import Fraction

from zeroq.errors import SizeError

FLOAT_BITS = 32
WAY_OUT = "or allow fewer bits in --weight-bits, --edge-bits or --layer-bits."
GIGA, MEGABYTE = 10**9, 8 * 10**6  # operations; bits
MILLISECOND = 10**4  # ticks, in which latencies are added
HEADROOM = Fraction(105, 100)  # so that what is advised is likely kept, as two timings of one file differ


def budget_in_weight_bits(
    *,
    least: int,
    weights: int,
    other_bytes: int = 0,
    average_bits: float | None = None,
    compression: float | None = None,
    size_mb: float | None = None,
) -> int | None:
    """Bits that all quantized weights may have together, exactly as the decimal number asked says; None without target.

    least: bits of the smallest setting, frontier.sizes[0].  weights: number of quantized weights.  other_bytes: what
    the file holds beside the bits of the weights, which only a size in megabytes (10^6 bytes) counts.
    Raises SizeError that names the least size, in the unit asked, and how to come below it.
    """
    if average_bits is not None:
        budget = math.floor(exactly(average_bits) * weights)
        if budget < least:
            bits = rounded_up(Fraction(least, weights), digits=2)
            raise SizeError(
                f"An average of {average_bits:g} bits cannot be reached, the smallest setting has {bits:g}: "
                f"ask for --average-bits {bits:g} or more, {WAY_OUT}"
            )
        return budget
    if compression is not None:
        budget = math.floor(FLOAT_BITS * weights / exactly(compression))
        if budget < least:
            most = -rounded_up(-Fraction(FLOAT_BITS * weights, least), digits=2)
            raise SizeError(
                f"A compression of {compression:g} cannot be reached, the smallest setting has {most:g}: "
                f"ask for --compression {most:g} or less, {WAY_OUT}"
            )
        return budget
    if size_mb is not None:
        budget = (math.floor(exactly(size_mb) * 10**6) - other_bytes) * 8
        if budget < least:
            size = rounded_up(Fraction(math.ceil(least / 8) + other_bytes, 10**6), digits=4)
            other = rounded_up(Fraction(other_bytes, 10**6), digits=4)
            raise SizeError(
                f"{size_mb:g} MB cannot be reached, the smallest file has {size:g} MB, of which {other:g} MB are not "
                f"quantized weights: ask for --size-mb {size:g} or more, {WAY_OUT}"
            )
        return budget
    return None


def budget_in_operations(*, least: int, bit_operations: float | None, beside: str = "") -> int | None:
    """Bit operations that one image may take, from 10^9 of them; None without a bound.

    least: of the smallest setting (within a target of size, which `beside` names).
    Raises SizeError that names the least number that can be asked for.
    """
    if bit_operations is None:
        return None
    budget = math.floor(exactly(bit_operations) * GIGA)
    if budget < least:
        number = least_of(Fraction(least, GIGA))
        raise SizeError(
            f"{bit_operations:g} x 10^9 bit operations cannot be reached{beside}, the smallest setting has {number}: "
            f"ask for --bit-operations {number} or more, {'raise the target, ' if beside else ''}"
            "or allow fewer bits in --weight-bits, --activation-bits, --edge-bits or --layer-bits."
        )
    return budget


def budget_in_activation_bits(*, least: int, activation_mb: float | None) -> int | None:
    """Bits that the values between layers may take at one time, from 10^6 bytes; None without a bound.

    least: with every input as narrow as it may be.
    Raises SizeError that names the least number that can be asked for.
    """
    if activation_mb is None:
        return None
    budget = math.floor(exactly(activation_mb) * MEGABYTE)
    if budget < least:
        number = least_of(Fraction(least, MEGABYTE))
        raise SizeError(
            f"A peak of {activation_mb:g} MB of activations cannot be kept, the least is {number} MB: "
            f"ask for --activation-mb {number} or more, or allow fewer bits in --activation-bits or --edge-bits."
        )
    return budget


def budget_in_ticks(*, least: int, latency_ms: float | None, beside: str = "") -> int | None:
    """Ticks that one image may take in the whole file, from milliseconds; None without a bound.

    least: as measured on this machine (within another bound, which `beside` names).
    Raises SizeError that names the least, and a number that is likely to be kept if it is measured again.
    """
    if latency_ms is None:
        return None
    budget = math.floor(exactly(latency_ms) * MILLISECOND)
    if budget < least:
        number, enough = (least_of(Fraction(least, MILLISECOND) * factor) for factor in (1, HEADROOM))
        raise SizeError(
            f"{latency_ms:g} ms for one image cannot be kept{beside}, the least measured on this machine is {number} "
            f"ms: ask for --latency-ms {enough} or more, as two measurements differ, or give more --threads."
        )
    return budget


def least_of(value: Fraction) -> str:
    """Rounded up to four significant digits, so that asking for it succeeds, and without needless zeros."""
    digits = max(0, 3 - math.floor(math.log10(value))) if value else 0
    return f"{rounded_up(value, digits):.{digits}f}".rstrip("0").rstrip(".") if digits else str(math.ceil(value))


def exactly(value: float) -> Fraction:
    """The decimal number that was written, 4.1 and not the float nearest to it."""
    return Fraction(str(value))


def rounded_up(value: Fraction, digits: int) -> float:
    """So that asking for the number in an error succeeds."""
    return math.ceil(value * 10**digits) / 10**digits

"""Limits in the asker's unit."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zeroq.allocate import budget_in_operations, budget_in_ticks, budget_in_weight_bits
from zeroq.allocate.limits import least_of
from zeroq.errors import SizeError

WAY_OUT = "or allow fewer bits in --weight-bits, --edge-bits or --layer-bits."


def test_budgets_in_each_unit() -> None:
    assert budget_in_weight_bits(least=200, weights=100, average_bits=4.1) == 410
    assert budget_in_weight_bits(least=200, weights=100, compression=8) == 400
    assert budget_in_weight_bits(least=200, weights=100, size_mb=0.0003, other_bytes=100) == 200 * 8
    assert budget_in_weight_bits(least=200, weights=100) is None


@settings(deadline=None)
@given(st.integers(1, 10**9), st.integers(200, 800).map(lambda hundredths: hundredths / 100))
def test_the_average_reached_is_never_above_the_average_asked(weights: int, asked: float) -> None:
    budget = budget_in_weight_bits(least=2 * weights, weights=weights, average_bits=asked)
    assert budget is not None
    assert budget / weights <= asked < (budget + 1) / weights + 1e-9


@pytest.mark.parametrize(
    ("asked", "sentence", "enough"),
    [
        (
            {"average_bits": 2.0},
            "An average of 2 bits cannot be reached, the smallest setting has 2.34: "
            "ask for --average-bits 2.34 or more, ",
            {"average_bits": 2.34},
        ),
        (
            {"compression": 16},
            "A compression of 16 cannot be reached, the smallest setting has 13.71: "
            "ask for --compression 13.71 or less, ",
            {"compression": 13.71},
        ),
        (
            {"size_mb": 0.2},
            "0.2 MB cannot be reached, the smallest file has 0.3417 MB, of which 0.05 MB are not quantized weights: "
            "ask for --size-mb 0.3417 or more, ",
            {"size_mb": 0.3417},
        ),
    ],
)
def test_an_impossible_target_names_the_least_size(asked: Any, sentence: str, enough: Any) -> None:
    given: Any = {"least": 2_333_333, "weights": 1_000_000, "other_bytes": 50_000}
    with pytest.raises(SizeError) as caught:
        budget_in_weight_bits(**given, **asked)
    assert str(caught.value) == sentence + WAY_OUT
    budget = budget_in_weight_bits(**given, **enough)
    assert budget is not None and budget >= given["least"]


def test_a_budget_of_operations_is_exact() -> None:
    assert budget_in_operations(least=0, bit_operations=4.1) == 4_100_000_000
    assert budget_in_operations(least=10**12, bit_operations=None) is None


@pytest.mark.parametrize(
    ("beside", "sentence"),
    [
        (
            "",
            "1.2 x 10^9 bit operations cannot be reached, the smallest setting has 1.235: ask for "
            "--bit-operations 1.235 or more, or allow fewer bits in --weight-bits, --activation-bits, --edge-bits or "
            "--layer-bits.",
        ),
        (
            " with --average-bits 3",
            "1.2 x 10^9 bit operations cannot be reached with --average-bits 3, the smallest setting has 1.235: ask "
            "for --bit-operations 1.235 or more, raise the target, or allow fewer bits in --weight-bits, "
            "--activation-bits, --edge-bits or --layer-bits.",
        ),
    ],
)
def test_too_few_operations_name_the_least(beside: str, sentence: str) -> None:
    with pytest.raises(SizeError) as caught:
        budget_in_operations(least=1_234_567_890, bit_operations=1.2, beside=beside)
    assert str(caught.value) == sentence
    assert budget_in_operations(least=1_234_567_890, bit_operations=1.235) == 1_235_000_000


def test_a_latency_that_cannot_be_kept_names_the_least_and_one_that_is_likely_to_be() -> None:
    assert budget_in_ticks(least=0, latency_ms=4.1) == 41_000
    assert budget_in_ticks(least=41_000, latency_ms=4.1, beside=" with nothing") == 41_000
    assert budget_in_ticks(least=10, latency_ms=None) is None
    with pytest.raises(SizeError) as caught:
        budget_in_ticks(least=41_001, latency_ms=4.1, beside=" with --bit-operations 2")
    assert str(caught.value) == (
        "4.1 ms for one image cannot be kept with --bit-operations 2, the least measured on this machine is 4.101 ms: "
        "ask for --latency-ms 4.306 or more, as two measurements differ, or give more --threads."
    )


@settings(deadline=None)
@given(st.integers(0, 10**15), st.integers(1, 10**9))
def test_the_least_that_is_named_is_enough_and_hardly_more(numerator: int, denominator: int) -> None:
    value = Fraction(numerator, denominator)
    named = Fraction(least_of(value))
    assert value <= named <= value * Fraction(1002, 1000)
    assert float(least_of(value)) >= 0

from __future__ import annotations

from typing import Any

import pytest

from zeroq.candidates import HELD_OUT
from zeroq.effort import EFFORTS, LEAST_NUMBERS
from zeroq.options import Options


def test_each_effort_does_more_than_the_one_before() -> None:
    assert list(EFFORTS) == ["fast", "balanced", "best"]
    work = [
        (each.images * each.iterations, each.rounded, len(each.widths), each.reconstruction)
        for each in EFFORTS.values()
    ]
    assert all(a <= b for one, other in zip(work, work[1:], strict=False) for a, b in zip(one, other, strict=True))


def test_no_effort_rounds_on_images_that_are_held_out() -> None:
    best = EFFORTS["best"]
    assert best.rounded == best.images - best.images // HELD_OUT


@pytest.mark.parametrize("name", EFFORTS)
def test_an_effort_brings_its_widths_where_there_is_a_target_and_none_is_named(name: str) -> None:
    assert Options(effort=name, average_bits=4).candidate_widths == EFFORTS[name].widths
    assert Options(effort=name, average_bits=4, weight_bits=(4, 8)).candidate_widths == (4, 8)
    assert Options(effort=name).candidate_widths == (8,)


@pytest.mark.parametrize(
    ("asked", "steps"),
    [
        ({"effort": "best", "activation_bits": 4}, EFFORTS["best"].reconstruction),
        ({"effort": "best", "activation_bits": (4, 8), "bit_operations": 1.0}, EFFORTS["best"].reconstruction),
        ({"effort": "best", "activation_bits": 4, "reconstruct": 7}, 7),
        ({"effort": "best", "activation_bits": 4, "reconstruct": 0}, 0),
        ({"effort": "best", "activation_bits": 5}, 0),
        ({"effort": "best"}, 0),
        ({"effort": "balanced", "activation_bits": 2}, 0),
        ({"effort": "balanced", "reconstruct": 20}, 20),
    ],
)
def test_few_bits_of_activations_are_reconstructed_as_the_effort_has_it(asked: dict[str, Any], steps: int) -> None:
    assert Options.of(**asked).reconstruction == steps


@pytest.mark.parametrize(("numbers", "times"), [(8, 8), (12, 6), (64, 1), (3 * 32 * 32, 1)])
def test_small_inputs_get_more_images(numbers: int, times: int) -> None:
    balanced, own = EFFORTS["balanced"], EFFORTS["balanced"].for_inputs(numbers)
    assert (own.images, own.rounded) == (times * balanced.images, times * balanced.rounded)
    assert own.images * numbers >= LEAST_NUMBERS

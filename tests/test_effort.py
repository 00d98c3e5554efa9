from __future__ import annotations

import pytest

from zeroq.candidates import HELD_OUT
from zeroq.effort import EFFORTS
from zeroq.options import Options


def test_each_effort_does_more_than_the_one_before() -> None:
    assert list(EFFORTS) == ["fast", "balanced", "best"]
    work = [(each.images * each.iterations, each.rounded, len(each.widths)) for each in EFFORTS.values()]
    assert all(a <= b for one, other in zip(work, work[1:], strict=False) for a, b in zip(one, other, strict=True))


def test_no_effort_rounds_on_images_that_are_held_out() -> None:
    best = EFFORTS["best"]
    assert best.rounded == best.images - best.images // HELD_OUT


@pytest.mark.parametrize("name", EFFORTS)
def test_an_effort_brings_its_widths_where_there_is_a_target_and_none_is_named(name: str) -> None:
    assert Options(effort=name, average_bits=4).candidate_widths == EFFORTS[name].widths
    assert Options(effort=name, average_bits=4, weight_bits=(4, 8)).candidate_widths == (4, 8)
    assert Options(effort=name).candidate_widths == (8,)

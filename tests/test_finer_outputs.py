"""Which output layers leave in floating point."""

from __future__ import annotations

import pytest

from zeroq.finer_outputs import choose_finer

HARM = {"boxes": 0.6, "scores": 0.3, "mask": 0.05}


def divergence(left: tuple[str, ...], rest: float = 0.05, scale: float = 1.0) -> float:
    """What is left of the harm, with that of everything else."""
    return scale * (rest + sum(harm for name, harm in HARM.items() if name not in left))


def test_those_that_do_most_of_the_harm_are_chosen() -> None:
    assert choose_finer(list(HARM), divergence, share=0.25) == ("boxes", "scores")
    assert choose_finer(list(HARM), divergence, share=0.5) == ("boxes",)


def test_harm_beside_much_other_harm_or_near_nothing_does_not_count() -> None:
    assert choose_finer(list(HARM), lambda left: divergence(left, rest=10)) == ()
    assert choose_finer(list(HARM), lambda left: divergence(left, scale=1e-4)) == ()
    assert choose_finer(list(HARM), lambda left: divergence(left, scale=1e-4), least=0) == ("boxes",)


def test_nothing_is_measured_where_no_output_layer_is() -> None:
    assert choose_finer([], lambda left: pytest.fail("measured")) == ()

"""What an output means."""

from __future__ import annotations

from typing import Any

import pytest

from zeroq.divergence import TASKS, Meaning, guess_task
from zeroq.errors import OptionError


def test_every_task_has_a_meaning() -> None:
    assert [Meaning(task).task for task in TASKS] == ["classification", "segmentation", "detection", "regression"]


def refused(**said: Any) -> str:
    with pytest.raises(OptionError) as caught:
        Meaning(**said)
    return str(caught.value)


def test_an_unknown_task_is_refused() -> None:
    assert refused(task="captioning") == (
        "TASK is 'captioning': give one of classification, segmentation, detection, regression."
    )


@pytest.mark.parametrize("wrong", ["void", 1.5, True])
def test_what_is_no_label_is_refused(wrong: object) -> None:
    sentence = f"IGNORE is {wrong!r}: give the class index of pixels that do not count."
    assert refused(task="segmentation", ignore=wrong) == sentence


def test_a_label_of_pixels_needs_segmentation() -> None:
    assert refused(task="regression", ignore=255) == (
        "IGNORE is a label of pixels and TASK is regression: leave IGNORE out, or say segmentation."
    )
    assert Meaning("segmentation", ignore=255).ignore == 255


def test_numbers_of_which_none_wins_are_to_be_met() -> None:
    for found in (guess_task((2, 1)), guess_task((2, 1, 8, 8)), guess_task((2, 10), behind_sigmoid=True)):
        assert found[0] == "regression" and "taken as numbers to be met (regression);" in found[1]


@pytest.mark.parametrize(
    ("shape", "name", "said"),
    [
        ((2, 10), "classification", "the output [N, 10] is taken as class scores (classification)"),
        ((1, 3, 45, 60), "segmentation", "the output [N, 3, 45, 60] is taken as class scores per pixel (segmentation)"),
        ((1, 3, 5), "regression", "the output [N, 3, 5] is taken as numbers to be met (regression)"),
        ((), "regression", "its several outputs are taken as numbers to be met (regression)"),
    ],
)  # fmt: skip
def test_a_guess_says_what_it_is(shape: tuple[int, ...], name: str, said: str) -> None:
    assert guess_task(shape) == (name, f"TASK is not given: {said}; set TASK if it is not.")

"""Tasks, their names and their metrics."""

from __future__ import annotations

import pytest
import torch

from zeroq.errors import OptionError
from zeroq.evaluate import TASKS, guess_task, task_named


def test_ranks_equal_an_obvious_count() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randint(0, 6, (200, 12), generator=generator).float()  # many ties, as quantized scores have
    labels = torch.randint(0, 12, (200,), generator=generator)
    first = five = 0
    for row, label in zip(scores.tolist(), labels.tolist(), strict=True):
        order = sorted(range(12), key=lambda index: (-row[index], index))
        first, five = first + (order[0] == label), five + (label in order[:5])
    assert TASKS["classification"].count(scores, labels).tolist() == [first, five]
    assert first == (scores.argmax(dim=1) == labels).sum()  # as agreement counts


def test_metrics_are_shares() -> None:
    metrics = TASKS["classification"].metrics(torch.tensor([80.0, 95.0], dtype=torch.float64), 100)
    assert metrics == {"top1": 0.8, "top5": 0.95, "standard_error": pytest.approx(0.04)}


@pytest.mark.parametrize("name", ["segmentation", "detection", "regression"])
def test_tasks_to_come_say_so(name: str) -> None:
    with pytest.raises(OptionError, match=f"^Evaluation of {name} is not there yet: today's task is classification.$"):
        task_named(name)


def test_an_unknown_task_is_refused() -> None:
    with pytest.raises(OptionError) as caught:
        task_named("captioning")
    assert str(caught.value) == (
        "TASK is 'captioning': give one of classification, segmentation, detection, regression."
    )
    assert task_named("classification").name == "classification"


@pytest.mark.parametrize(
    ("shape", "name", "sentence"),
    [
        (
            (2, 10),
            "classification",
            "TASK is not given: the output [N, 10] is taken as class scores (classification); set TASK if it is not.",
        ),
        (
            (1, 11, 45, 60),
            "segmentation",
            "TASK is not given: the output [N, 11, 45, 60] is taken as class scores per pixel (segmentation); set TASK "
            "if it is not.",
        ),
        (
            (1, 3, 5),
            "regression",
            "TASK is not given: the output [N, 3, 5] is taken as numbers to be met (regression); set TASK if it is "
            "not.",
        ),
    ],
)
def test_a_guess_says_what_it_is(shape: tuple[int, ...], name: str, sentence: str) -> None:
    assert guess_task(shape) == (name, sentence)

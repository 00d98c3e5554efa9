"""What each task is evaluated on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import zeroq.divergence
from zeroq.divergence import Meaning
from zeroq.errors import DataError
from zeroq.evaluate import TASKS
from zeroq.preprocessing import Preprocessing

GREY = Preprocessing((4, 4), (0.0,), (1.0,), "L")


def test_every_task_is_there() -> None:
    assert tuple(TASKS) == zeroq.divergence.TASKS


@pytest.mark.parametrize(
    ("task", "form"),
    [
        ("segmentation", "a folder that holds images and labels"),
        ("detection", "a folder of pictures with instances.json"),
        ("regression", "an npz file of images and targets"),
    ],
)
def test_each_says_what_it_needs(task: str, form: str) -> None:
    with pytest.raises(DataError) as caught:
        TASKS[task].open(Path("nowhere"), GREY, Meaning(task), 3)
    assert str(caught.value) == f"nowhere does not exist: give {form}."
    arrays = np.zeros((2, 4, 4, 1), np.uint8), np.zeros(2, np.int64)
    with pytest.raises(DataError) as caught:
        TASKS[task].open(arrays, GREY, Meaning(task), 3)
    assert str(caught.value) == f"digits has labels for classification, not for {task}: give {form}."

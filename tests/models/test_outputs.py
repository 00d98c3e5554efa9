"""Outputs that say nothing of how far they are from others are refused."""

from __future__ import annotations

import pytest
import torch

from zeroq.errors import ModelError, OptionError
from zeroq.models.outputs import check_outputs

MAPS = torch.zeros(2, 3, 4, 4)


@pytest.mark.parametrize(
    ("outputs", "given"),
    [(MAPS.argmax(1), "int64 alone"), ((MAPS > 0, MAPS.int()), "bool and int32 alone"), ((), "no tensor")],
)
def test_integers_alone(outputs: object, given: str) -> None:
    with pytest.raises(ModelError, match=f"^The network gives {given}: let it return the numbers that these are made"):
        check_outputs(outputs, None)


def test_complex_numbers() -> None:
    with pytest.raises(ModelError, match=r"^The network gives complex numbers, which no file holds: return torch.view"):
        check_outputs((MAPS, torch.fft.rfft2(MAPS)), None)


@pytest.mark.parametrize("task", ["classification", "segmentation"])
def test_one_score_of_which_none_can_win(task: str) -> None:
    with pytest.raises(OptionError, match=f"^TASK is {task} and the output has one score, which no other can be above"):
        check_outputs(MAPS[:, :1], task)


def test_all_others_pass() -> None:
    check_outputs({"scores": MAPS, "classes": MAPS.argmax(1)}, "segmentation")
    check_outputs(MAPS[:, :1], "regression")
    check_outputs(MAPS[:, :1], None)

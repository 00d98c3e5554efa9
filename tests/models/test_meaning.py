"""What a FILE.py says of its output."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from zeroq.divergence import Meaning
from zeroq.errors import ModelError, OptionError
from zeroq.models import load_model
from zeroq.models.meaning import Reading, meaning_of, stated

SOURCE = """
from torch import nn
PREPROCESS = dict(size=(4, 4), mean=(0.5,), std=(0.5,), channels="L")
def net():
    return nn.Sequential(nn.Conv2d(1, 3, 1))
"""
MAPS = torch.randn(2, 3, 4, 4)


@pytest.fixture
def loaded(tmp_path: Path) -> Callable[[str], Reading]:
    """The reading of a file with some lines more."""

    def load(lines: str) -> Reading:
        (tmp_path / "net.py").write_text(SOURCE + lines)
        return load_model(f"{tmp_path}/net.py:net").reading

    return load


def test_nothing_is_said_by_a_plain_file(loaded: Callable[[str], Reading]) -> None:
    assert loaded("") == Reading(None, None, None)


def test_constants_and_functions_are_read(loaded: Callable[[str], Reading]) -> None:
    reading = loaded("IGNORE = 2\ndef decode(x): return [x]\ndef divergence(a, b): return (a - b).sum((1, 2, 3))\n")
    assert reading.ignore == 2 and reading.decode is not None and reading.divergence is not None
    assert reading.decode(5) == [5]  # type: ignore[comparison-overlap]
    assert reading.divergence(MAPS, MAPS).tolist() == [0, 0]


def test_what_they_raise_names_the_line(loaded: Callable[[str], Reading], tmp_path: Path) -> None:
    reading = loaded("def decode(outputs):\n    return outputs.boxes\n")
    assert reading.decode is not None
    with pytest.raises(ModelError, match=rf"^{tmp_path}/net\.py fails at line 7, running decode\(\) \("):
        reading.decode(MAPS)


@pytest.mark.parametrize("name", ["decode", "divergence"])
def test_what_is_no_function_is_refused(name: str, loaded: Callable[[str], Reading], tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        loaded(f"{name} = 3\n")
    assert str(caught.value) == f"{name} in {tmp_path}/net.py is a int: write a function, or name it otherwise."


def test_an_unknown_task_is_refused(loaded: Callable[[str], Reading], tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        loaded("TASK = 'captioning'\n")
    assert str(caught.value) == (
        f"TASK in {tmp_path}/net.py is 'captioning': write one of classification, segmentation, detection, regression."
    )


def test_a_task_that_is_said_is_not_guessed() -> None:
    assert meaning_of("regression", Reading(), MAPS) == (Meaning("regression"), [])
    meaning, warnings = meaning_of(None, Reading(ignore=2), MAPS)
    assert meaning == Meaning("segmentation", ignore=2)
    assert warnings == [
        "TASK is not given: the output [N, 3, 4, 4] is taken as class scores per pixel (segmentation); "
        "set TASK if it is not."
    ]
    assert meaning_of(None, Reading(), (MAPS, MAPS))[0].task == "regression"


def test_decode_counts_for_detection_alone() -> None:
    reading = Reading(decode=lambda outputs: [torch.zeros(0, 6)] * 2)
    assert stated("classification", reading).decode is None
    assert meaning_of("detection", reading, (MAPS,))[0].decode is reading.decode
    with pytest.raises(ModelError, match=r"^TASK is detection and no decode\(outputs\) says what the boxes are"):
        meaning_of("detection", Reading(), (MAPS,))


@pytest.mark.parametrize(
    ("task", "output", "said"),
    [
        (
            "classification",
            MAPS,
            "TASK is classification and the output is [N, 3, 4, 4]: it needs class scores [N, K].",
        ),
        (
            "segmentation",
            (torch.zeros(2, 5), MAPS),
            "TASK is segmentation and the output is [N, 5]: it needs class scores [N, K, H, W].",
        ),
    ],
)
def test_scores_of_another_form_are_refused(task: str, output: object, said: str) -> None:
    with pytest.raises(OptionError) as caught:
        meaning_of(task, Reading(), output)
    assert str(caught.value) == said

"""Tasks: the data that each is evaluated on, and how it is scored."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from zeroq.divergence import Meaning
from zeroq.errors import DataError
from zeroq.evaluate.classification import Hits
from zeroq.evaluate.data import Arrays, open_data
from zeroq.evaluate.detection import AveragePrecision, open_detection
from zeroq.evaluate.regression import TargetErrors, open_regression
from zeroq.evaluate.segmentation import Overlap, open_segmentation
from zeroq.preprocessing import Preprocessing


class Data(Protocol):
    """Inputs of a network with what it should say of each, read from disk while they are gone through."""

    def __len__(self) -> int: ...
    def batches(self, batch: int) -> Iterator[tuple[Tensor, Any]]:
        """Inputs float32 [n, C, H, W], n at most `batch`, and the truth of these images."""
        ...


class Score(Protocol):
    """What is added up over batches, and the figures that come of it."""

    def add(self, outputs: Any, truth: Any) -> None: ...
    def metrics(self) -> dict[str, float]:
        """Shares in fractions of one."""
        ...


@dataclass(frozen=True)
class Task:
    """How a meaning of the output is evaluated.

    open: a source, preprocessing, the meaning and the number of classes (0 where it has none) to data.  score: of such
    data and a meaning.
    """

    open: Callable[[Path | Arrays, Preprocessing, Meaning, int], Data]
    score: Callable[[Any, Meaning], Score]


def on_disk(open_path: Callable[[Path, Preprocessing, Meaning, int], Data], form: str) -> Callable[..., Data]:
    """For tasks whose data are files: `form` says which."""

    def open_source(source: Path | Arrays, preprocessing: Preprocessing, meaning: Meaning, classes: int) -> Data:
        if not isinstance(source, Path):
            raise DataError(f"digits has labels for classification, not for {meaning.task}: give {form}.")
        if not source.exists():
            raise DataError(f"{source} does not exist: give {form}.")
        return open_path(source, preprocessing, meaning, classes)

    return open_source


TASKS = {
    "classification": Task(
        open=lambda source, preprocessing, meaning, classes: open_data(source, preprocessing, classes),
        score=lambda data, meaning: Hits(data.classes),
    ),
    "segmentation": Task(
        open=on_disk(open_segmentation, "a folder that holds images and labels"),
        score=lambda data, meaning: Overlap(data, meaning.ignore),
    ),
    "detection": Task(
        open=on_disk(open_detection, "a folder of pictures with instances.json"),
        score=lambda data, meaning: AveragePrecision(data, meaning.decode),
    ),
    "regression": Task(
        open=on_disk(open_regression, "an npz file of images and targets"),
        score=lambda data, meaning: TargetErrors(),
    ),
}

"""Networks of other tasks than classification: what benchmarks.tasks measures, and benchmarks.low_bits some of."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any, ClassVar

from benchmarks.rows import (
    MIXED,
    ROOT,
    SETTINGS,
    W8,
    codes_for,
    earliest,
    equal_to,
    key_of,
    program,
    sources,
    switched_on,
)
from zeroq.options import Options

RESULTS = ROOT / "benchmarks" / "results" / "tasks"
SCORING = ("evaluate", "models/meaning.py", "preprocessing.py")  # beside the method, what decides a figure
FORMAT = 1  # of a row's file; a new one makes every row stale

# Network -> the pictures that it is for.
NETWORKS = {
    "nanodet_m": "coco_val_a",
    "fastestdet": "coco_val_a",
    "retinaface_025": "coco_val_a",
    "espnet_camvid": "camvid_test_a",
}
METRICS = {"nanodet_m": "mAP", "fastestdet": "mAP", "retinaface_025": "F1 against float", "espnet_camvid": "mIoU"}
WITHOUT_LABELS = ("retinaface_025",)  # no labelled faces: held to the float network's detections alone
TASK_SETTINGS = (W8, MIXED)  # of benchmarks.tasks


@dataclass(frozen=True)
class TaskRow:
    """One network in one setting, fitted on distilled images."""

    network: str
    setting: str
    MEASURED_BY: ClassVar[str] = "benchmarks.task_measure"

    @property
    def name(self) -> str:
        return "-".join(self.facts.values())

    @property
    def facts(self) -> dict[str, str]:
        return asdict(self)

    @property
    def file(self) -> Path:
        return RESULTS / f"{self.name}.json"

    def options(self, **further: Any) -> Options:
        return Options.of(**SETTINGS[self.setting], **further)

    def valid_keys(self) -> list[str]:
        """Of everything that decides the result, by the programs that are known to give it; new ones get the first."""
        asked = switched_on(self.options())
        pairs = product(codes_for(self), equal_to(scoring_hash(), ""))
        return [key_of([FORMAT, self.name, asked, code, scoring]) for code, scoring in pairs]


def all_rows() -> list[TaskRow]:
    """Of benchmarks.tasks, in the order in which they are measured."""
    return [TaskRow(network, setting) for setting in TASK_SETTINGS for network in NETWORKS]


def scoring_code() -> str:
    """The hash of the earliest programs of scoring that those at hand are shown to be equal to."""
    return earliest(scoring_hash(), "")


def scoring_hash() -> str:
    """Hash of the programs that score, comments and docstrings left out."""
    digest = hashlib.sha256()
    for file in sources(SCORING):
        digest.update(program(file.read_text(encoding="utf-8")).encode())
    return digest.hexdigest()

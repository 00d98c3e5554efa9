"""What a MODEL string leads to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from zeroq.models.meaning import Reading
from zeroq.preprocessing import Preprocessing

Shape = tuple[int, int, int]  # channels, height, width of one input
Statistic = tuple[tuple[float, ...], tuple[float, ...]]  # mean, deviation of pixel / 255, per channel


@dataclass(frozen=True)
class FoundModel:
    """A network and what its source says of it, before --weights, --preprocess and --input-shape have their say.

    None stands for what the source does not say.
    """

    name: str
    module: nn.Module
    preprocessing: Preprocessing | None = None
    input_shape: Shape | None = None
    task: str | None = None
    input_statistic: Statistic | None = None
    reading: Reading = Reading()


@dataclass(frozen=True)
class LoadedModel:
    """A trained network that is ready to be captured.

    name: fit for a file's name.  source: the MODEL string.  module: in eval mode, on the CPU, 32-bit floats, no
    gradients.  task: TASK of a FILE.py, else None.  input_statistic: mean and deviation of the domain's pixels in
    0..1, per channel; None for natural pictures.  weights_sha256: see `weights_sha256`.  warnings: what was guessed.
    reading: what is said of the output beside the task.
    """

    name: str
    source: str
    module: nn.Module
    input_shape: Shape
    preprocessing: Preprocessing
    task: str | None
    input_statistic: Statistic | None
    weights_sha256: str
    warnings: tuple[str, ...]
    weights: Path | None = None  # the file of --weights
    reading: Reading = Reading()

"""What a MODEL string leads to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zeroq.errors import ModelError
from zeroq.models.meaning import Reading
from zeroq.preprocessing import Preprocessing

Shape = tuple[int, int, int]  # channels, height, width of one input
Statistic = tuple[tuple[float, ...], tuple[float, ...]]  # mean, deviation of pixel / 255, per channel


def checked_module(value: Any, said: str, do: str, it: str) -> nn.Module:
    """A network whose layers can be replaced. Raises ModelError.

    said: of the value, up to what it is.  do, it: with what a person is to do what.
    """
    if isinstance(value, torch.jit.ScriptModule):
        raise ModelError(
            f"{said} a TorchScript program, whose layers cannot be replaced: {do} the torch.nn.Module that it was made "
            "from."
        )
    if not isinstance(value, nn.Module):
        raise ModelError(f"{said} a {type(value).__name__}, not a torch.nn.Module: {do} {it}.")
    return value


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
    example: tuple[Tensor, ...] | None = None  # where it takes other than one picture
    reading: Reading = Reading()


@dataclass(frozen=True)
class LoadedModel:
    """A trained network that is ready to be captured.

    name: fit for a file's name.  source: the MODEL string.  module: in eval mode, on the CPU, 32-bit floats, no
    gradients.  preprocessing: None where no input is a picture.  task: TASK of a FILE.py, else None.
    input_statistic: mean and deviation of the domain's pixels in 0..1, per channel; None for natural pictures.
    weights_sha256: see `weights_sha256`.  warnings: what was guessed.
    reading: what is said of the output beside the task.
    given: what the command line said of it beside MODEL and --weights, None of a module that was held in Python.
    """

    name: str
    source: str
    module: nn.Module
    input_shape: tuple[int, ...]
    preprocessing: Preprocessing | None
    task: str | None
    input_statistic: Statistic | None
    weights_sha256: str
    warnings: tuple[str, ...]
    weights: Path | None = None  # the file of --weights
    reading: Reading = Reading()
    example: tuple[Tensor, ...] | None = None  # where it takes other than one picture: its inputs
    guessed: bool = False  # preprocessing
    given: tuple[str, ...] | None = None

    @property
    def shapes(self) -> list[int] | list[list[int]]:
        """The input's shape without the batch, as run.json holds it; of several inputs a list of them."""
        if self.example is None or len(self.example) == 1:
            return list(self.input_shape)
        return [list(value.shape[1:]) for value in self.example]

    def picture(self) -> Preprocessing:
        """How a picture becomes the network's only input. Raises ModelError where it takes something else."""
        if self.example is not None or self.preprocessing is None:
            shapes = ", ".join(str(["N", *value.shape[1:]]).replace("'", "") for value in self.example or ())
            raise ModelError(
                f"{self.name} takes {shapes}: pictures can be evaluated and read for networks of one input "
                "[N, C, H, W]; run its file, or run.model, on your own data."
            )
        return self.preprocessing

"""What a network's output means: TASK, IGNORE, decode and divergence of a FILE.py, or of a call in Python."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Tensor

from zeroq.divergence import TASKS, Comparison, Decode, Divergence, Meaning, guess_task
from zeroq.errors import ModelError, OptionError

Guard = Callable[[Callable[[], Any], Path, str], Any]  # a call in the user's file; what it raises names the line


@dataclass(frozen=True)
class Reading:
    """How a source says that its output is to be read, beside its task; see `zeroq.divergence.Meaning`."""

    ignore: int | None = None
    decode: Decode | None = None
    divergence: Divergence | None = None


def task_of(namespace: ModuleType, path: Path) -> str | None:
    """TASK of a user's file. Raises ModelError."""
    task = getattr(namespace, "TASK", None)
    if task is not None and task not in TASKS:
        raise ModelError(f"TASK in {path} is {task!r}: write one of {', '.join(TASKS)}.")
    return task


def reading_of(namespace: ModuleType, path: Path, guard: Guard) -> Reading:
    """IGNORE, decode and divergence of a user's file; what the functions raise names their line. Raises ModelError."""
    return Reading(
        ignore=getattr(namespace, "IGNORE", None),
        decode=function_of(namespace, "decode", path, guard),
        divergence=function_of(namespace, "divergence", path, guard),
    )


def function_of(namespace: ModuleType, name: str, path: Path, guard: Guard) -> Callable[..., Any] | None:
    """A function of the user's file, as one that names its line when it fails; None where there is none."""
    function = getattr(namespace, name, None)
    if function is None:
        return None
    if not callable(function):
        raise ModelError(f"{name} in {path} is a {type(function).__name__}: write a function, or name it otherwise.")

    def guarded(*outputs: Any) -> Any:
        return guard(lambda: function(*outputs), path, f"{name}()")

    guarded.__wrapped__ = function  # type: ignore[attr-defined]
    return guarded


def meaning_of(task: str | None, reading: Reading, output: Any) -> tuple[Meaning, list[str]]:
    """The meaning of an output by what was said of it, and a warning where the task had to be guessed.

    output: of the network, for any images; decode and divergence are tried on it. Raises ModelError or OptionError.
    """
    warnings = []
    if task is None:
        task, warning = guess_task(tuple(output.shape) if isinstance(output, Tensor) else ())
        warnings.append(warning)
    meaning = stated(task, reading)
    if meaning.decode is not None or meaning.divergence is not None or meaning.task == "detection":
        Comparison(meaning).add(output, output)
    if meaning.task in ("classification", "segmentation"):
        check_scores(meaning.task, output)
    return meaning, warnings


def stated(task: str, reading: Reading) -> Meaning:
    """A task and what was said beside it; a `decode` counts for detection alone."""
    return Meaning(task, reading.ignore, reading.decode if task == "detection" else None, reading.divergence)


def check_scores(task: str, output: Any) -> None:
    """Refuse an output that holds no class scores where TASK says that it does."""
    first = output
    while isinstance(first, list | tuple) and first:
        first = first[0]
    axes, wanted = (2, "[N, K]") if task == "classification" else (4, "[N, K, H, W]")
    if isinstance(first, Tensor) and first.dim() != axes:
        shape = ", ".join(["N", *(str(side) for side in first.shape[1:])])
        raise OptionError(f"TASK is {task} and the output is [{shape}]: it needs class scores {wanted}.")

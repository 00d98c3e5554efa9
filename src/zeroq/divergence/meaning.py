"""What a network's output means."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils import _pytree as pytree

from zeroq.errors import OptionError

# By the number of axes of an output that holds them.
SCORES = {2: ("classification", "class scores"), 4: ("segmentation", "class scores per pixel")}
TASKS = ("classification", "segmentation", "detection", "regression")
Decode = Callable[[Any], Sequence[Tensor]]  # outputs to [k, 6] for each image: box, score, class
Divergence = Callable[[Any, Any], Tensor]  # reference and outputs for N images to [N]


def on_cpu(outputs: Any) -> Any:
    """Outputs as a user's own functions get them, which need not know of other devices."""
    return pytree.tree_map(lambda leaf: leaf.cpu() if isinstance(leaf, Tensor) else leaf, outputs)


@dataclass(frozen=True)
class Meaning:
    """What a network's output means; the divergence and the metric follow from it.

    ignore: of segmentation, the label that does not count.  decode: of detection, from the network's outputs alone to
    one tensor [k, 6] for each image: x0, y0, x1, y1 in fractions of the input, score, class.  divergence: the user's
    own, in place of the task's. Raises OptionError for an unknown task, or an `ignore` that is not for it.
    """

    task: str
    ignore: int | None = None
    decode: Decode | None = None
    divergence: Divergence | None = None

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise OptionError(f"TASK is {self.task!r}: give one of {', '.join(TASKS)}.")
        if self.ignore is None:
            return
        if isinstance(self.ignore, bool) or not isinstance(self.ignore, int):
            raise OptionError(f"IGNORE is {self.ignore!r}: give the class index of pixels that do not count.")
        if self.task != "segmentation":
            raise OptionError(
                f"IGNORE is a label of pixels and TASK is {self.task}: leave IGNORE out, or say segmentation."
            )


def guess_task(output_shape: Sequence[int], *, behind_sigmoid: bool = False) -> tuple[str, str]:
    """The name of the task that an output of this shape, batch included, is taken for, and the warning that says so.

    Several outputs have no shape in common: give ().  One score has no other to be above, and behind a sigmoid, as of
    labels that may all be there, none wins: both are numbers to be met.
    """
    name, meaning = "regression", "numbers to be met"
    if len(output_shape) in SCORES and output_shape[1] > 1 and not behind_sigmoid:
        name, meaning = SCORES[len(output_shape)]
    shape = ", ".join(["N", *(str(side) for side in output_shape[1:])])
    said = f"the output [{shape}] is" if output_shape else "its several outputs are"
    return name, f"TASK is not given: {said} taken as {meaning} ({name}); set TASK if it is not."

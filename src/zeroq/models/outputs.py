"""What a network has to give, so that few bits can be compared with many."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_leaves

from zeroq.divergence.channels import tensors_of
from zeroq.errors import ModelError, OptionError


def check_outputs(outputs: Any, task: str | None) -> None:
    """Refuse outputs that say nothing of how far they are from others.

    task: as it was said, if it was. Raises ModelError, or OptionError where another task would do.
    """
    leaves = [leaf for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor)]
    if any(leaf.is_complex() for leaf in leaves):
        raise ModelError("The network gives complex numbers, which no file holds: return torch.view_as_real of them.")
    numbers = tensors_of(outputs)
    if not numbers:
        types = sorted({str(leaf.dtype).removeprefix("torch.") for leaf in leaves})
        given = f"{' and '.join(types)} alone" if types else "no tensor"
        raise ModelError(
            f"The network gives {given}: let it return the numbers that these are made of, such as the class scores "
            "that argmax is taken of."
        )
    if task in ("classification", "segmentation") and numbers[0].dim() > 1 and numbers[0].shape[1] < 2:
        raise OptionError(
            f"TASK is {task} and the output has one score, which no other can be above: with TASK regression its "
            "squared error counts."
        )

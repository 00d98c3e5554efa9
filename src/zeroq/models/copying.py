"""A copy of a module that its owner goes on using."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn
from torch.utils import _pytree as pytree

from zeroq.errors import ModelError
from zeroq.reason import reason


def copied(module: nn.Module, name: str) -> nn.Module:
    """A deep copy, also where PyTorch refuses one because of what the module keeps beside its weights.

    Tensors that were computed with gradients, such as a feature map of the last pass or a weight that a hook computes,
    are copied as they are; what cannot be copied at all, such as a lock or an open file, both then share.
    Raises ModelError where that does not help.
    """
    try:
        return copy.deepcopy(module)
    except Exception:  # what cannot be copied raises what it likes
        kept = {id(value): substitute for value, substitute in substitutes(module)}
    try:
        return copy.deepcopy(module, kept)
    except Exception as error:
        raise ModelError(
            f"{name} cannot be copied ({reason(error)}), and it is not changed itself: give a module that "
            "copy.deepcopy copies."
        ) from error


def substitutes(module: nn.Module) -> Iterator[tuple[Any, Any]]:
    """What a module keeps that cannot be copied, and what the copy has in its place."""
    for part in module.modules():
        for name, held in vars(part).items():
            if name in ("_parameters", "_modules"):
                continue
            for value in [held, *pytree.tree_leaves(held)]:
                if isinstance(value, Tensor):
                    if not value.is_leaf:
                        yield value, value.detach().clone()
                elif not callable(value) and not isinstance(value, nn.Module) and not name.startswith("_"):
                    try:
                        copy.deepcopy(value)
                    except Exception:
                        if not isinstance(value, dict | list | tuple):
                            yield value, value

"""A device that is none: tensors that say they are elsewhere, compute here, and meet no tensor of the CPU.

    with emulated():
        network.to(ELSEWHERE)

As on a GPU, an operator takes tensors of one device, but for single numbers of the CPU, and what is elsewhere has to be
brought back before numpy may read it. PyTorch's device "meta" lends its name, as every build of PyTorch has it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

ELSEWHERE = torch.device("meta")
CPU = torch.device("cpu")
aten = torch.ops.aten
COPIES = {aten._to_copy.default, aten.copy_.default}  # from one device to another


class Distant(Tensor):
    """A tensor of the emulated device; `here` are its numbers."""

    here: Tensor

    @staticmethod
    def __new__(cls, here: Tensor) -> Distant:
        made = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, here.shape, strides=here.stride(), storage_offset=here.storage_offset(), dtype=here.dtype,
            device=ELSEWHERE, requires_grad=False,
        )  # fmt: skip
        made.here = here
        return made  # type: ignore[no-any-return]

    def __repr__(self, **_: Any) -> str:
        return f"Distant({self.here!r})"

    @classmethod
    def __torch_dispatch__(cls, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(operator, args, kwargs or {})


class Emulation(TorchDispatchMode):
    """Makes tensors of the emulated device where an operator is told to."""

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(operator, args, kwargs or {})


class Literals(TorchFunctionMode):
    """Numbers of the program become tensors, and tensors numbers, on the CPU: the dispatcher is not asked then."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if function is torch.tensor or (function is torch.as_tensor and not isinstance(args[0], Tensor)):
            return torch.Tensor.to(torch.tensor(*args, **kwargs | {"device": CPU}), kwargs.get("device", CPU))
        if function is torch.Tensor.new_tensor:
            like, *rest = args
            return torch.tensor(*rest, **({"dtype": like.dtype} | kwargs)).to(like.device)
        if function is torch.Tensor.tolist and isinstance(args[0], Distant):
            return args[0].here.tolist()
        return function(*args, **kwargs)


@contextmanager
def emulated() -> Iterator[None]:
    """The device is there; gradients are merely switched off where inference mode is asked for, which knows it not."""
    no_gradients = patch.object(torch, "inference_mode", lambda on=True: torch.no_grad() if on else nullcontext())
    with no_gradients, Emulation(), Literals():
        yield


def run(operator: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """An operator on the numbers themselves; what comes out is where it would be."""
    tensors = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    distant = [leaf for leaf in tensors if isinstance(leaf, Distant)]
    near = [leaf for leaf in tensors if not isinstance(leaf, Distant) and leaf.dim()]
    asked = kwargs.get("device")
    elsewhere = bool(distant) if asked is None else torch.device(asked) == ELSEWHERE
    if distant and near and operator not in COPIES:
        raise RuntimeError(f"{operator} is given tensors of two devices")
    if operator == aten.copy_.default:
        elsewhere = isinstance(args[0], Distant)
    mine: dict[int, Distant] = {id(leaf.here): leaf for leaf in distant}
    args, kwargs = pytree.tree_map(lambda leaf: leaf.here if isinstance(leaf, Distant) else leaf, (args, kwargs))
    found = operator(*args, **(kwargs if asked is None else kwargs | {"device": CPU}))
    for leaf in distant:
        assert leaf.shape == leaf.here.shape, f"{operator} changes a shape in place, which is not emulated"

    def placed(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor) or isinstance(leaf, Distant) or not elsewhere:
            return leaf
        return mine[id(leaf)] if id(leaf) in mine else Distant(leaf)

    return pytree.tree_map(placed, found)

"""Which operators change memory, and which values share it."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

aten = torch.ops.aten


def is_inplace(node: fx.Node) -> bool:
    """Whether an operator changes its first argument."""
    schema = getattr(node.target, "_schema", None)
    return schema is not None and schema.is_mutable


def is_view(node: fx.Node) -> bool:
    """Whether a value shares memory with one that others still read, perhaps through several views."""
    while aliases(node):
        node = node.args[0]  # type: ignore[assignment]
        if sum(user.target != aten.sym_size.int for user in node.users) > 1:
            return True
    return False


def aliases(node: fx.Node) -> bool:
    """Whether an operator gives a view of its first argument."""
    schema: Any = getattr(node.target, "_schema", None)
    viewing = schema is not None and any(argument.alias_info is not None for argument in schema.arguments)
    return viewing and not is_inplace(node)

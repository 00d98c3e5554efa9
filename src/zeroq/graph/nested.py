"""Programs within a network's program: those that change nothing of what is computed take their place in it."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx

from zeroq.graph.refusals import place_in


def put_in_place(program: fx.GraphModule) -> None:
    """Let the steps within torch.no_grad and its like, and within torch.autocast where it has no effect, stand among
    the others.
    """
    for node in list(program.graph.nodes):
        if node.op != "call_function" or (name := str(node.target)) not in WRAPPED:
            continue
        settings, (path, *inputs) = node.args[: WRAPPED[name]], node.args[WRAPPED[name] :]
        if name == AUTOCAST and changes_precision(*settings):
            continue
        inner = program.get_submodule(path.target)
        assert isinstance(inner, fx.GraphModule), "torch.export gives programs alone"
        put_in_place(inner)
        with program.graph.inserting_before(node):
            results = copied(inner.graph, program.graph, inputs, path.target)
        for user in list(node.users):
            assert user.target == operator.getitem, "what a nested program gives is a tuple"
            user.replace_all_uses_with(results[user.args[1]])
            program.graph.erase_node(user)
        program.graph.erase_node(node)
        if not path.users:
            program.graph.erase_node(path)


AUTOCAST = "wrap_with_autocast"
WRAPPED = {"wrap_with_set_grad_enabled": 1, AUTOCAST: 4}  # with how many settings before the program and its inputs


def changes_precision(device: str, dtype: torch.dtype | None, enabled: bool, cached: bool | None) -> bool:
    """Whether steps under torch.autocast compute otherwise here: networks are captured on the CPU."""
    return enabled and device == "cpu"


def copied(inner: fx.Graph, outer: fx.Graph, inputs: list[Any], path: Any) -> Any:
    """Put the steps of one graph into another; what they give.

    inputs: of the inner one, from the outer.  path: of the inner program, where what it holds is found.
    """
    values = dict(zip((node for node in inner.nodes if node.op == "placeholder"), inputs, strict=True))
    for node in inner.nodes:
        if node.op == "output":
            return fx.node.map_arg(node.args[0], values.__getitem__)
        if node.op != "placeholder":
            values[node] = outer.node_copy(node, values.__getitem__)
            if node.op == "get_attr":
                values[node].target = f"{path}.{node.target}"
    raise AssertionError("a graph has an output")


def refusal(program: fx.Node) -> str:
    """What a person reads of a program that stays nested.  program: where it is taken from."""
    users = {str(user.target) for user in program.users}
    if AUTOCAST in users:
        parts = (user for node in program.users for user in (node, *node.users))
        where = next(filter(None, (place_in(part) for part in parts)), "")
        return (
            f"The network's forward pass chooses its own precision by torch.autocast{where}: leave that out for "
            "inference."
        )
    return (
        f"The network holds a nested program ({program.target}), which cannot be quantized: "
        "write its control flow without torch.cond or other higher-order operators."
    )

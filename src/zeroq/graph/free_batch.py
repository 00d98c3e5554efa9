"""Networks whose Python code takes the number of images for a plain number: the same program with that number free.

torch.export follows x.shape[0] through sums and products, but not through len(x), int(x.shape[0] / 4) or an assertion.
Two programs for two numbers of images tell what of them is a multiple of that number.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

aten = torch.ops.aten

IMAGES = 4, 6  # of either program; half of them differ as well, so that it is not taken for a number


def with_free_batch(module: nn.Module, inputs: tuple[Tensor, ...]) -> fx.GraphModule | None:
    """The module's program, the number of images taken from its first input; None where it does more than count them.

    Raises whatever torch.export raises of a fixed number of images.
    """
    programs = []
    for images in IMAGES:
        repeated = tuple(value[[0] * images] for value in inputs)
        programs.append(torch.export.export(module, repeated).module(check_guards=False))
    first, second = programs
    nodes, twins = list(first.graph.nodes), list(second.graph.nodes)
    same_steps = [(node.op, str(node.target)) for node in nodes] == [(twin.op, str(twin.target)) for twin in twins]
    if not same_steps or not all(map(same, stored(first), stored(second))):
        return None
    places = {twin: node for node, twin in zip(nodes, twins, strict=True)}
    count = number_of_images(first.graph)
    for node, twin in zip(nodes, twins, strict=True):
        ours, form = pytree.tree_flatten((node.args, node.kwargs))
        theirs, other = pytree.tree_flatten((twin.args, twin.kwargs))
        if form != other:
            return None
        with first.graph.inserting_before(node):
            freed = [of_images(one, places.get(two, two), count) for one, two in zip(ours, theirs, strict=True)]
        if UNLIKE in freed:
            return None
        node.args, node.kwargs = pytree.tree_unflatten(freed, form)
    first.recompile()
    return first


UNLIKE = object()  # of two programs' arguments that no number of images explains


def number_of_images(graph: fx.Graph) -> fx.Node:
    """A node for it, behind the inputs."""
    inputs = [node for node in graph.nodes if node.op == "placeholder"]
    with graph.inserting_after(inputs[-1]):
        return graph.call_function(aten.sym_size.int, (inputs[0], 0))


def of_images(one: Any, other: Any, count: fx.Node) -> Any:
    """An argument for any number of images, from those for either number; UNLIKE where it does not follow."""
    if one is other or (type(one) is type(other) and one == other):
        return one
    if type(one) is not int or type(other) is not int:
        return UNLIKE
    times, rest = divmod(one, IMAGES[0])
    if rest or times * IMAGES[1] != other:
        return UNLIKE
    return count if times == 1 else count.graph.call_function(operator.mul, (count, times))


def stored(program: fx.GraphModule) -> list[Any]:
    """What a program reads beside its inputs, in the order in which it does."""
    return [operator.attrgetter(node.target)(program) for node in program.graph.nodes if node.op == "get_attr"]


def same(one: Any, other: Any) -> bool:
    """Whether two programs read the same there: what the code made of a number of images is stored as well."""
    return isinstance(one, Tensor) and isinstance(other, Tensor) and torch.equal(one, other)

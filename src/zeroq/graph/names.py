"""The user's tensors, kept apart from those that zeroq adds to a network and to its file."""

from __future__ import annotations

import copy
import re
from collections.abc import Collection

from torch import Tensor, fx, nn

from zeroq.errors import CaptureError

# Behind the name of a tensor of the user's: its integers, and what they are multiplied by.
DERIVED = ("_integers", "_scale")
# Folded and rounded biases, bounds of rectifiers, parameters of quantizers, and what constants of a file are called.
ADDED = re.compile(
    r"(.*\.)?(folded_bias|bias_values|bias\d*_(integers|scale)|(lower|upper)_limit)"
    r"|activations(\..*\.(scale|zero_point))?|c\d+|zeros\d+|(zero_point|shape)[\dx_]*"
)


def with_name_of_result_free(graph: fx.Graph) -> fx.Graph:
    """A graph none of whose inputs has the name "output", by which the network's result goes."""
    if not (inputs := [node for node in graph.nodes if node.op == "placeholder" and node.name == "output"]):
        return graph
    for node in inputs:
        with graph.inserting_before(node):
            other = graph.placeholder("output_given")
        other.meta = dict(node.meta)
        node.replace_all_uses_with(other)
        graph.erase_node(node)
    return copy.deepcopy(graph)  # names are given again, and this one to the result


def keep_apart(graph: fx.Graph, tensors: dict[str, Tensor]) -> None:
    """Put a line behind each name that a tensor of ours could have as well: `weight_scale` beside `weight`."""
    new: dict[str, str] = {}
    for name in [each for each in tensors if is_ours(each, tensors)]:
        other = f"{name}_"
        while other in tensors:
            other += "_"
        new[name] = other
        tensors[other] = tensors.pop(name)
    for node in graph.nodes:
        if node.op == "get_attr":
            node.target = new.get(node.target, node.target)


def is_ours(name: str, names: Collection[str]) -> bool:
    """Whether zeroq could call a tensor of its own so, in a network whose tensors have these names."""
    of_another = any(name.endswith(ending) and name.removesuffix(ending) in names for ending in DERIVED)
    return of_another or ADDED.fullmatch(name) is not None


def check_names(module: nn.Module) -> None:
    """Refuse a part of the network with a name that modules of torch's graphs have for something else."""
    for name in [*dict(module.named_children()), *module._parameters, *module._buffers]:
        if hasattr(fx.GraphModule, name) or name == "meta":
            raise CaptureError(
                f"The network has a part of the name {name!r}, which torch.export keeps for its own: call it otherwise."
            )

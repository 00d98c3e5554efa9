"""QuantizedNetwork -> the program that torch.onnx translates, without tracing: the graph is one of operators already.

torch.onnx.export would trace the network twice, to find the graph that is there from the start, and to decompose
operators of which there are none: three quarters of an export's time.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import torch
from torch import SymInt, Tensor, fx, nn
from torch._dispatch.python import enable_python_dispatcher
from torch._subclasses import FakeTensorMode
from torch.export import ExportedProgram, ModuleCallEntry, ModuleCallSignature
from torch.export.graph_signature import (
    ExportGraphSignature,
    InputKind,
    InputSpec,
    OutputKind,
    OutputSpec,
    TensorArgument,
)
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext
from torch.utils import _pytree as pytree

from zeroq.graph.network import CONVOLUTIONS, LIMIT, LINEAR
from zeroq.graph.replay import replay
from zeroq.numbers.operators import DEQUANTIZE, QUANTIZE_DEQUANTIZE, WEIGHT_ONLY
from zeroq.simulate.quantized_network import QuantizedNetwork

aten = torch.ops.aten

# Operators that torch.onnx translates as they stand.
PLAIN = {
    QUANTIZE_DEQUANTIZE, DEQUANTIZE, WEIGHT_ONLY, *CONVOLUTIONS, LINEAR, LIMIT,
    aten.add.Tensor, aten.relu.default, aten.hardtanh.default,
    aten.cat.default, aten.pad.default, aten.slice.Tensor, aten.reshape.default, aten.permute.default,
    aten.transpose.int, aten.select.int, aten.upsample_nearest2d.vec,
    aten.max_pool2d.default, aten.avg_pool2d.default, aten.adaptive_avg_pool2d.default,
}  # fmt: skip


class Decomposed(ExportedProgram):
    """A program whose operators are all to be translated as they stand."""

    def run_decompositions(self, decomp_table: Any = None, *args: Any, **options: Any) -> ExportedProgram:
        """Itself."""
        return self


def program_of(network: QuantizedNetwork, example: tuple[Tensor, ...]) -> ExportedProgram | None:
    """The network as a program with a free batch size; None where it has operators beyond PLAIN, or several inputs.

    example: the input, of batch 2.
    """
    if len(example) > 1 or any(node.op == "call_function" and node.target not in PLAIN for node in network.graph.nodes):
        return None
    values, output = values_without_numbers(network, example)
    if not is_free(values[network_input(network)]) or any(copies(node, values) for node in network.graph.nodes):
        return None
    graph, inputs = fx.Graph(), []
    made: dict[str, fx.Node] = {}
    for name in network.tensors():
        made[name] = placeholder(graph, f"b_{re.sub(r'[^0-9a-zA-Z]', '_', name)}", values[name])
        inputs.append(InputSpec(InputKind.BUFFER, TensorArgument(made[name].name), name, persistent=True))
    names = Names()
    nodes: dict[fx.Node, fx.Node] = {}
    for node in network.graph.nodes:
        if node.op == "placeholder":
            nodes[node] = placeholder(graph, node.name, values[node.name])
            inputs.append(InputSpec(InputKind.USER_INPUT, TensorArgument(nodes[node].name), None))
        elif node.op == "get_attr":
            nodes[node] = made[str(node.target)]
        elif node.op == "call_function":
            target: Any = aten.view.default if node.target == aten.reshape.default else node.target
            arguments, named = fx.node.map_arg((node.args, node.kwargs), nodes.__getitem__)
            value = values[node.name]
            nodes[node] = graph.create_node("call_function", target, arguments, named, name=names.of(target, value))
            nodes[node].meta["val"] = value
    leaves = [nodes[leaf] for leaf in pytree.tree_leaves(list(network.graph.nodes)[-1].args[0])]
    graph.output(tuple(leaves))
    outputs = [OutputSpec(OutputKind.USER_OUTPUT, TensorArgument(leaf.name), None) for leaf in leaves]
    call = ModuleCallSignature([], [], pytree.tree_structure((example, {})), pytree.tree_structure(output))
    return Decomposed(
        nn.Module(), graph, ExportGraphSignature(inputs, outputs), network.tensors(), {}, [ModuleCallEntry("", call)],
        (example, {}), {},
    )  # fmt: skip


def placeholder(graph: fx.Graph, name: str, value: Tensor) -> fx.Node:
    """An input of the program."""
    node = graph.placeholder(name)
    node.meta["val"] = value
    return node


def values_without_numbers(network: QuantizedNetwork, example: tuple[Tensor, ...]) -> tuple[dict[str, Tensor], Any]:
    """Fake tensors whose batch is a symbol, by the names of nodes and of stored tensors; and the network's output."""
    mode = FakeTensorMode(shape_env=ShapeEnv())
    stored = {name: mode.from_tensor(tensor, static_shapes=True) for name, tensor in network.tensors().items()}
    sizes = [DimDynamic.DYNAMIC, *[DimDynamic.STATIC] * (example[0].dim() - 1)]
    fake = mode.from_tensor(example[0], symbolic_context=StatelessSymbolicContext(dynamic_sizes=sizes))
    found: dict[str, Any] = {}

    def note(node: fx.Node, value: Any) -> None:
        found[node.name] = value

    # Kernels in Python keep a batch free that those in C++ would take for a constant.
    with mode, enable_python_dispatcher(), torch.no_grad():
        inputs = {network_input(network): fake}
        output = replay(network.graph, stored, inputs, visit=note, batch=fake.shape[0])["output"]
    return stored | found, output


def network_input(network: QuantizedNetwork) -> str:
    """The name of the only input."""
    return next(node.name for node in network.graph.nodes if node.op == "placeholder")


def is_free(value: Tensor) -> bool:
    """Whether nothing has bound a value's batch to a number."""
    return isinstance(value.shape[0], SymInt) and value.shape[0].node.maybe_as_int() is None


def copies(node: fx.Node, values: dict[str, Tensor]) -> bool:
    """Whether a reshape cannot view what it is given: the tracer makes two operators of it."""
    if node.target != aten.reshape.default:
        return False
    source, value = values[node.all_input_nodes[0].name], values[node.name]
    return source.untyped_storage()._cdata != value.untyped_storage()._cdata


class Names:
    """Names of values as torch's tracer gives them: by operator, numbered with what it computes of sizes.

    So files are the same, whether a network was traced or not.
    """

    def __init__(self) -> None:
        self.used: Counter[str] = Counter()

    def of(self, target: Any, value: Tensor) -> str:
        """For the next value, by the operator that gives it."""
        name = str(target.overloadpacket.__name__)
        count = self.used[name]
        self.used[name] += 1
        if any(isinstance(size, SymInt) for size in value.shape):  # how much memory a free batch takes
            self.used["add"] += value.dim() + 1
        return f"{name}_{count}" if count else name

"""Network + ranges + integer weights -> the module that behaves as the exported file will."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn

from zeroq.graph.fold import remove_unused
from zeroq.graph.network import Layer, Network
from zeroq.graph.places import on_device
from zeroq.graph.replay import replay
from zeroq.graph.text import graph_from_data, graph_to_data
from zeroq.numbers.operators import DEQUANTIZE, QUANTIZE_DEQUANTIZE, WEIGHT_ONLY
from zeroq.numbers.values import ActivationRange, IntegerWeight, Ranges
from zeroq.simulate.arithmetic import with_integer_arithmetic
from zeroq.simulate.kernels import is_limit, is_passing
from zeroq.simulate.placement import Placement, again

UNCLIPPED = 255  # the highest integer of the stored type, uint8
QUANTIZED = "_quantized"  # behind a value's name: the name of the node that quantizes it
MOST_BIAS = 2**30  # int32 accumulators hold the bias and the products beside it


class QuantizedNetwork(nn.Module):
    """The quantized network; all that it knows is in its state_dict.

    Integer weights and biases, scales and zero points are buffers; quantizers maps each activation quantizer's node to
    its name in Ranges. Two graphs say the same: `graph` is exported, `arithmetic` is run, and rounds as the file does.
    """

    def __init__(self, graph: fx.Graph, tensors: Mapping[str, Tensor], quantizers: Mapping[str, str]) -> None:
        super().__init__()
        self.graph_module = fx.GraphModule(dict(tensors), graph)
        self.arithmetic = with_integer_arithmetic(graph)
        self.quantizers = dict(quantizers)
        self.eval()

    def __reduce__(self) -> tuple[Any, ...]:
        """As plain data, for pickle and torch.save: PyTorch pickles no operators of others."""
        return from_data, (graph_to_data(self.graph), self.tensors(), self.quantizers)

    @property
    def graph(self) -> fx.Graph:
        """The graph of ATen operators and those of zeroq."""
        return self.graph_module.graph

    def tensors(self) -> dict[str, Tensor]:
        """All tensors by the names that the graph uses."""
        return dict(self.graph_module.state_dict())

    def placed(self, device: torch.device) -> QuantizedNetwork:
        """The same network on a device, the parameters of its quantizers on the CPU; itself where it is."""
        own = self.tensors()
        moved = {name: tensor.to(device if tensor.dim() else "cpu") for name, tensor in own.items()}
        if all(moved[name] is tensor for name, tensor in own.items()):
            return self
        return QuantizedNetwork(on_device(self.graph, device), moved, self.quantizers)

    def forward(self, *inputs: Tensor) -> Any:
        """The network's output, every value rounded as the file rounds it."""
        names = [node.name for node in self.graph.nodes if node.op == "placeholder"]
        return replay(self.arithmetic, self.tensors(), dict(zip(names, inputs, strict=True)))["output"]


def from_data(data: list[list[Any]], tensors: Mapping[str, Tensor], quantizers: Mapping[str, str]) -> QuantizedNetwork:
    """The network that was pickled."""
    return QuantizedNetwork(graph_from_data(data), tensors, quantizers)


def quantize_activations(
    network: Network, placement: Placement, ranges: Ranges, input_bits: Mapping[str, int]
) -> tuple[fx.Graph, dict[str, Tensor], dict[str, str]]:
    """The folded network with its activation quantizers, weights still in floating point.

    input_bits: of the input of each layer that runs in integers. Gives graph, tensors, and quantizer nodes by name.
    """
    graph, tensors = copy.deepcopy(network.graph), dict(network.tensors)
    names: dict[str, str] = {}
    of_value = placement.of_value
    narrow = {
        site: input_bits[layer.name] for layer in network.layers if layer.name in input_bits for site in layer.sites
    }
    for node in list(graph.nodes):
        if node.name not in of_value:
            continue
        quantizer = of_value[node.name]
        users = list(node.users)
        with graph.inserting_after(node):
            moved = is_passing(node) and not is_limit(node) and is_quantizer(node.args[0])
            quantized = insert(graph, tensors, node, quantizer.name, ranges[quantizer.name], moved=moved)
        names[quantized.name] = quantizer.name
        for user in users:
            user.replace_input_with(node, quantized)
        requantized: dict[int, fx.Node] = {}
        for user in users:
            bits = narrow.get(user.name, ranges[quantizer.name].bits)
            if bits >= ranges[quantizer.name].bits:
                continue
            if bits not in requantized:
                name = again(quantizer.name, bits)
                with graph.inserting_after(quantized):
                    requantized[bits] = insert(graph, tensors, quantized, name, ranges[name], moved=False)
                names[requantized[bits].name] = name
            user.replace_input_with(quantized, requantized[bits])
    for node in list(graph.nodes):
        if node.name in placement.absorbed:
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
    return graph, tensors, names


def is_quantizer(node: fx.Node) -> bool:
    """Whether a node quantizes an activation."""
    return node.target == QUANTIZE_DEQUANTIZE


def value_of(quantizer: str) -> str:
    """The value that a node of `quantize_activations` quantizes, as the folded network calls it."""
    return quantizer.removesuffix(QUANTIZED)


def insert(
    graph: fx.Graph, tensors: dict[str, Tensor], source: fx.Node, name: str, range_: ActivationRange, *, moved: bool
) -> fx.Node:
    """A quantizer behind a node, its parameters stored once for all that share them.

    They are single numbers and stay on the CPU: kernels of any device take them as arguments, and whoever asks for one
    need not wait for the device.
    moved: the value was quantized alike before it was moved, so that nothing needs clipping below 8 bits.
    """
    own = name.replace("/", "_at_")
    key = f"activations.{own}{'_' if hasattr(nn.Module, own) else ''}"  # apart from the names of the network's modules
    tensors[f"{key}.scale"] = torch.tensor(range_.scale, dtype=torch.float32)
    tensors[f"{key}.zero_point"] = torch.tensor(range_.zero_point, dtype=torch.uint8)
    scale, zero_point = graph.get_attr(f"{key}.scale"), graph.get_attr(f"{key}.zero_point")
    source.append(scale)
    scale.append(zero_point)
    quantized = graph.create_node(
        "call_function",
        QUANTIZE_DEQUANTIZE,
        (source, scale, zero_point, UNCLIPPED if moved else range_.grid.high),
        name=f"{source.name}{QUANTIZED if '/' not in name else '_narrow'}",
    )
    zero_point.append(quantized)
    return quantized


def quantize_network(
    network: Network,
    placement: Placement,
    ranges: Ranges,
    weights: Mapping[str, IntegerWeight],
    input_bits: Mapping[str, int],
    weight_only: Collection[str] = (),
) -> QuantizedNetwork:
    """The whole quantized network.

    weights: by layer, perhaps with biases; layers without stay in floating point.
    weight_only: layers that compute in floating point, with weights that are stored as integers.
    """
    if weight_only:
        input_bits = {name: bits for name, bits in input_bits.items() if name not in weight_only}
    graph, tensors, names = quantize_activations(network, placement, ranges, input_bits)
    nodes = {node.name: node for node in graph.nodes}
    for layer in network.layers:
        if layer.name in weights:
            store = store_layer if layer.name in weight_only else quantize_layer
            store(graph, tensors, layer, [nodes[site] for site in layer.sites], weights[layer.name])
    remove_unused(graph, tensors)
    graph.lint()
    return QuantizedNetwork(graph, tensors, names)


def quantize_layer(
    graph: fx.Graph,
    tensors: dict[str, Tensor],
    layer: Layer,
    sites: list[fx.Node],
    weight: IntegerWeight,
) -> None:
    """Put a layer's integers in place of its weight, and per site its bias in steps of input scale x weight scale."""
    key = layer.weight
    tensors[f"{key}_integers"], tensors[f"{key}_scale"] = weight.integers, weight.scale
    for index, (site, own) in enumerate(zip(sites, layer.biases, strict=True)):
        bias = weight.bias if weight.bias is not None else (tensors[own] if own else None)
        values = constant(graph, site, f"{key}_integers", f"{key}_scale")
        arguments = [site.args[0], values, *site.args[2:]]
        if bias is not None:
            quantizer: Any = site.args[0]
            input_scale = tensors[str(quantizer.args[1].target)]
            scale = input_scale * weight.scale
            name = f"{layer.name}.bias{index if len(sites) > 1 else ''}"
            tensors[f"{name}_integers"] = torch.round(bias.double() / scale.double()).clamp(-MOST_BIAS, MOST_BIAS).int()
            tensors[f"{name}_scale"] = scale
            arguments = [
                site.args[0],
                values,
                constant(graph, site, f"{name}_integers", f"{name}_scale"),
                *site.args[3:],
            ]
        site.args = tuple(arguments)


def store_layer(
    graph: fx.Graph,
    tensors: dict[str, Tensor],
    layer: Layer,
    sites: list[fx.Node],
    weight: IntegerWeight,
) -> None:
    """Let a layer compute in floating point with what its integers stand for; biases need no integers there."""
    key = layer.weight
    tensors[f"{key}_integers"], tensors[f"{key}_scale"] = weight.integers, weight.scale
    for site in sites:
        values = constant(graph, site, f"{key}_integers", f"{key}_scale", WEIGHT_ONLY)
        site.args = (site.args[0], values, *site.args[2:])
    if weight.bias is not None:
        (site,) = sites  # layers of several keep their own
        tensors[f"{layer.name}.bias_values"] = weight.bias
        with graph.inserting_before(site):
            site.args = (*site.args[:2], graph.get_attr(f"{layer.name}.bias_values"), *site.args[3:])


def constant(graph: fx.Graph, before: fx.Node, integers: str, scale: str, operator: Any = DEQUANTIZE) -> fx.Node:
    """A dequantize node in front of another."""
    with graph.inserting_before(before):
        arguments = (graph.get_attr(integers), graph.get_attr(scale))
        return graph.call_function(operator, arguments)


def least_scales(bias: Tensor | None, input_scale: float, weight: Tensor) -> Tensor:
    """Smallest weight scale per output channel for which the bias fits its int32, float32 [channels].

    A dead channel (weights of 1e-9, a bias of 5) would overflow otherwise: onnxruntime's own quantizer has done so.
    """
    least = torch.full((len(weight),), 1e-12, device=weight.device)
    return least if bias is None else torch.maximum(least, bias.abs() / (input_scale * MOST_BIAS))

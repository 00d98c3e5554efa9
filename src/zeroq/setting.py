"""What the options say of each layer: which stay in floating point, which widths weights may have, bits of inputs."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase

from torch import fx

from zeroq.errors import ModelError, OptionError
from zeroq.graph.network import Layer, Network
from zeroq.graph.replay import is_batch_size
from zeroq.numbers.values import BitSetting, Latencies
from zeroq.options import Options
from zeroq.simulate.kernels import is_passing
from zeroq.simulate.placement import WIDE_BITS

Option = tuple[int, int]  # bits of a layer's weights and of its input


@dataclass(frozen=True)
class LayerPlan:
    """Per quantized layer: the widths its weights may have, ascending, and the bits of its input.

    Where the bits of an input are a choice, they are the most that it may have, until one is made (`at`).
    """

    layers: tuple[Layer, ...]  # in order of execution
    widths: dict[str, tuple[int, ...]]
    input_bits: dict[str, int]
    floating: tuple[str, ...]  # layers kept in floating point as asked
    input_widths: Mapping[str, tuple[int, ...]] = field(default_factory=dict)  # of inputs that have a choice, ascending
    latency: Latencies | None = None  # where it is bounded, once it is measured

    @property
    def parameters(self) -> dict[str, int]:
        """Number of weights of each quantized layer."""
        return {layer.name: layer.parameters for layer in self.layers}

    def at(self, setting: BitSetting) -> LayerPlan:
        """With the inputs' bits of a setting."""
        if not setting.inputs:
            return self
        return replace(self, input_bits={**self.input_bits, **setting.inputs}, input_widths={})

    @property
    def inputs(self) -> dict[str, tuple[int, ...]]:
        """The widths that each layer's input may have, ascending."""
        return {name: self.input_widths.get(name, (bits,)) for name, bits in self.input_bits.items()}

    @property
    def options(self) -> list[tuple[Option, ...]]:
        """What each layer may choose, ascending: [layers][options]."""
        inputs = self.inputs
        return [tuple(itertools.product(self.widths[layer.name], inputs[layer.name])) for layer in self.layers]

    @property
    def sizes(self) -> list[list[int]]:
        """Bits of all weights of a layer, [layers][options]."""
        rows = zip(self.layers, self.options, strict=True)
        return [[weight * layer.parameters for weight, _ in options] for layer, options in rows]

    @property
    def operations(self) -> list[list[int]]:
        """Bit operations of a layer for one image, [layers][options].

        Multiply-accumulates times the bits of both factors (HAWQ-V3, arXiv:2011.10680, section 3.4): what quantized
        layers do; products of two computed values, sums and what stays in floating point are not among them.
        """
        rows = zip(self.layers, self.options, strict=True)
        return [[weight * own * layer.multiply_accumulates for weight, own in options] for layer, options in rows]

    @property
    def latencies(self) -> list[list[int]]:
        """How long a layer takes, [layers][options]: as long at all widths of its weights."""
        assert self.latency is not None, "measured where it is bounded"
        rows = zip(self.layers, self.options, strict=True)
        return [[self.latency.of(layer.name, own) for _, own in options] for layer, options in rows]

    def operations_of(self, weight_bits: Mapping[str, int]) -> int:
        """Bit operations of one image with these bits of each layer's weights."""
        return sum(
            weight_bits[layer.name] * self.input_bits[layer.name] * layer.multiply_accumulates for layer in self.layers
        )


def plan_layers(network: Network, options: Options) -> LayerPlan:
    """Resolve patterns, edges and candidate widths on a folded network.

    Raises OptionError for a pattern that matches no layer, or that leaves none, ModelError where there is none.
    """
    names = [layer.name for layer in network.layers]
    floating = {name for pattern in options.keep_float for name in matching(pattern, names, "--keep-float")}
    layers = tuple(layer for layer in network.layers if layer.name not in floating)
    if network.layers and not layers:
        raise OptionError("--keep-float leaves no layer to quantize: keep fewer of them in floating point.")
    if not layers:
        raise ModelError("The network has no layer to quantize: it needs at least one convolution or linear layer.")
    fixed = {name: bits for pattern, bits in options.layer_bits for name in matching(pattern, names, "--layer-bits")}
    edges = {names[0], *last_layers(network)}
    widths, input_bits, input_widths = {}, {}, {}
    for layer in layers:
        edge, edge_input = (options.edges, options.edge_inputs) if layer.name in edges else (None, None)
        widths[layer.name] = (
            (fixed.get(layer.name) or edge,) if layer.name in fixed or edge else options.candidate_widths
        )
        reads_input = any(is_input(network, site) for site in layer.sites)
        own = (WIDE_BITS,) if reads_input else (edge_input,) if edge_input else options.activation_widths
        input_bits[layer.name] = own[-1]
        if len(own) > 1:
            input_widths[layer.name] = own
    kept = tuple(name for name in names if name in floating)
    return LayerPlan(layers, widths, input_bits, kept, input_widths)  # type: ignore[arg-type]


def weight_widths(plan: LayerPlan, setting: BitSetting) -> dict[str, int]:
    """Width of each tensor of integer weights."""
    return {f"{layer.weight}_integers": setting[layer.name] for layer in plan.layers}


def matching(pattern: str, names: Iterable[str], option: str) -> list[str]:
    """Layers whose name matches a shell pattern."""
    found = [name for name in names if fnmatchcase(name, pattern)]
    if not found:
        raise OptionError(
            f"{option} {pattern} matches no layer: names are like {', '.join(list(names)[:3])}, "
            "and * stands for any text."
        )
    return found


def last_layers(network: Network) -> set[str]:
    """Those that give the outputs, as each head of a detector does: no layer stands between them and one of these."""
    layers = {site: layer.name for layer in network.layers for site in layer.sites}
    found: set[str] = set()
    seen: set[fx.Node] = set()
    waiting = [node for node in network.graph.nodes if node.op == "output"]
    while waiting:
        sources = {source for source in waiting.pop().all_input_nodes if not is_batch_size(source)} - seen
        seen |= sources
        found |= {layers[source.name] for source in sources if source.name in layers}
        waiting += [source for source in sources if source.name not in layers]
    return found


def is_input(network: Network, site: str) -> bool:
    """Whether a layer's site reads the network's input, perhaps moved: that stays at 8 bits."""
    node = network.node(site).args[0]
    while is_passing(node):  # type: ignore[arg-type]
        node = node.args[0]  # type: ignore[union-attr]
    return node.op == "placeholder"  # type: ignore[union-attr]

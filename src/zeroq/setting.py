"""What the options say of each layer: which stay in floating point, which widths weights may have, bits of inputs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from zeroq.errors import ModelError, OptionError
from zeroq.graph.network import Layer, Network
from zeroq.options import Options
from zeroq.simulate.placement import WIDE_BITS, is_passing


@dataclass(frozen=True)
class LayerPlan:
    """Per quantized layer: the widths its weights may have, ascending, and the bits of its input."""

    layers: tuple[Layer, ...]  # in order of execution
    widths: dict[str, tuple[int, ...]]
    input_bits: dict[str, int]
    floating: tuple[str, ...]  # layers kept in floating point as asked

    @property
    def parameters(self) -> dict[str, int]:
        """Number of weights of each quantized layer."""
        return {layer.name: layer.parameters for layer in self.layers}


def plan_layers(network: Network, options: Options) -> LayerPlan:
    """Resolve patterns, edges and candidate widths on a folded network.

    Raises OptionError for a pattern that matches no layer, ModelError where no layer is left to quantize.
    """
    names = [layer.name for layer in network.layers]
    floating = {name for pattern in options.keep_float for name in matching(pattern, names, "--keep-float")}
    layers = tuple(layer for layer in network.layers if layer.name not in floating)
    if not layers:
        raise ModelError("The network has no layer to quantize: it needs at least one convolution or linear layer.")
    fixed = {name: bits for pattern, bits in options.layer_bits for name in matching(pattern, names, "--layer-bits")}
    edges = {names[0], names[-1]} if options.edges is not None else set()
    widths, input_bits = {}, {}
    for layer in layers:
        edge = options.edges if layer.name in edges else None
        widths[layer.name] = (
            (fixed.get(layer.name) or edge,) if layer.name in fixed or edge else options.candidate_widths
        )
        reads_input = any(is_input(network, site) for site in layer.sites)
        input_bits[layer.name] = WIDE_BITS if reads_input else edge or options.activation_bits
    return LayerPlan(layers, widths, input_bits, tuple(name for name in names if name in floating))  # type: ignore[arg-type]


def matching(pattern: str, names: Iterable[str], option: str) -> list[str]:
    """Layers whose name matches a shell pattern."""
    found = [name for name in names if fnmatchcase(name, pattern)]
    if not found:
        raise OptionError(
            f"{option} {pattern} matches no layer: names are like {', '.join(list(names)[:3])}, "
            "and * stands for any text."
        )
    return found


def is_input(network: Network, site: str) -> bool:
    """Whether a layer's site reads the network's input, perhaps moved: that stays at 8 bits."""
    node = network.node(site).args[0]
    while is_passing(node):  # type: ignore[arg-type]
        node = node.args[0]  # type: ignore[union-attr]
    return node.op == "placeholder"  # type: ignore[union-attr]

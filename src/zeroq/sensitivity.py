"""How much the network's output suffers when one layer alone has few bits."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from zeroq.divergence import Comparison, Meaning
from zeroq.errors import NumericalError
from zeroq.graph import Inputs, Layer, Network, chunks, replay
from zeroq.numbers.values import SensitivityTable

CHUNK = 8  # images at a time; a layer's candidates make as many batches of it
SCORES = Meaning("classification")
MEASURED = 4  # bits: what more of them do is so small that it grows with the square of a layer's errors
COARSE = 2  # bits: what they do, and fewer, is far above what the rounding of bfloat16 adds (docs/scaling.md)
LONG = 3e12  # multiply-accumulates of all passes, about a minute of a core: below that nothing is done to shorten it

Change = Callable[[fx.Node, Tensor], Tensor]  # what a site reads, changed
# A weight, and the bias that goes with it (None: the layer's own), and perhaps what becomes of the layer's input.
Parameters = tuple[Tensor, Tensor | None] | tuple[Tensor, Tensor | None, Change]
Quantized = Callable[[Layer, int], Parameters]  # a layer's at a width, in floating point


def measure_sensitivity(
    network: Network,
    images: Inputs,
    widths: Sequence[int],
    quantized: Quantized,
    *,
    derived: Sequence[int] = (),
    coarse: Sequence[int] = (),
    layers: Collection[str] | None = None,
    measure: str = "kl",
    meaning: Meaning = SCORES,
    reference: Any = None,
    chunk: int = CHUNK,
    on_step: Callable[[int, int], None] | None = None,
) -> SensitivityTable:
    """Omega_i(k) = divergence of M_i,k from M over the images, M_i,k the network with only layer i at k bits.

    Of class scores that is the paper's mean of KL(softmax M(x) || softmax M_i,k(x)); `meaning` names others.
    Everything before a layer is computed once for all its widths, which then run on as one batch.

    images: [N, C, H, W], of several inputs a tuple.
    quantized: asked once for each chunk of images, so it should look up rather than compute; what it gives decides
    what is measured (the paper: rounded to nearest), and `measure` is the name of that.
    derived: widths that no network is run at. Theirs is the divergence at the widest of the others, times the share of
    its squared error that the output of the layer itself has at theirs: to second order in small errors that is so.
    coarse: widths, but for the widest that is run, whose networks run in bfloat16; the unchanged one does not.
    layers: names of those to measure, by default all.  reference: the network's outputs for all images, where they
    are known.  on_step: (done, total).
    Raises NumericalError, with layer and width, where an output is NaN or infinite; ValueError for a layer that is none
    of the network's, and where no width is left to measure.
    """
    run = widths_to_run(network, widths, derived, coarse, layers, chunk)
    chosen = [layer for layer in network.layers if layers is None or layer.name in layers]
    compared = {layer.name: {width: Comparison(meaning, agreement=False) for width in run} for layer in chosen}
    squares = {layer.name: torch.zeros(1 + len(derived), dtype=torch.float64) for layer in chosen}
    parts = chunks(images, chunk)
    following = follows_batch(network)
    exact, rough = ([width for width in run if (width in coarse) == within] for within in (False, True))
    halved = in_bfloat16(network) if rough else network
    with torch.inference_mode():
        for index, part in enumerate(parts):
            own = network.run(*part) if reference is None else rows(reference, index * chunk, len(part[0]))
            check_finite(own, "The network itself gives")
            prefix = Prefix(network, network.feed(part), following)
            prefixes = [(prefix, exact)]
            if rough:
                short = Prefix(halved, halved.feed(map(shortened, part)), following, torch.bfloat16)
                prefixes.append((short, rough))
            for done, layer in enumerate(chosen):
                given = {width: quantized(layer, width) for width in run}
                compare(layer, given, prefixes, own, compared[layer.name])
                if derived:
                    others = [given[max(exact)], *(quantized(layer, width) for width in derived)]
                    squares[layer.name] += prefix.squared_errors(layer, others).cpu()
                if on_step is not None:
                    on_step(index * len(chosen) + done + 1, len(parts) * len(chosen))
    values = tuple(
        divergences_at(widths, {width: each.divergence for width, each in of_widths.items()}, derived, squares[name])
        for name, of_widths in compared.items()
    )
    return SensitivityTable(measure, tuple(compared), tuple(widths), values, None, tuple(derived), tuple(rough))


def divergences_at(
    widths: Sequence[int], found: Mapping[int, float], derived: Sequence[int], squares: Tensor
) -> tuple[float, ...]:
    """Of a layer at all widths, from those found by running the network.

    squares: of the layer's own errors, at the widest of these and at the derived ones.
    """
    of_widest, *others = squares.tolist()
    shares = [square / of_widest if of_widest else 0.0 for square in others]
    at = {**found, **{width: found[max(found)] * each for width, each in zip(derived, shares, strict=True)}}
    return tuple(at[width] for width in widths)


def compare(
    layer: Layer,
    given: Mapping[int, Parameters],
    prefixes: Sequence[tuple[Prefix, Sequence[int]]],
    own: Any,
    into: Mapping[int, Comparison],
) -> None:
    """Add what the networks with a layer's candidates alone give for one chunk of images, `own` without them."""
    for prefix, widths in prefixes:
        for width, output in zip(widths, prefix.outputs(layer, [given[each] for each in widths]), strict=True):
            check_finite(output, f"With layer {layer.name!r} alone at {width} bits the network gives")
            into[width].add(own, output)


def widths_to_run(
    network: Network,
    widths: Sequence[int],
    derived: Sequence[int],
    coarse: Sequence[int],
    layers: Collection[str] | None,
    chunk: int,
) -> list[int]:
    """Those at which the network is run; ValueError where what is asked of `measure_sensitivity` cannot be measured."""
    if unknown := sorted(set(layers or ()) - {layer.name for layer in network.layers}):
        raise ValueError(f"{unknown[0]!r} is none of the network's layers, which `network.layers` has by name")
    run = [width for width in widths if width not in derived]
    if not run or chunk < 1:
        raise ValueError(f"widths {list(widths)} of which {list(derived)} are derived, {chunk} images at a time")
    if max(run) in coarse:
        raise ValueError(f"widths {run} are run, so the widest cannot be among the coarse ones {list(coarse)}")
    return run


def measuring_costs(layers: Sequence[Layer]) -> dict[str, int]:
    """By name, what it takes to measure each of a network's layers, in multiplications: those from it to the end."""
    behind = accumulate(layer.multiply_accumulates for layer in reversed(layers))
    return {layer.name: cost for layer, cost in zip(reversed(layers), behind, strict=True)}


def derivable(widths: Sequence[int]) -> tuple[int, ...]:
    """Those of more than 4 bits, but for the narrowest of all."""
    return tuple(width for width in widths if width > max(MEASURED, min(widths)))


def shortenable(widths: Sequence[int], multiplied: int) -> tuple[int, ...]:
    """Those so narrow that bfloat16 changes little of what is measured, but for the widest that the network is run at;
    none where it is soon done.

    multiplied: multiply-accumulates of measuring one width (`measuring_costs` of all layers, for all images).
    """
    run = set(widths) - set(derivable(widths))
    return tuple(sorted(run & set(range(min(COARSE + 1, max(run)))))) if multiplied * len(run) >= LONG else ()


def check_finite(output: Any, what: str) -> None:
    """Raise NumericalError, beginning with `what`, where an output holds NaN or infinity."""
    if not all(bool(torch.isfinite(tensor).all()) for tensor in pytree.tree_leaves(output)):
        raise NumericalError(f"{what} NaN or infinity: its values overflow, so no sensitivity can be measured.")


def follows_batch(network: Network) -> dict[str, bool | None]:
    """Whether each value grows along its first axis with the number of images; None for one that does so otherwise.

    False is a constant. Found by running two and three images.
    """
    seen: list[dict[str, list[Any]]] = []
    for count in (2, 3):
        shapes: dict[str, list[Any]] = {}

        def note(node: fx.Node, value: Any, into: dict[str, list[Any]] = shapes) -> None:
            into[node.name] = [
                tuple(leaf.shape) if isinstance(leaf, Tensor) else leaf for leaf in pytree.tree_leaves(value)
            ]

        inputs = {
            name: torch.cat([value, value])[:count] for name, value in zip(network.inputs, network.example, strict=True)
        }
        with torch.inference_mode():
            replay(network.graph, network.tensors, inputs, visit=note)
        seen.append(shapes)
    return {name: grows(seen[0][name], seen[1][name]) for name in seen[0]}


def grows(two: list[Any], three: list[Any]) -> bool | None:
    """Compare a value's shapes for two images and for three; see `follows_batch`."""
    if two == three:
        return False
    together = all(
        isinstance(one, tuple)
        and isinstance(other, tuple)
        and one
        and 3 * one[0] == 2 * other[0]
        and one[1:] == other[1:]
        for one, other in zip(two, three, strict=True)
    )
    return True if together else None


@dataclass
class Prefix:
    """The unchanged network's values in front of one layer after another, for one chunk of images."""

    network: Network
    live: dict[str, Any]  # values still needed
    follow: Mapping[str, bool | None]
    dtype: torch.dtype = torch.float32  # of the network's tensors
    last: str | None = None  # the node up to which they are computed
    nodes: list[fx.Node] = field(init=False)
    position: dict[str, int] = field(init=False)
    images: int = field(init=False)

    def __post_init__(self) -> None:
        self.nodes = list(self.network.graph.nodes)
        self.position = {node.name: index for index, node in enumerate(self.nodes)}
        self.images = len(next(iter(self.live.values())))

    def outputs(self, layer: Layer, candidates: list[Parameters]) -> Iterator[Any]:
        """The network's output with each of the weights at that layer alone."""
        before = self.before(layer.sites[0])
        if before != self.last:
            self.live = self.run(self.live, self.last, before, self.images)
            self.last = before
        behind = {name for name in self.live if self.needed_behind(name, layer.sites[0])}
        together = all(self.follow[name] is not None for name in behind)
        for group in [candidates] if together else [[candidate] for candidate in candidates]:
            inputs = self.live[self.source(layer.sites[0])]
            live = {name: self.stack(name, len(group)) for name in behind}
            output = self.onward(layer, group, live, [inputs] * len(group))
            yield from split(pytree.tree_map(lengthened, output), len(group))

    def squared_errors(self, layer: Layer, candidates: list[Parameters]) -> Tensor:
        """Of what the layer's first site gives with each of the weights, which the prefix ends in front of, float64."""
        node, inputs = self.network.node(layer.sites[0]), self.live[self.source(layer.sites[0])]
        own = self.apply(node, inputs, (self.network.tensors[layer.weight], None))
        errors = [self.apply(node, inputs, candidate) - own for candidate in candidates]
        return torch.stack([error.square().sum(dtype=torch.float64) for error in errors])

    def onward(self, layer: Layer, weights: list[Parameters], live: dict[str, Any], inputs: list[Tensor]) -> Any:
        """The output from the layer's first site on; its inputs and each later site's, one for each weight."""
        count = self.images * len(weights)
        for index, site in enumerate(layer.sites):
            node = self.network.node(site)
            if index:
                live = self.run(live, layer.sites[index - 1], self.before(site), count)
                inputs = list(live[self.source(site)].chunk(len(weights)))
            live[site] = torch.cat([self.apply(node, *pair) for pair in zip(inputs, weights, strict=True)])
        return self.run(live, layer.sites[-1], None, count)["output"]

    def apply(self, node: fx.Node, inputs: Tensor, parameters: Parameters) -> Tensor:
        """One site's output with a weight, and perhaps a bias, in place of its own."""
        weight, bias = parameters[:2]
        if len(parameters) == 3:
            inputs = parameters[2](node, inputs.float())
        own, *rest = (*node.args[2:], None)[: max(len(node.args) - 2, 1)]
        if bias is None and own is not None:
            bias = self.network.tensors[str(own.target)]  # type: ignore[union-attr]
        given = [each if each is None else each.to(self.dtype) for each in (inputs, weight, bias)]
        return node.target(*given, *rest)  # type: ignore[operator]

    def run(self, live: dict[str, Any], after: str | None, until: str | None, images: int) -> dict[str, Any]:
        """A stretch of the network with its own weights."""
        return replay(self.network.graph, self.network.tensors, live, after=after, until=until, batch=images)

    def source(self, site: str) -> str:
        """The node whose value a site reads."""
        return str(self.network.node(site).all_input_nodes[0])

    def before(self, name: str) -> str:
        """The node in front of a node."""
        return self.nodes[self.position[name] - 1].name

    def needed_behind(self, name: str, site: str) -> bool:
        """Whether a node behind a site reads a value."""
        return any(self.position[user.name] > self.position[site] for user in self.nodes[self.position[name]].users)

    def stack(self, name: str, count: int) -> Any:
        """A live value once for each candidate, one behind the other; constants stay single."""
        if count == 1 or not self.follow[name]:
            return self.live[name]
        return pytree.tree_map(lambda value: torch.cat([value] * count), self.live[name])


def in_bfloat16(network: Network) -> Network:
    """The same graph with all floating-point tensors in bfloat16."""
    return network.with_tensors({name: shortened(value) for name, value in network.tensors.items()})


def shortened(value: Tensor) -> Tensor:
    """In bfloat16, if it is floating point."""
    return value.bfloat16() if value.is_floating_point() else value


def lengthened(value: Any) -> Any:
    """In float32, if it is a tensor in bfloat16."""
    return value.float() if isinstance(value, Tensor) and value.dtype == torch.bfloat16 else value


def rows(outputs: Any, first: int, count: int) -> Any:
    """Those of some images."""
    return pytree.tree_map(lambda each: each[first : first + count], outputs)


def split(output: Any, count: int) -> list[Any]:
    """The outputs that were stacked along the first axis."""
    leaves, form = pytree.tree_flatten(output)
    return [
        pytree.tree_unflatten(list(part), form) for part in zip(*(leaf.chunk(count) for leaf in leaves), strict=True)
    ]

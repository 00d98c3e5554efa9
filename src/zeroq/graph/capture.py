"""nn.Module -> Network, by torch.export."""

from __future__ import annotations

import dataclasses
import inspect
import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.modules import transformer
from torch.utils import _pytree as pytree

from zeroq.errors import CaptureError
from zeroq.graph.canonical import canonicalise
from zeroq.graph.free_batch import with_free_batch
from zeroq.graph.frozen import thaw
from zeroq.graph.names import check_names
from zeroq.graph.nested import put_in_place, refusal
from zeroq.graph.network import Network, describe
from zeroq.graph.refusals import BOUND_BATCH, CHANGING, UNKNOWN_TYPE, difference_place, explain
from zeroq.graph.replay import replay
from zeroq.graph.text import graph_to_data

TOLERANCE = 1e-4  # relative to the largest output: what reordering of sums may change


def capture(module: nn.Module, example: Tensor | tuple[Tensor, ...]) -> Network:
    """Take a module's graph with a free batch size; BatchNorms stay what they are, frozen ones become such.

    example: one input [N, C, H, W] or a tuple of inputs; the first axis of each is the batch.
    Raises CaptureError with the line of the user's code where the module cannot be traced, or where the captured
    graph does not give what the module gives.
    """
    inputs = tuple(pair(value) for value in (example if isinstance(example, tuple) else (example,)))
    check_names(module)
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        program = export(thaw(module), inputs)
        put_in_place(program)
        tensors = collect_tensors(program, module)
        graph, tensors = canonicalise(program.graph, tensors)
        graph_to_data(graph)  # refuses what could not be stored, before anything is computed of it
        network = describe(graph, tensors, inputs)
        check_same(network, module, inputs)
        check_each_alone(network)
    finally:
        for part, training in modes.items():
            part.training = training
    return network


def pair(value: Tensor) -> Tensor:
    """Two different images, as torch.export takes a batch of one for a constant."""
    first = value.detach()[:1]
    other = first.roll(1, -1)
    return torch.cat([first, other * 0.5 if first.is_floating_point() else torch.maximum(first, other)])


def export(module: nn.Module, inputs: tuple[Tensor, ...]) -> fx.GraphModule:
    """The module's graph of ATen operators, batch size free."""
    try:
        with torch.no_grad(), redirect_stderr(io.StringIO()), masks_as_given():  # a refusal prints the whole graph
            program = torch.export.export(module, inputs, dynamic_shapes=free_batches(module, len(inputs)))
            return program.module(check_guards=False)
    except Exception as error:
        if UNKNOWN_TYPE in str(error) and make_known(module, inputs):
            return export(module, inputs)
        if BOUND_BATCH in str(error) and (freed := without_numbers_of_images(module, inputs)) is not None:
            return export(freed, inputs)
        raise CaptureError(explain(error, module, inputs)) from error


def without_numbers_of_images(module: nn.Module, inputs: tuple[Tensor, ...]) -> nn.Module | None:
    """The module with the number of images free, if it can be so."""
    try:
        with torch.no_grad(), redirect_stderr(io.StringIO()), masks_as_given():
            return None if isinstance(module, fx.GraphModule) else with_free_batch(module, inputs)
    except Exception:  # which torch.export has said of the free number as well, or in better words
        return None


@contextmanager
def masks_as_given() -> Iterator[None]:
    """nn.TransformerEncoder compares its mask with the causal one, by value: as it is given it says the same."""
    detect = transformer._detect_is_causal_mask
    transformer._detect_is_causal_mask = lambda mask, is_causal=None, size=None: is_causal is True
    try:
        yield
    finally:
        transformer._detect_is_causal_mask = detect


def make_known(module: nn.Module, inputs: tuple[Tensor, ...]) -> bool:
    """Tell torch of dataclasses that the module returns; whether there were any that it did not know."""
    with torch.no_grad():
        found = set(dataclasses_in(module(*(value.clone() for value in inputs))))
    for each in found:
        torch.export.register_dataclass(each)
    return bool(found)


def dataclasses_in(value: Any) -> Iterator[type]:
    """Types of a nested output that pytree takes for leaves."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type) and pytree.tree_is_leaf(value):
        yield type(value)
        value = [getattr(value, field.name) for field in dataclasses.fields(value)]
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    for part in parts:
        yield from dataclasses_in(part)


def free_batches(module: nn.Module, inputs: int) -> tuple[Any, ...]:
    """The first axis of each input, in the form of the arguments of `forward`: those of *args are one tuple."""
    free = tuple({0: torch.export.Dim("batch")} for _ in range(inputs))
    kinds = [parameter.kind for parameter in inspect.signature(module.forward).parameters.values()]
    named = kinds.index(inspect.Parameter.VAR_POSITIONAL) if inspect.Parameter.VAR_POSITIONAL in kinds else inputs
    return free if named >= inputs else (*free[:named], free[named:])


def collect_tensors(program: fx.GraphModule, module: nn.Module) -> dict[str, Tensor]:
    """All tensors that the graph names, detached; a tensor known under several names keeps the first."""
    tensors: dict[str, Tensor] = {}
    first_name: dict[int, str] = {}
    for node in program.graph.nodes:
        if node.op != "get_attr":
            continue
        value = program
        for part in node.target.split("."):
            value = getattr(value, part)
        if not isinstance(value, Tensor):
            raise CaptureError(refusal(node))
        name = first_name.setdefault(id(value), node.target)
        node.target = name
        tensors[name] = value.detach().clone() if value.is_inference() else value.detach()
    return tensors


def check_same(network: Network, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """Refuse a graph whose output differs from the module's."""
    with torch.inference_mode():
        output = module(*(value.clone() for value in inputs))  # which it may change in place
        check_each_has_images(output, len(inputs[0]))
        expected, actual = flat(output), flat(network.run(*inputs))
    for reference, value in zip(expected, actual, strict=True):
        if reference.is_floating_point() and not torch.isfinite(reference).all():
            raise CaptureError(
                f"The network gives NaN or infinity on a plain input{first_without_numbers(network)}: check that its "
                "weights were loaded, and them and its BatchNorms' running statistics for NaN and negative variances."
            )
        if not same(reference, value):
            where = difference_place(module, (inputs, inputs))
            raise CaptureError(f"The captured graph gives other outputs than the module{where}: {CHANGING}.")


def check_each_alone(network: Network) -> None:
    """Refuse a network whose output for an image hangs on the others of its batch, which is another one in each use."""
    others = [1, 0, 0]  # another number of images, each in another place
    with torch.inference_mode():
        outputs, reordered = (
            flat(network.run(*inputs))
            for inputs in (network.example, tuple(value[others] for value in network.example))
        )
    for value, other in zip(outputs, reordered, strict=True):
        check_each_has_images(other, len(others))  # two may have been those of another axis
        if value.is_floating_point() and not same(value[others], other):
            raise CaptureError(
                "The network's output for an image depends on the other images of its batch: let its BatchNorms keep "
                "running statistics, and let it average, normalise and compare within each image alone."
            )


def same(reference: Tensor, value: Tensor) -> bool:
    """Whether a graph's output is the module's; but for the last bits, where it is of floating point."""
    if reference.shape != value.shape:
        return False
    if not reference.numel() or not (reference.is_floating_point() or reference.is_complex()):
        return torch.equal(reference, value)
    return bool((reference - value).abs().max() <= TOLERANCE * reference.abs().max().clamp(min=1e-12))


def check_each_has_images(output: Any, images: int) -> None:
    """Refuse outputs that do not have a part for each image, as means over a batch, stored anchors and plain numbers.

    None, as of a head that a network trains with alone, is no output.
    """
    leaves = [leaf for leaf in pytree.tree_leaves(output) if leaf is not None]
    for place, value in enumerate(leaves, 1):
        if not isinstance(value, Tensor):
            raise CaptureError(
                f"Output {place} of {len(leaves)} of the network is of type {type(value).__name__}: let it return "
                "tensors alone."
            )
        if not value.numel():
            raise CaptureError(
                f"Output {place} of {len(leaves)} of the network is empty ({list(value.shape)}): leave it out."
            )
        if value.dim() == 0 or len(value) != images:
            raise CaptureError(
                f"Output {place} of {len(leaves)} of the network is {list(value.shape)} for {images} images: let its "
                "first axis be that of the images"
                + (f", which seems to be axis {value.shape.index(images)}" if images in value.shape else "")
                + (", or leave it out if it is the same for all of them." if len(leaves) > 1 else ".")
            )


def first_without_numbers(network: Network) -> str:
    """Where the first value arises that is not finite, by module; "" if in none."""
    found: list[str] = []

    def visit(node: fx.Node, value: Any) -> None:
        broken = isinstance(value, Tensor) and value.is_floating_point() and not value.isfinite().all()
        if broken and not found and node.op == "call_function":
            found.append(f", first in {node.meta.get('module') or node.name}")

    with torch.inference_mode():
        replay(network.graph, network.tensors, dict(zip(network.inputs, network.example, strict=True)), visit=visit)
    return "".join(found)


def flat(output: Any) -> list[Tensor]:
    """The tensors of a nested output, in order."""
    return [leaf for leaf in pytree.tree_leaves(output) if isinstance(leaf, Tensor)]

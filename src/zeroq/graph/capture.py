"""nn.Module -> Network, by torch.export."""

from __future__ import annotations

import io
import traceback
from contextlib import redirect_stderr
from typing import Any

import torch
from torch import Tensor, fx, nn

from zeroq.errors import CaptureError
from zeroq.graph.canonical import canonicalise
from zeroq.graph.frozen import thaw
from zeroq.graph.network import Network, describe

TOLERANCE = 1e-4  # relative to the largest output: what reordering of sums may change


def capture(module: nn.Module, example: Tensor | tuple[Tensor, ...]) -> Network:
    """Take a module's graph with a free batch size; BatchNorms stay what they are, frozen ones become such.

    example: one input [N, C, H, W] or a tuple of inputs; the first axis of each is the batch.
    Raises CaptureError with the line of the user's code where the module cannot be traced, or where the captured
    graph does not give what the module gives.
    """
    inputs = tuple(pair(value) for value in (example if isinstance(example, tuple) else (example,)))
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        program = export(thaw(module), inputs)
        tensors = collect_tensors(program, module)
        graph, tensors = canonicalise(program.graph, tensors)
        network = describe(graph, tensors, inputs)
        check_same(network, module, inputs)
    finally:
        for part, training in modes.items():
            part.training = training
    return network


def pair(value: Tensor) -> Tensor:
    """Two different images, as torch.export takes a batch of one for a constant."""
    first = value.detach()[:1]
    return torch.cat([first, first.roll(1, -1) * 0.5 if first.is_floating_point() else first])


def export(module: nn.Module, inputs: tuple[Tensor, ...]) -> fx.GraphModule:
    """The module's graph of ATen operators, batch size free."""
    dynamic = tuple({0: torch.export.Dim("batch")} for _ in inputs)
    try:
        with torch.no_grad(), redirect_stderr(io.StringIO()):  # of a refusal it prints the whole graph
            program = torch.export.export(module, inputs, dynamic_shapes=dynamic)
            return program.module(check_guards=False)
    except Exception as error:
        raise CaptureError(explain(error)) from error


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
            raise CaptureError(
                f"The network holds a nested program ({node.target}), which cannot be quantized: "
                "write its control flow without torch.cond or other higher-order operators."
            )
        name = first_name.setdefault(id(value), node.target)
        node.target = name
        tensors[name] = value.detach()
    return tensors


def check_same(network: Network, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """Refuse a graph whose output differs from the module's."""
    with torch.inference_mode():
        expected, actual = flat(module(*inputs)), flat(network.run(*inputs))
    for reference, value in zip(expected, actual, strict=True):
        if reference.is_floating_point() and not torch.isfinite(reference).all():
            raise CaptureError(
                "The network gives NaN or infinity on a plain input: check that its weights were loaded."
            )
        if (reference - value).abs().max() > TOLERANCE * reference.abs().max().clamp(min=1e-12):
            raise CaptureError(
                "The captured graph gives other outputs than the module: its forward pass draws random numbers, keeps "
                "state between calls, or changes in place what a view shows; remove that for inference."
            )


def flat(output: Any) -> list[Tensor]:
    """The tensors of a nested output, in order."""
    return [leaf for leaf in torch.utils._pytree.tree_leaves(output) if isinstance(leaf, Tensor)]


def explain(error: Exception) -> str:
    """One sentence: what torch.export refused, and the line of the user's code."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if "/torch/" not in frame.filename and "/zeroq/" not in frame.filename and not frame.filename.startswith("<")
    ]
    where = f" at {frames[-1].filename}:{frames[-1].lineno} ({frames[-1].line})" if frames else user_line(str(error))
    if "specialized it to be a constant" in str(error):
        return (
            f"The network cannot be captured{where}: its forward pass fixes the number of images; take it from "
            "x.shape[0] or x.size(0), not from len(x) or a number."
        )
    reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return (
        f"The network cannot be captured{where}: {reason.rstrip('.')}; "
        "write the forward pass without control flow that depends on values of tensors."
    )


def user_line(message: str) -> str:
    """The place in the user's code that torch.export names in its message, if it does."""
    for line in reversed(message.splitlines()):
        text = line.strip()
        if text.startswith('File "') and "/torch/" not in text:
            name, _, rest = text.removeprefix('File "').partition('", line ')
            return f" at {name}:{rest.partition(',')[0]}"
    return ""

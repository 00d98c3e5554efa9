"""Why a module cannot be captured: the line of the user's code, and what to write instead."""

from __future__ import annotations

import io
import linecache
import re
import traceback
from collections.abc import Iterable
from contextlib import redirect_stderr
from typing import Any

import torch
from torch import Tensor, fx, nn

FREE_BATCH = (
    "its forward pass fixes the number of images; let each size that depends on it be a multiple of x.shape[0], not a "
    "number that you write, and let it go through images without a loop"
)
CHANGING = (
    "its forward pass draws random numbers, keeps state between calls, or changes in place what a view shows; remove "
    "that for inference"
)
BY_VALUES = (
    "its forward pass asks for a value of a tensor; write it without control flow that depends on values of tensors "
    "(torch.where chooses between two), or leave that step out of the network"
)
UNKNOWN_TYPE = "not a known type"
BOUND_BATCH = "Constraints violated (batch)"
ADVICE = (  # what torch.export says, and what it means for the one who wrote the line
    (BOUND_BATCH, FREE_BATCH),
    ("data-dependent", BY_VALUES),
    ("item()", BY_VALUES),
    (
        "fake_quantize",
        "its forward pass imitates quantization (torch.fake_quantize), as in training that heeds it; take that out",
    ),
    (".numpy()", "its forward pass leaves torch for numpy; compute that step with torch, or outside the network"),
    (
        UNKNOWN_TYPE,
        "it returns an object of a class of its own; return a tensor, or a tuple or dictionary of them",
    ),
)


def explain(error: Exception, module: nn.Module, inputs: tuple[Tensor, ...]) -> str:
    """One sentence: what torch.export refused, the line of the user's code, and what to do about it."""
    text = str(error)
    advice = next((advice for said, advice in ADVICE if said in text), None)
    where = place_of(error) or named_place(text)
    if advice == FREE_BATCH:
        where = batch_place(module, inputs) or where
    if advice is None:
        reason = next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)
        advice = f"{reason.rstrip('.')}; write the forward pass without control flow that depends on values of tensors"
    return f"The network cannot be captured{where}: {advice}."


def place_of(error: BaseException) -> str:
    """The innermost line of the user's own code that an error came through; "" where there is none."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if is_users(frame.filename)]
    return at(frames[-1].filename, frames[-1].lineno or 0) if frames else ""


def is_users(file: str) -> bool:
    """Whether a file is neither of torch nor of this package."""
    return "/torch/" not in file and "/zeroq/" not in file and not file.startswith("<")


def at(file: str, line: int) -> str:
    """A place with its line of source."""
    source = linecache.getline(file, line).strip()
    return f" at {file}:{line}" + (f" ({source})" if source else "")


def named_place(text: str) -> str:
    """The innermost place in the user's code that a text names as tracebacks do."""
    places = [(file, int(line)) for file, line in re.findall(r'File "([^"]+)", line (\d+)', text) if is_users(file)]
    return at(*places[-1]) if places else ""


def place_in(node: fx.Node) -> str:
    """The place in the user's code that a node comes from."""
    return named_place(node.meta.get("stack_trace") or "")


def batch_place(module: nn.Module, inputs: tuple[Tensor, ...]) -> str:
    """Where a module takes the number of images for a constant: the first step that three images take otherwise."""
    more = tuple(torch.cat([value, value[:1]]) for value in inputs)
    try:
        with torch.no_grad():
            module(*more)
    except Exception as error:  # what a network raises is its own affair
        return place_of(error)
    return difference_place(module, (inputs, more))


def difference_place(module: nn.Module, runs: Iterable[tuple[Tensor, ...]]) -> str:
    """The user's line of the first random step, or the first in which two captures differ.

    They may have other numbers of images, or simply be taken one after the other.
    """
    graphs = []
    try:
        with torch.no_grad(), redirect_stderr(io.StringIO()):
            graphs = [torch.export.export(module, inputs).graph for inputs in runs]
    except Exception:  # the sentence then goes without the line
        return ""
    one, other = (list(graph.nodes) for graph in graphs)
    for node, twin in zip(one, [*other, *[None] * len(one)], strict=False):
        random = torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()) and "dropout" not in str(
            node.target
        )
        if twin is None or random or said(node) != said(twin):
            return place_in(node)
    return ""


def said(node: fx.Node) -> tuple[Any, ...]:
    """What a step does, its constants included."""
    return node.op, str(node.target), str(node.args), str(node.kwargs)

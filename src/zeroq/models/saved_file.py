"""Networks saved as files: torch.export programs are taken; ONNX, TorchScript and bare weights are refused."""

from __future__ import annotations

import logging
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import fx

from zeroq.errors import ModelError
from zeroq.models.loaded import FoundModel
from zeroq.models.several import is_one_picture
from zeroq.models.user_file import check_is_file
from zeroq.models.weights import is_torchscript
from zeroq.reason import reason

SAVE_WITH_FREE_BATCH = (
    "torch.export.export(module.eval(), (example,), dynamic_shapes=({0: torch.export.Dim('batch')},)), "
    "with an example of two or more images"
)
COME_FROM_PYTORCH = (
    "give the PyTorch network that it was made from, as FILE.py:FUNCTION (a function that returns it) or saved by "
    "torch.export.save as FILE.pt2"
)
TRAINING_ARGUMENT = {"aten.batch_norm.default": 5, "aten.dropout.default": 2}  # operator -> place of its flag


def find_saved(path: Path) -> FoundModel:
    """The network in a saved file, by its suffix. Raises ModelError."""
    check_is_file(path)
    return READERS[path.suffix.lower()](path)


def _read_program(path: Path) -> FoundModel:
    """A torch.export program of any batch: of one picture, or of any tensors whose shapes it fixes."""
    program = _load_program(path)
    values = _inputs(program, path)
    one = is_one_picture(values)
    shape = tuple(values[0].shape[1:]) if one and all(isinstance(side, int) for side in values[0].shape[1:]) else None
    example = None if one else tuple(_example(value, path) for value in values)
    if any(_in_training(node) for node in program.graph.nodes):
        raise ModelError(f"{path} was saved in training mode: save it anew with {SAVE_WITH_FREE_BATCH}.")
    unguarded = program.module(check_guards=False)
    # The module of a program refuses eval() and train(); an ordinary one around the same graph takes both.
    module = fx.GraphModule(unguarded, unguarded.graph)
    return FoundModel(name=path.stem, module=module, input_shape=shape, example=example)  # type: ignore[arg-type]


def _load_program(path: Path) -> torch.export.ExportedProgram:
    # A file that is no such archive is found out first: torch would write its own traceback to standard error.
    if not zipfile.is_zipfile(path):
        raise ModelError(f"{path} is damaged or cut short, or no torch.export program: save or copy it again.")
    with zipfile.ZipFile(path) as archive:
        if not any(name.endswith("archive_format") for name in archive.namelist()):
            raise ModelError(f"{path} holds no torch.export program: save one with torch.export.save.")
    try:
        with _silent("torch.export"):
            return torch.export.load(path)
    except Exception as error:  # a damaged archive makes torch raise errors of many types
        raise ModelError(
            f"{path} cannot be read as a torch.export program ({reason(error)}): save it anew with torch "
            f"{torch.__version__.partition('+')[0]}."
        ) from error


def _inputs(program: torch.export.ExportedProgram, path: Path) -> list[torch.Tensor]:
    """The program's inputs without values; what is no tensor, or of a fixed batch, is refused."""
    found = {node.name: node.meta.get("val") for node in program.graph.nodes}
    values = [found.get(str(name)) for name in program.graph_signature.user_inputs]
    for value in values:
        if not isinstance(value, torch.Tensor) or not value.dim():
            given = "a number" if isinstance(value, torch.Tensor) else f"a {type(value).__name__}"
            raise ModelError(f"An input of {path} is {given}: all must be tensors with the number of images first.")
        if isinstance(value.shape[0], int):
            raise ModelError(
                f"{path} has a fixed batch of {value.shape[0]}: save it with a free one, {SAVE_WITH_FREE_BATCH}."
            )
    return values  # type: ignore[return-value]


def _example(value: torch.Tensor, path: Path) -> torch.Tensor:
    """Numbers for an input that is no single picture: noise, or zeros where it takes integers."""
    sides = value.shape[1:]
    if not all(isinstance(side, int) for side in sides):
        shown = ", ".join(str(side) if isinstance(side, int) else "free" for side in sides)
        raise ModelError(f"An input of {path} is [free, {shown}]: save it with the batch as its only free axis.")
    shape = (1, *(int(side) for side in sides))
    generator = torch.Generator().manual_seed(0)
    if value.is_floating_point():
        return torch.randn(shape, generator=generator)
    return torch.zeros(shape, dtype=value.dtype)


def _in_training(node: fx.Node) -> bool:
    """Whether the node is a BatchNorm that takes the batch's own statistics, or a dropout that drops."""
    position = TRAINING_ARGUMENT.get(str(node.target))
    return position is not None and len(node.args) > position and node.args[position] is True


@contextmanager
def _silent(name: str) -> Iterator[None]:
    """No messages of a logger; what goes wrong is told by the error."""
    logger = logging.getLogger(name)
    disabled = logger.disabled
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled = disabled


def _refuse_onnx(path: Path) -> FoundModel:
    raise ModelError(
        f"{path} is an ONNX file, from which layers and BatchNorm cannot be recovered: {COME_FROM_PYTORCH}."
    )


def _refuse_torchscript_or_weights(path: Path) -> FoundModel:
    if path.suffix in (".ts", ".torchscript", ".jit") or is_torchscript(path):
        raise ModelError(f"{path} is a TorchScript program, whose layers cannot be replaced: {COME_FROM_PYTORCH}.")
    return _refuse_weights(path)


def _refuse_weights(path: Path) -> FoundModel:
    raise ModelError(
        f"{path} holds weights and not the network that they belong to: name the network as MODEL and give this file "
        "with --weights."
    )


READERS: dict[str, Callable[[Path], Any]] = {
    ".pt2": _read_program,
    ".onnx": _refuse_onnx,
    ".ts": _refuse_torchscript_or_weights,
    ".torchscript": _refuse_torchscript_or_weights,
    ".jit": _refuse_torchscript_or_weights,
    ".pt": _refuse_torchscript_or_weights,
    ".pth": _refuse_torchscript_or_weights,
    ".bin": _refuse_weights,
    ".ckpt": _refuse_weights,
    ".safetensors": _refuse_weights,
}

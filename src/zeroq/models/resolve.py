"""MODEL, --weights, --preprocess and --input-shape to a network that is ready to be captured."""

from __future__ import annotations

import dataclasses
import difflib
import fnmatch
import re
import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from zeroq.errors import ModelError, OptionError
from zeroq.models.copying import copied
from zeroq.models.digits import PIXEL_DEVIATION, PIXEL_MEAN, PREPROCESSING, digits
from zeroq.models.inputs import (
    check_runs,
    guessed_preprocessing,
    read_preprocessing,
    refuse_further_inputs,
    resolve_input,
)
from zeroq.models.loaded import FoundModel, LoadedModel, Shape, checked_module
from zeroq.models.meaning import Reading
from zeroq.models.saved_file import READERS, find_saved
from zeroq.models.several import checked_example, is_one_picture, preprocessing_among, tensors_in
from zeroq.models.user_file import find_in_file, refuse_without_function
from zeroq.models.weights import load_weights, tensors_of, weights_sha256
from zeroq.models.zoo import ZOOS, find_in_zoo, names_in_zoo
from zeroq.preprocessing import Preprocessing

READING = Reading()  # nothing is said


def load_model(
    model: str,
    *,
    weights: Path | None = None,
    preprocess: Path | Preprocessing | None = None,
    input_shape: Shape | None = None,
) -> LoadedModel:
    """The network that MODEL names, with the file's weights in place of its own where one is given.

    preprocess: overrides what the source of the network says; a JSON file, or what an earlier run has stored of one.
    Raises ModelError or OptionError.
    """
    override = read_preprocessing(preprocess) if isinstance(preprocess, Path) else preprocess
    with redirect_stdout(sys.stderr):  # zoos and users' files print; standard output holds our results alone
        found = _find(model, pretrained=weights is None)
        found = dataclasses.replace(found, module=_unwrapped(found.module))  # first: weights have its names
        if weights is not None:
            load_weights(found.module, weights)
        ready = _ready(found, override, input_shape, "--preprocess FILE.json")
    given = ["--preprocess", str(preprocess)] if isinstance(preprocess, Path) else []
    given += [] if input_shape is None else ["--input-shape", ",".join(map(str, input_shape))]
    name = re.sub(r"[^\w.+-]+", "_", found.name)
    return dataclasses.replace(ready, name=name, source=model, weights=weights, given=tuple(given))


def model_names(pattern: str = "*") -> list[str]:
    """Names that MODEL may take and that fit a shell pattern, with their zoo or without it.

    A pattern without wildcards may stand anywhere in them. Zoos that are not installed are left out (`missing_zoos`).
    """
    missing = missing_zoos()
    installed = [zoo for zoo in ZOOS if zoo not in missing]
    names = ["digits", *(f"{zoo}:{name}" for zoo in installed for name in names_in_zoo(zoo))]
    if not re.search(r"[*?\[]", pattern):
        pattern = f"*{pattern}*"
    return [name for name in names if any(fnmatch.fnmatchcase(n, pattern) for n in (name, name.rpartition(":")[2]))]


def missing_zoos() -> list[str]:
    """Zoos that are not installed, or that cannot be imported here."""
    missing = []
    for zoo in ZOOS:
        try:
            names_in_zoo(zoo)
        except ModelError:
            missing.append(zoo)
    return missing


def _find(model: str, *, pretrained: bool) -> FoundModel:
    """The network by the form of its name."""
    if model == "digits":
        return FoundModel(
            name="digits",
            module=digits(trained=pretrained),
            preprocessing=PREPROCESSING,
            task="classification",
            input_statistic=((PIXEL_MEAN,), (PIXEL_DEVIATION,)),
        )
    head, colon, tail = model.rpartition(":")
    if colon and head.endswith(".py"):
        return find_in_file(Path(head), tail)
    if model.endswith(".py"):
        refuse_without_function(Path(model))
    if Path(model).suffix.lower() in READERS:
        return find_saved(Path(model))
    zoo, colon, name = model.partition(":")
    if colon and zoo in ZOOS:
        if name not in names_in_zoo(zoo):
            _refuse_unknown(model, [f"{zoo}:{known}" for known in names_in_zoo(zoo)])
        return find_in_zoo(zoo, name, pretrained=pretrained)
    _refuse_unknown(model, model_names())


def _refuse_unknown(model: str, known: list[str]) -> NoReturn:
    """Name what comes nearest, by the full name or by what stands after the zoo's."""
    by_short_name = {name.rpartition(":")[2].lower(): name for name in reversed(known)}
    near = difflib.get_close_matches(model.lower(), known, cutoff=0.7)
    near += [by_short_name[name] for name in difflib.get_close_matches(model.lower(), by_short_name, cutoff=0.7)]
    listed = list(dict.fromkeys(near))[:3]
    raise ModelError(
        f"There is no model {model!r}"
        + (f", near it: {', '.join(listed)}" if listed else "")
        + "; MODEL is digits, ZOO:NAME, FILE.py:FUNCTION or FILE.pt2, and `zeroq models` lists the names."
    )


def _ready(found: FoundModel, override: Preprocessing | None, shape: Shape | None, where: str) -> LoadedModel:
    """The network in its final form, with all that is known and guessed of its inputs.

    where: says how pictures become inputs, for a warning.
    """
    warnings = _make_ready(found.module, found.name)
    example, preprocessing = found.example, None
    if example is None:
        refuse_further_inputs(found)
        preprocessing, guessed = resolve_input(found, override, shape)
        check_runs(found, preprocessing.input_shape)
        if guessed:
            warnings += (guessed_preprocessing(found.name, where),)
        input_shape: tuple[int, ...] = preprocessing.input_shape
    elif shape is not None and [shape] != [tuple(each.shape[1:]) for each in example]:
        raise OptionError(
            f"--input-shape {','.join(map(str, shape))} is about a network of one picture, and {found.name} comes with "
            "an example of its inputs: leave --input-shape out."
        )
    else:
        example = checked_example(found.name, found.module, example)
        preprocessing, guesses = preprocessing_among(found.name, example, override, where)
        guessed = override is None
        warnings += guesses
        input_shape = tuple(example[0].shape[1:])
    return LoadedModel(
        found.name, found.name, found.module, input_shape, preprocessing, found.task, found.input_statistic,
        weights_sha256(found.module), warnings, reading=found.reading, example=example, guessed=guessed,
    )  # fmt: skip


def _unwrapped(module: nn.Module) -> nn.Module:
    """The network itself, out of what trains or compiles it: DataParallel, DistributedDataParallel, torch.compile."""
    while True:
        parallel = isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel)
        inner = module.module if parallel else getattr(module, "_orig_mod", None)
        if not isinstance(inner, nn.Module):
            return module
        module = inner


def _make_ready(module: nn.Module, name: str) -> tuple[str, ...]:
    """Eval mode, on the CPU, without gradients, in 32-bit floats; a warning where the type was another."""
    tensors = [*module.parameters(), *module.buffers()]
    if any(isinstance(value, UninitializedParameter | UninitializedBuffer) for value in tensors):
        raise ModelError(f"{name} has lazy modules without values: run it on an input once and load its weights.")
    bare = [key for key, value in tensors_of(module).items() if value.is_meta]
    if bare:
        raise ModelError(
            f"{len(bare)} of the tensors of {name} have no values, {bare[0]} first: it was built on the meta device; "
            "build it on the CPU and load its weights."
        )
    for part, held in module.named_modules():
        if isinstance(held, torch.jit.ScriptModule) and next(held.parameters(), None) is not None:
            checked_module(held, f"{part} of {name} is", "put in its place", "a module")
    try:
        module.eval()
    except NotImplementedError as error:
        raise ModelError(
            f"{name} is the module of an exported program, which has no eval mode: save the program itself with "
            "torch.export.save and give FILE.pt2."
        ) from error
    module.requires_grad_(False)
    module.cpu()
    types = {t.dtype for t in tensors_of(module).values() if t.is_floating_point()} - {torch.float32}
    if not types:
        return ()
    module.float()
    listed = ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in types))
    return (f"Weights of {name} in {listed} were turned into float32.",)


def from_module(
    module: nn.Module,
    example: torch.Tensor | tuple[torch.Tensor, ...],
    *,
    preprocess: Mapping[str, Any] | None = None,
    task: str | None = None,
    reading: Reading = READING,
    name: str = "network",
) -> LoadedModel:
    """A module that the caller holds, ready to be captured: a copy in eval mode and in 32-bit floats on the CPU.

    example: the input, or a tuple with one tensor for each input; the first axis of each is the batch.
    preprocess, task, reading: as a FILE.py says them.  Raises ModelError or OptionError.
    """
    checked_module(module, "The network is", "give", "the module itself")
    if not isinstance(preprocess, Mapping | None):
        raise OptionError(f"preprocess= is a {type(preprocess).__name__}: give a dictionary of size, mean and std.")
    override = None if preprocess is None else Preprocessing.from_dict(dict(preprocess))
    inputs = tensors_in(name, example)
    one = is_one_picture(inputs)
    module, own = copied(_unwrapped(module), name), None if one else inputs
    found = FoundModel(name=name, module=module, task=task, reading=reading, example=own)
    if not one:
        return _ready(found, override, None, "preprocess=")
    channels, height, width = inputs[0].shape[1:]
    return _ready(found, override, (channels, height, width), "preprocess=")

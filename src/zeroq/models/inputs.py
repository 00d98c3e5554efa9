"""What a network takes: --preprocess and --input-shape, what its source says, and what is guessed otherwise."""

from __future__ import annotations

import dataclasses
import inspect
import json
from pathlib import Path

import torch

from zeroq.errors import ModelError, OptionError
from zeroq.models.loaded import FoundModel, Shape
from zeroq.preprocessing import CHANNEL_COUNTS, IMAGENET_MEAN, IMAGENET_STD, Preprocessing, imagenet
from zeroq.reason import reason

TRIAL_BATCH = 2


def resolve_input(found: FoundModel, override: Preprocessing | None, shape: Shape | None) -> tuple[Preprocessing, bool]:
    """Preprocessing, whose size and channels are the network's input, and whether it was guessed.

    override: of --preprocess.  shape: of --input-shape. Raises OptionError where they contradict, ModelError where
    nothing says the input's shape.
    """
    if shape is not None and (len(shape) != 3 or min(shape) < 1):
        raise OptionError(f"--input-shape is {shape}: give channels, height and width, each at least 1, as C,H,W.")
    known = override or found.preprocessing
    if known is not None:
        return (known if shape is None else _reshaped(known, shape, fixed=override is not None)), False
    shape = shape or found.input_shape
    if shape is None:
        raise ModelError(
            f"Nothing says what the input of {found.name} is like: give --input-shape C,H,W, or PREPROCESS in the "
            "Python file."
        )
    return guessed_for(shape), True


def read_preprocessing(path: Path) -> Preprocessing:
    """--preprocess FILE.json. Raises OptionError."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise OptionError(f"--preprocess {path} cannot be read ({error.strerror}): check the path.") from error
    except (ValueError, RecursionError) as error:
        raise OptionError(f"--preprocess {path} is not JSON ({reason(error)}): correct it there.") from error
    if not isinstance(values, dict):
        raise OptionError(
            f"--preprocess {path} holds a {type(values).__name__}: write an object of size, mean and std."
        )
    try:
        return Preprocessing.from_dict(values)
    except (OptionError, OverflowError) as error:
        raise OptionError(f"--preprocess {path}: {error}") from error


def check_runs(found: FoundModel, shape: Shape) -> None:
    """Two black images through the network: a wrong shape is found out before anything is computed."""
    try:
        with torch.no_grad():
            found.module(torch.zeros(TRIAL_BATCH, *shape))
    except Exception as error:  # what a network raises is its own affair
        raise ModelError(
            f"{found.name} does not run on an input of shape {[TRIAL_BATCH, *shape]} ({reason(error)}): "
            "give the shape that it was trained on with --input-shape C,H,W, and --preprocess if its channels differ."
        ) from error


def refuse_further_inputs(found: FoundModel) -> None:
    """One picture is all that can be made without an example."""
    if further := further_inputs(found):
        raise ModelError(
            f"{found.name} takes more than one input ({', '.join(further)}): quantize it in Python, "
            "zeroq.quantize(module, (first, second)), or save it with torch.export.save and give FILE.pt2."
        )


def further_inputs(found: FoundModel) -> list[str]:
    """Names of what a network's forward pass needs beside its first input."""
    try:
        parameters = list(inspect.signature(found.module.forward).parameters.values())[1:]
    except (TypeError, ValueError):  # a graph's module tells nothing of its arguments
        return []
    optional = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [each.name for each in parameters if each.default is inspect.Parameter.empty and each.kind not in optional]


def _reshaped(known: Preprocessing, shape: Shape, *, fixed: bool) -> Preprocessing:
    """The same preprocessing at another size, the shorter side before the crop scaled with it."""
    channels, height, width = shape
    if channels != known.channel_count:
        raise OptionError(
            f"--input-shape has {channels} channel(s) and the preprocessing {known.channel_count}: "
            "give --preprocess with a mean and deviation for each channel, or leave --input-shape out."
        )
    if (height, width) == known.size:
        return known
    if fixed:
        raise OptionError(
            f"--input-shape says {height} x {width} and --preprocess {known.size[0]} x {known.size[1]}: "
            "make them equal, or leave --input-shape out."
        )
    resize = known.resize
    if isinstance(resize, int):
        resize = max(round(resize * min(height, width) / min(known.size)), height, width)
    return dataclasses.replace(known, size=(height, width), resize=resize)


def guessed_for(shape: Shape) -> Preprocessing:
    """ImageNet's mean and deviation; their mean over the colours where there is another number of channels."""
    channels, height, width = shape
    if channels == len(IMAGENET_MEAN):
        return imagenet((height, width))
    mean, deviation = (sum(values) / len(values) for values in (IMAGENET_MEAN, IMAGENET_STD))
    grey = "L" if channels == CHANNEL_COUNTS["L"] else None
    return Preprocessing((height, width), (mean,) * channels, (deviation,) * channels, grey)


def guessed_preprocessing(name: str, where: str) -> str:
    """The warning where nothing says how pictures become inputs, and where to say it."""
    return (
        f"Nothing says how pictures become the input of {name}: ImageNet's mean and deviation are taken; "
        f"{where} says otherwise."
    )

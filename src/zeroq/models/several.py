"""Inputs that are not one picture: several of them, vectors, signals, volumes, indices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from zeroq.errors import ModelError, OptionError
from zeroq.models.inputs import TRIAL_BATCH, guessed_for, guessed_preprocessing
from zeroq.preprocessing import CHANNEL_COUNTS, Preprocessing
from zeroq.reason import reason


def is_one_picture(inputs: Sequence[Tensor]) -> bool:
    """Whether a network takes what all other parts take for granted: one input [N, C, H, W]."""
    return len(inputs) == 1 and inputs[0].dim() == 4 and inputs[0].is_floating_point()


def tensors_in(name: str, example: Any) -> tuple[Tensor, ...]:
    """One tensor for each input, floating-point numbers in 32 bits as the network's are. Raises ModelError."""
    inputs = tuple(example) if isinstance(example, (tuple, list)) else (example,)
    wrong = [type(value).__name__ for value in inputs if not isinstance(value, Tensor)]
    if wrong or not inputs:
        raise ModelError(
            f"The example of {name} holds {', '.join(wrong) or 'nothing'}: give a tensor, or a tuple of one tensor for "
            "each input."
        )
    return tuple(value.float() if value.is_floating_point() else value for value in inputs)


def checked_example(name: str, module: nn.Module, example: Any) -> tuple[Tensor, ...]:
    """One tensor for each input, with the batch first, on which the network runs. Raises ModelError."""
    inputs = tensors_in(name, example)
    if any(not value.dim() or not value.numel() for value in inputs) or len({len(value) for value in inputs}) > 1:
        shapes = ", ".join(str(list(value.shape)) for value in inputs)
        raise ModelError(f"The example of {name} is {shapes}: all inputs have the same number of images first.")
    trial = [torch.cat([value[:1]] * TRIAL_BATCH) for value in inputs]
    try:
        with torch.no_grad():
            module(*trial)
    except Exception as error:  # what a network raises is its own affair
        shapes = ", ".join(str(list(value.shape)) for value in trial)
        raise ModelError(
            f"{name} does not run on inputs of shapes {shapes} ({reason(error)}): give an example that it runs on, "
            "whose tensors all have the number of images first."
        ) from error
    return tuple(value.detach() for value in inputs)


def pictures_among(inputs: Sequence[Tensor], preprocessing: Preprocessing | None) -> tuple[bool, ...]:
    """Which inputs are pictures: those of [N, C, H, W] with as many channels as the preprocessing has."""
    channels = None if preprocessing is None else preprocessing.channel_count
    return tuple(value.dim() == 4 and value.is_floating_point() and int(value.shape[1]) == channels for value in inputs)


def image_names(inputs: Sequence[Tensor], preprocessing: Preprocessing | None) -> list[str]:
    """What each input is called in a run's file of images: the first that takes pictures "images"."""
    pictures = pictures_among(inputs, preprocessing)
    first = pictures.index(True) if any(pictures) else -1
    return ["images" if index == first else f"input{index}" for index in range(len(pictures))]


def preprocessing_among(
    name: str, inputs: Sequence[Tensor], override: Preprocessing | None, where: str
) -> tuple[Preprocessing | None, tuple[str, ...]]:
    """How pictures become those of the inputs that are pictures, None where none is, and what was guessed.

    override: as the caller says it; it must fit the size of one of them.  where: to say it.  Raises OptionError.
    """
    if override is not None:
        fitting = [value for value in inputs if tuple(value.shape[1:]) == override.input_shape]
        if not fitting:
            raise OptionError(
                f"The preprocessing gives pictures {list(override.input_shape)}, and no input of {name} has that "
                "shape: make its size and its mean's length those of the input that takes pictures."
            )
        preprocessing: Preprocessing | None = override
        warnings: tuple[str, ...] = ()
    else:
        colours = [
            value for count in (3, 1) for value in inputs if value.dim() == 4 and value.is_floating_point()
            and int(value.shape[1]) == count and count in CHANNEL_COUNTS.values()
        ]  # fmt: skip
        preprocessing = guessed_for((*map(int, colours[0].shape[1:]),)) if colours else None  # type: ignore[arg-type]
        warnings = () if preprocessing is None else (guessed_preprocessing(name, where),)
    return preprocessing, (*warnings, *neutral_warning(inputs, preprocessing))


def neutral_warning(inputs: Sequence[Tensor], preprocessing: Preprocessing | None) -> tuple[str, ...]:
    """What is taken for granted of inputs that are no pictures."""
    others = [
        f"{index + 1} {list(value.shape[1:])}"
        for index, (value, picture) in enumerate(zip(inputs, pictures_among(inputs, preprocessing), strict=True))
        if not picture
    ]
    if not others:
        return ()
    which = (
        f"Input {', '.join(others)} is no picture"
        if len(others) == 1
        else f"Inputs {', '.join(others)} are no pictures"
    )
    return (
        f"{which}: a BatchNorm that reads it says what its values are like, else mean 0 and deviation 1 are taken, and "
        "integers are drawn from the example's.",
    )


def preprocess_dict(preprocessing: Preprocessing | None) -> Mapping[str, Any] | None:
    """As JSON; None where no input is a picture."""
    return None if preprocessing is None else preprocessing.to_dict()

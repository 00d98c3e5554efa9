"""What a network is run on: one tensor of many images, or several that belong together, image by image."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

Inputs = Tensor | tuple[Tensor, ...]  # each [N, ...]; a network of one input takes the tensor alone


def as_tuple(inputs: Inputs) -> tuple[Tensor, ...]:
    """One tensor for each input of the network."""
    return (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)


def as_inputs(tensors: Sequence[Tensor]) -> Inputs:
    """The inverse of as_tuple()."""
    return tensors[0] if len(tensors) == 1 else tuple(tensors)


def count_images(inputs: Inputs) -> int:
    """Number of images."""
    return len(as_tuple(inputs)[0])


def slice_images(inputs: Inputs, start: int | None = None, stop: int | None = None) -> Inputs:
    """Some of the images, as a slice takes them."""
    return inputs[start:stop] if isinstance(inputs, Tensor) else tuple(value[start:stop] for value in inputs)


def chunks(inputs: Inputs, size: int) -> list[tuple[Tensor, ...]]:
    """All images in order, so many at a time."""
    return list(zip(*(value.split(size) for value in as_tuple(inputs)), strict=True))

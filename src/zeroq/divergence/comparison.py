"""Divergence and agreement of a network with a reference, over batches, by what the output means."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from zeroq.divergence.channels import ChannelErrors, positions, tensors_of
from zeroq.divergence.detections import DetectionAgreement
from zeroq.divergence.meaning import Divergence, Meaning, on_cpu
from zeroq.divergence.scores import kl_divergence, same_class, scores_alike
from zeroq.errors import ModelError


class Sum(Protocol):
    """Something that is added up over batches."""

    def add(self, reference: Any, outputs: Any) -> None: ...
    def value(self) -> float: ...


class Comparison:
    """How far outputs are from a reference's, and how often they say the same.

    | task | divergence | agreement |
    | classification | KL over classes | share of images of the same highest class |
    | segmentation | KL of each pixel, mean | share of pixels of the same highest class |
    | detection | squared error per output channel over its float variance | F1 of detections with a score >= 0.3 |
    | regression | the same | 1 - that |

    Of several outputs the first is the class scores, or their probabilities; squared errors count all of them.
    """

    def __init__(self, meaning: Meaning, *, agreement: bool = True) -> None:
        """agreement: whether it is wanted; a detector's needs `decode`, and its time."""
        own = meaning.divergence
        self._divergence: Sum = MeanOf(checked(own)) if own is not None else DIVERGENCES[meaning.task]()
        self._agreement: Sum | None = AGREEMENTS[meaning.task](meaning) if agreement else None

    def add(self, reference: Any, outputs: Any) -> None:
        """One batch of both. Raises NumericalError where a value is NaN or infinite, ModelError for a wrong decode."""
        for sum_ in (self._divergence, self._agreement):
            if sum_ is not None:
                sum_.add(reference, outputs)

    @property
    def divergence(self) -> float:
        """0 is equal."""
        return self._divergence.value()

    @property
    def agreement(self) -> float:
        """1 is equal."""
        assert self._agreement is not None, "agreement was not wanted"
        return self._agreement.value()


def places_of(meaning: Meaning, outputs: Any) -> int:
    """At how many places of each image outputs are compared: of several that count alike, where there are fewest.

    1 for a user's own divergence, which gives one number for an image.
    """
    if meaning.divergence is not None:
        return 1
    numbers = tensors_of(outputs)
    if meaning.task in ("classification", "segmentation"):
        return math.prod(numbers[0].shape[2:])
    return max(1, min(positions(each) for each in numbers))


class MeanOf:
    """The mean of what a function gives for reference and outputs, any number of values for each batch."""

    def __init__(self, function: Divergence) -> None:
        self.function = function
        self.sum, self.count = 0.0, 0

    def add(self, reference: Any, outputs: Any) -> None:
        values = self.function(reference, outputs).double()
        self.sum, self.count = self.sum + float(values.sum()), self.count + values.numel()

    def value(self) -> float:
        return self.sum / self.count


class OneLess:
    """1 - nmse, and nothing where outputs miss by more than they vary."""

    def __init__(self) -> None:
        self.errors = ChannelErrors()

    def add(self, reference: Any, outputs: Any) -> None:
        self.errors.add(reference, outputs)

    def value(self) -> float:
        return max(0.0, 1 - self.errors.value())


def of_scores(function: Callable[[Tensor, Tensor], Tensor]) -> Divergence:
    """A function of class scores as one of a network's outputs: of several the first."""
    return lambda reference, outputs: function(*scores_alike(reference, outputs))


def checked(function: Divergence) -> Divergence:
    """A user's own divergence; ModelError where it is not one finite number for each image."""

    def divergence(reference: Any, outputs: Any) -> Tensor:
        images = len(pytree.tree_leaves(reference)[0])
        values = function(on_cpu(reference), on_cpu(outputs))
        if not isinstance(values, Tensor) or values.shape != (images,):
            what = str(list(values.shape)) if isinstance(values, Tensor) else f"a {type(values).__name__}"
            raise ModelError(f"divergence gives {what} for {images} images: give a tensor [{images}].")
        if not torch.isfinite(values).all():
            raise ModelError("divergence gives NaN or infinity: it must be finite for every image.")
        return values

    return divergence


DIVERGENCES: dict[str, Callable[[], Sum]] = {
    "classification": lambda: MeanOf(of_scores(kl_divergence)),
    "segmentation": lambda: MeanOf(of_scores(kl_divergence)),
    "detection": ChannelErrors,
    "regression": ChannelErrors,
}
AGREEMENTS: dict[str, Callable[[Meaning], Sum]] = {
    "classification": lambda meaning: MeanOf(of_scores(same_class)),
    "segmentation": lambda meaning: MeanOf(of_scores(same_class)),
    "detection": lambda meaning: DetectionAgreement(meaning.decode),
    "regression": lambda meaning: OneLess(),
}

"""How good a network is on labelled data, and how near to another."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from zeroq.divergence import Comparison, Meaning
from zeroq.divergence.channels import tensors_of
from zeroq.errors import DataError, OptionError
from zeroq.evaluate.tasks import TASKS, Data

Predict = Callable[[Tensor], Any]
SCORES = Meaning("classification")


def evaluate(
    predict: Predict,
    data: Data,
    *,
    meaning: Meaning = SCORES,
    batch: int = 32,
    reference: Predict | None = None,
    on_step: Callable[[int], None] = lambda images: None,
) -> dict[str, Any]:
    """What `evaluate --json` prints: images, task, its metrics, and in "float" those of the reference; agreement and
    mean divergence; images per second.

    predict, reference: from inputs [n, C, H, W] to outputs; a module must be in eval mode. Without a reference its
    keys are None.  Only `predict` is timed. `on_step` is told how many images were done. Raises DataError where
    outputs do not fit the labels, NumericalError for scores that are no numbers.
    """
    if batch < 1:
        raise OptionError(f"A batch of {batch} images was asked for: give at least 1.")
    for network in (predict, reference):
        if isinstance(network, nn.Module) and network.training:
            raise OptionError("The module is in training mode: call its eval() first.")
    score, float_score = (TASKS[meaning.task].score(data, meaning) for _ in range(2))
    comparison = None if reference is None else Comparison(meaning)
    seconds = 0.0
    with torch.inference_mode():
        for inputs, truth in data.batches(batch):
            started = time.perf_counter()
            outputs = predict(inputs)
            seconds += time.perf_counter() - started
            score.add(outputs, truth)
            if reference is not None and comparison is not None:
                expected = alike(reference(inputs), outputs)
                comparison.add(expected, outputs)
                float_score.add(expected, truth)
            on_step(len(inputs))
    return {
        "images": len(data),
        "task": meaning.task,
        **score.metrics(),
        "float": None if reference is None else float_score.metrics(),
        "agreement": None if comparison is None else comparison.agreement,
        "mean_divergence": None if comparison is None else comparison.divergence,
        "images_per_second": len(data) / seconds,
    }


def alike(reference: Any, outputs: Any) -> Any:
    """The reference's outputs, if they have the shapes of the network's. Raises DataError."""
    shapes = [[list(each.shape) for each in tensors_of(both)] for both in (reference, outputs)]
    if shapes[0] != shapes[1]:
        raise DataError(
            f"The network gives {shapes[1]} and its reference {shapes[0]}: name the network that it was made from."
        )
    return reference

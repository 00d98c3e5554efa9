"""How good a network is on labelled data, and how near to another."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from zeroq.errors import DataError, NumericalError, OptionError
from zeroq.evaluate.data import LabelledData
from zeroq.evaluate.tasks import task_named

Predict = Callable[[Tensor], Tensor]


def evaluate(
    predict: Predict,
    data: LabelledData,
    *,
    task: str = "classification",
    batch: int = 32,
    reference: Predict | None = None,
    on_step: Callable[[int], None] = lambda images: None,
) -> dict[str, Any]:
    """What `evaluate --json` prints: images, task, its metrics, agreement and mean divergence, images per second.

    predict, reference: from inputs [n, C, H, W] to outputs [n, K]; a module must be in eval mode. Without a reference
    its two keys are None. Only `predict` is timed. `on_step` is told how many images were done. Raises DataError where
    outputs do not fit the labels, NumericalError for scores that are no numbers.
    """
    meaning = task_named(task)
    if batch < 1:
        raise OptionError(f"A batch of {batch} images was asked for: give at least 1.")
    for network in (predict, reference):
        if isinstance(network, nn.Module) and network.training:
            raise OptionError("The module is in training mode: call its eval() first.")
    counts: list[Tensor] = []
    compared: list[Tensor] = []  # agreement and divergence, float64 [2, n] each
    seconds = 0.0
    with torch.inference_mode():
        for inputs, labels in data.batches(batch):
            started = time.perf_counter()
            outputs = predict(inputs)
            seconds += time.perf_counter() - started
            counts.append(meaning.count(_checked(outputs, len(inputs), data.classes), labels))
            if reference is not None:
                expected = _checked(reference(inputs), len(inputs), data.classes)
                compared.append(torch.stack([meaning.same(expected, outputs), meaning.divergence(expected, outputs)]))
            on_step(len(inputs))
    agreement, divergence = torch.cat(compared, dim=1).mean(dim=1).tolist() if compared else (None, None)
    return {
        "images": len(data),
        "task": meaning.name,
        **meaning.metrics(torch.stack(counts).sum(dim=0), len(data)),
        "agreement": agreement,
        "mean_divergence": divergence,
        "images_per_second": len(data) / seconds,
    }


def _checked(scores: Tensor, images: int, classes: int) -> Tensor:
    """Class scores [images, classes], or an error."""
    if scores.shape != (images, classes):
        raise DataError(
            f"The network gives {list(scores.shape)} for {images} images and the labels have {classes} classes: "
            f"classification needs scores [{images}, {classes}]."
        )
    if not torch.isfinite(scores).all():
        raise NumericalError("The network gives scores that are NaN or infinite: its values overflow on these data.")
    return scores

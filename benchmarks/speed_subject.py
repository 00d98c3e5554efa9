"""A network that times are measured on, with real pictures where it is a trained one, and how good images of it are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.distillation import distance, layer_inputs
from benchmarks.nearest import rounded_to_nearest
from benchmarks.order import rank_correlation
from benchmarks.published_networks import build
from benchmarks.rows import NETWORKS as TRAINED
from zeroq import devices
from zeroq.distillation import InputStatistic, natural_statistic
from zeroq.distillation.images import prepare
from zeroq.evaluate import calibration_pictures
from zeroq.graph import Layer, Network, capture, fold
from zeroq.models import load_model
from zeroq.precision import Precision
from zeroq.preprocessing import Preprocessing
from zeroq.sensitivity import derivable, measure_sensitivity

UNTRAINED = ("resnet18", "mobilenetv2_w1", "resnet50")  # of the paper, 224 x 224, statistics of synthetic pictures
NETWORKS = (*UNTRAINED, *TRAINED)
PICTURES = {"imagenet": "imagenet_train_64", "cifar10": "cifar10_other_64.npz", "cifar100": "cifar100_other_64.npz"}
REAL = 64  # pictures that ranges are held against, the first COMPARED of them for sensitivities
COMPARED = 32
WIDTHS = (2, 4, 8)


@dataclass(frozen=True)
class Subject:
    """One network, with its BatchNorms and without, and real pictures to hold images against, if it is trained."""

    network: Network
    folded: Network
    statistic: InputStatistic
    real: Tensor | None
    weight: Callable[[Layer, int], Tensor]  # rounded to nearest

    @property
    def device(self) -> torch.device:
        """That all of it is on."""
        return self.network.example[0].device


def find(name: str, data: Path) -> tuple[nn.Module, Preprocessing]:
    """A network of NETWORKS and what pictures it takes; data: the folder of the trained ones."""
    if name in UNTRAINED:
        built = build(name)
        return built.module, built.preprocessing
    model = load_model(f"{data}/networks/{name}.py:{name}")
    return model.module, model.picture()


def subject_of(name: str, data: Path, device: torch.device = devices.CPU) -> Subject:
    """Everything that is not to be timed, on a device."""
    module, preprocessing = find(name, data)
    network = capture(module, torch.zeros(2, *preprocessing.input_shape))
    folded = fold(network).to(device)
    real = None
    if name in TRAINED:
        real = calibration_pictures(data / PICTURES[TRAINED[name]], preprocessing, REAL, 0).to(device)
    weight = rounded_to_nearest(folded, WIDTHS)
    return Subject(network.to(device), folded, natural_statistic(preprocessing), real, weight)


def sensitivities(subject: Subject, images: Tensor, derived: Sequence[int] = derivable(WIDTHS)) -> list[list[float]]:
    """[layers][widths], by our walk; derived: widths that follow from others, as in a run."""
    found = measure_sensitivity(
        subject.folded, devices.ordered(images), WIDTHS, lambda layer, width: (subject.weight(layer, width), None),
        derived=derived,
    )  # fmt: skip
    return [list(row) for row in found.values]


def reference_of(subject: Subject) -> list[list[float]] | None:
    """The sensitivities that real pictures tell, all of them measured; None without any."""
    return None if subject.real is None else sensitivities(subject, subject.real[:COMPARED], ())


def quality(
    subject: Subject, images: Tensor, found: list[list[float]] | None, reference: list[list[float]] | None
) -> dict[str, float]:
    """How near images come to the statistics that they are made for, and to real pictures where there are some.

    found, reference: sensitivities that the images and real pictures tell.
    """
    matching = prepare(subject.network, subject.statistic, Precision())
    with torch.no_grad():
        loss = {"statistics_loss": round(matching.loss(images).item(), 4)}
        if subject.real is None or found is None or reference is None:
            return loss
        scores = [subject.network.run(batch) for batch in images.split(16)]
    ranges = distance(layer_inputs(subject.network, images)[0], layer_inputs(subject.network, subject.real)[0], 0)
    return loss | {
        "range_error": round(ranges, 4),
        "rank_correlation": round(rank_correlation(np.ravel(found), np.ravel(reference)), 4),
        "confidence": round(float(torch.softmax(torch.cat(scores), 1).amax(1).mean()), 4),
    }

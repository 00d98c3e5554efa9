"""What else distilled images can be made for, or from: the choices that benchmarks.distillation compares.

Each takes what the product minimises (`Matching`) and gives another objective, for the same steps.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import torch
from torch import Tensor, fx
from torch.nn import functional

from zeroq.distillation.images import Matching, batch_size, prepare
from zeroq.distillation.measuring import Moments
from zeroq.distillation.starts import column, natural_noise
from zeroq.distillation.statistics import InputStatistic
from zeroq.distillation.steps import optimise
from zeroq.distillation.targets import Targets
from zeroq.graph import Network, replay
from zeroq.graph.network import CONVOLUTIONS
from zeroq.precision import Precision
from zeroq.preparation import Prepared

TOLERANCE = 0.1  # deviations that a statistic may miss its target by, where there is slack
SHIFT = 8  # of a side, the part that images are shifted by at most
DISTURBED = 0.1  # deviations of the noise on images whose neighbourhood is to be flat
SMOOTH, STRETCH, FURTHER = 0.1, 0.1, 0.1  # weights beside the distance of the statistics


@dataclass(frozen=True)
class Setup:
    """What an objective may be made of."""

    network: Network  # not folded
    matching: Matching  # what the product minimises
    generator: torch.Generator


@dataclass(frozen=True)
class Changed:
    """The product's objective with another loss."""

    matching: Matching
    loss: Callable[[Tensor], Tensor]

    @property
    def statistic(self) -> InputStatistic:
        """The input's."""
        return self.matching.statistic

    def refuse(self, images: Tensor) -> NoReturn:
        """Raise NumericalError, as the product does."""
        self.matching.refuse(images)


Loss = Callable[[Tensor], Tensor]


def of_each_image(setup: Setup) -> Loss:
    """Statistics of each image by itself (arXiv:2001.00281), their distances' mean."""
    return lambda images: torch.stack([setup.matching.loss(image[None]) for image in images]).mean()


def unweighted(setup: Setup) -> Loss:
    """All channels of all BatchNorms alike (arXiv:2001.00281)."""
    targets = setup.matching.targets
    return replace(setup.matching, targets=replace(targets, weight=(targets.weight > 0).float())).loss


def slack(setup: Setup) -> Loss:
    """Statistics that miss their targets by little are left alone (DSG, arXiv:2109.00212)."""
    matching = setup.matching

    def loss(images: Tensor) -> Tensor:
        return matching.targets.loss(tolerated(matching.measure(images), matching.targets), len(images))

    return loss


def tolerated(found: Sequence[Moments], targets: Targets) -> list[Moments]:
    """Moments drawn to their targets by as much as may be missed; each BatchNorm is one entry of the targets."""
    sizes = [len(mean) for mean, _ in found]
    rows = zip(found, *(each.split(sizes) for each in (targets.mean, targets.deviation, targets.epsilon)), strict=True)
    moments = []
    for (mean, variance), of_mean, of_deviation, epsilon in rows:
        most = TOLERANCE * of_deviation
        near_mean = of_mean + beyond(mean - of_mean, most)
        near_deviation = of_deviation + beyond((variance + epsilon).sqrt() - of_deviation, most)
        moments.append((near_mean, near_deviation.square() - epsilon))
    return moments


def beyond(values: Tensor, most: Tensor) -> Tensor:
    """What of values lies beyond -most to most."""
    return values - torch.minimum(torch.maximum(values, -most), most)


def flips_and_shifts(setup: Setup) -> Loss:
    """Images mirrored and shifted around their edges by chance, anew in each step."""

    def loss(images: Tensor) -> Tensor:
        if chance(setup, 2):
            images = images.flip(-1)
        shifts = [chance(setup, 2 * side // SHIFT + 1) - side // SHIFT for side in images.shape[2:]]
        return setup.matching.loss(images.roll(shifts, (2, 3)))

    return loss


def chance(setup: Setup, count: int) -> int:
    """A number below another."""
    return int(torch.randint(count, (), generator=setup.generator))


def smoothed(setup: Setup) -> Loss:
    """Neighbouring pixels alike: total variation, in deviations of the input."""
    matching = setup.matching

    def loss(images: Tensor) -> Tensor:
        scaled = images / column(matching.statistic.deviation, images)
        return matching.loss(images) + SMOOTH * sum(scaled.diff(dim=axis).abs().mean() for axis in (2, 3))

    return loss


def shifted_strides(setup: Setup) -> Loss:
    """Strided convolutions read at places that are shifted by chance in each step (GENIE, arXiv:2212.04780)."""
    graph = copy.deepcopy(setup.matching.graph)
    for node in list(graph.nodes):
        strides = node.args[3] if node.target in CONVOLUTIONS and len(node.args) > 3 else [1]
        if max(strides) > 1:
            with graph.inserting_before(node):
                shifted = graph.call_function(shifting(max(strides), setup.generator), (node.args[0],))
            node.args = (shifted, *node.args[1:])
    return replace(setup.matching, graph=graph).loss


def shifting(stride: int, generator: torch.Generator) -> Callable[[Tensor], Tensor]:
    """A step of a graph, which needs a name."""

    def shift(value: Tensor) -> Tensor:
        return shifted_by_chance(value, stride, generator)

    return shift


def shifted_by_chance(value: Tensor, stride: int, generator: torch.Generator) -> Tensor:
    """[N, C, H, W] by less than a stride, the border mirrored."""
    up, left = torch.randint(stride, (2,), generator=generator).tolist()
    padded = functional.pad(value, (stride - 1, 0, stride - 1, 0), mode="reflect")
    return padded[:, :, up : up + value.shape[2], left : left + value.shape[3]]


def flat_neighbourhood(setup: Setup) -> Loss:
    """Statistics of images with noise on them, another in each step."""

    def loss(images: Tensor) -> Tensor:
        noise = torch.randn(images.shape, generator=setup.generator)
        return setup.matching.loss(images + DISTURBED * column(setup.matching.statistic.deviation, images) * noise)

    return loss


def stretched(setup: Setup) -> Loss:
    """Class scores drawn to one class for each image, all classes in turn."""

    def loss(images: Tensor) -> Tensor:
        scores = setup.network.run(images)
        classes = torch.arange(len(images)) % scores.shape[1]
        return setup.matching.loss(images) + STRETCH * functional.cross_entropy(scores, classes)

    return loss


def normal_channels(setup: Setup) -> Loss:
    """Channels of each BatchNorm's input without skewness and excess kurtosis, in units of what chance leaves."""

    def of(value: Tensor) -> Tensor:
        rows = value.transpose(0, 1).flatten(1)
        rows = (rows - rows.mean(1, keepdim=True)) / (rows.std(1, keepdim=True) + 1e-6)
        skewness, kurtosis = rows.pow(3).mean(1), rows.pow(4).mean(1) - 3
        return (skewness.square() / 6 + kurtosis.square() / 24).mean()

    return further(setup, of)


def uncorrelated_channels(setup: Setup) -> Loss:
    """Channels of each BatchNorm's input without correlations between them: the mean of their squares."""

    def of(value: Tensor) -> Tensor:
        rows = value.transpose(0, 1).flatten(1)
        rows = rows - rows.mean(1, keepdim=True)
        rows = rows / (rows.norm(dim=1, keepdim=True) + 1e-6)
        correlations = rows @ rows.T
        return (correlations - torch.diag(correlations.diag())).square().mean()

    return further(setup, of)


def further(setup: Setup, of: Callable[[Tensor], Tensor]) -> Loss:
    """The product's loss and the mean over BatchNorms of what else their inputs are to have."""
    read = {norm.input for norm in setup.network.norms}

    def loss(images: Tensor) -> Tensor:
        terms: list[Tensor] = []

        def note(node: fx.Node, value: Any) -> None:
            if node.name in read:
                terms.append(of(value))

        replay(setup.network.graph, setup.network.tensors, {setup.network.inputs[0]: images}, visit=note)
        return setup.matching.loss(images) + FURTHER * torch.stack(terms).mean()

    return loss


WHITE = "from white noise"
OBJECTIVES: dict[str, Callable[[Setup], Loss]] = {
    WHITE: lambda setup: setup.matching.loss,
    "statistics of each image": of_each_image,
    "BatchNorms not weighed": unweighted,
    "slack": slack,
    "flips and shifts": flips_and_shifts,
    "smoothed": smoothed,
    "shifted strides": shifted_strides,
    "flat neighbourhoods": flat_neighbourhood,
    "stretched scores": stretched,
    "no skewness, no excess kurtosis": normal_channels,
    "no correlations": uncorrelated_channels,
}


def distilled(made: str, prepared: Prepared, count: int, steps: int, precision: Precision) -> Tensor:
    """Images [count, C, H, W] by one of the choices; otherwise as `zeroq.distillation.distill` makes them."""
    network, statistic = prepared.network, prepared.statistics[0]
    generator = torch.Generator().manual_seed(0)
    shape = (count, *network.example[0].shape[1:])
    if made == WHITE:
        noise = torch.randn(shape, generator=generator)
        images = noise * column(statistic.deviation, noise) + column(statistic.mean, noise)
    else:
        images = natural_noise(shape, statistic, generator)
    found = []
    for batch in images.split(batch_size(network, count, precision)):
        matching = prepare(network, statistic, precision, prepared.trust)
        objective = Changed(matching, OBJECTIVES[made](Setup(network, matching, generator)))
        found.append(optimise(batch, objective, steps, lambda: None))
    return torch.cat(found)

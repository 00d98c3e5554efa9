"""The optimisation of images whose statistics match."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NoReturn

import torch
from torch import Tensor, fx

from zeroq.devices import Precision
from zeroq.distillation.measuring import is_measured, measuring_graph, moments_by_autograd
from zeroq.distillation.starts import natural_noise
from zeroq.distillation.statistics import InputStatistic, Moments, Targets, make_targets
from zeroq.distillation.steps import optimise
from zeroq.errors import NumericalError, OptionError
from zeroq.graph import Network, replay

FULL_PRECISION = Precision()
BATCH_BYTES = 3e9  # values that the backward pass keeps, at most


@dataclass(frozen=True)
class Effort:
    """How many images, and how many steps of their optimisation."""

    images: int
    iterations: int


EFFORTS = {"fast": Effort(32, 12), "balanced": Effort(64, 24), "best": Effort(128, 200)}  # 9, 37, 620 units


def distill(
    network: Network,
    input_statistic: InputStatistic,
    *,
    count: int = 64,
    iterations: int = 24,
    seed: int = 0,
    precision: Precision = FULL_PRECISION,
    on_step: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Images [count, C, ...] on which the inputs of the network's BatchNorms have the statistics of training.

    Minimises the sum over BatchNorms of ||mean~ - mean||^2 + ||deviation~ - deviation||^2, each over the sum of its
    variances, and the same for the input (arXiv:2001.00281, which takes each image alone and weighs nothing), over
    the whole batch, from noise of natural spectrum; each step ends with values that a picture can give.
    network: not folded. Without BatchNorms the images stay what they start as (see `can_match`).
    on_step: called with steps done and steps in all. Raises NumericalError naming the BatchNorm, OptionError.
    """
    if count < 1 or iterations < 0:
        raise OptionError(f"{count} images and {iterations} iterations: give at least 1 image and 0 iterations.")
    if len(network.example) != 1:
        raise OptionError(f"The network has {len(network.example)} inputs: images can be distilled for one only.")
    channels, known = network.example[0].shape[1], len(input_statistic.mean)
    if channels != known:
        raise OptionError(
            f"The network's input has {channels} channels, the input statistic {known}: give one value per channel."
        )
    generator = torch.Generator().manual_seed(seed)
    images = natural_noise((count, *network.example[0].shape[1:]), input_statistic, generator)
    if not can_match(network):
        return images
    matching = prepare(network, input_statistic, precision)
    batches = images.split(batch_size(network, count, precision))
    steps, total = itertools.count(1), iterations * len(batches)
    report = (lambda: None) if on_step is None else (lambda: on_step(next(steps), total))
    return torch.cat([optimise(batch, matching, iterations, report) for batch in batches])


def can_match(network: Network) -> bool:
    """Whether the network has BatchNorms whose statistics images can be fitted to."""
    return len(network.norms) > 0


@dataclass(frozen=True)
class Matching:
    """All that a step needs: the part of the network up to its BatchNorms, and what is to be matched."""

    graph: fx.Graph
    tensors: Mapping[str, Tensor]
    input: str
    targets: Targets
    statistic: InputStatistic
    precision: Precision

    def loss(self, images: Tensor) -> Tensor:
        """The distance of the images' statistics from the targets."""
        return self.targets.loss(self.measure(images), len(images))

    def refuse(self, images: Tensor) -> NoReturn:
        """Name the first BatchNorm whose input holds no numbers. Raises NumericalError."""
        with torch.no_grad():
            self.targets.check(self.measure(images))
        raise NumericalError("The loss of distilled images is NaN or infinite: check the network's running statistics.")

    def measure(self, images: Tensor) -> list[Moments]:
        """Mean and variance of each BatchNorm's input, and of the images at last."""
        value = self.precision.apply(images)
        measured = replay(self.graph, self.tensors, {self.input: value})["output"]
        return [*measured, moments_by_autograd(images)]


def prepare(network: Network, statistic: InputStatistic, precision: Precision) -> Matching:
    """The network's tensors in the precision of the computation; those of BatchNorms stay in 32 bits."""
    graph = measuring_graph(network)
    of_norms = {
        str(node.target)
        for node in graph.nodes
        if node.op == "get_attr" and any(is_measured(user) for user in node.users)
    }
    used = {str(node.target) for node in graph.nodes if node.op == "get_attr"}
    tensors = {
        name: network.tensors[name] if name in of_norms else precision.apply(network.tensors[name]) for name in used
    }
    targets = make_targets(network, statistic)
    return Matching(graph, tensors, network.inputs[0], targets, statistic, precision)


def batch_size(network: Network, count: int, precision: Precision) -> int:
    """Images in one batch: all, if what the backward pass keeps fits BATCH_BYTES, else as few even parts as needed."""
    values = sum(math.prod(shape) for shape in network.shapes.values())
    fitting = max(1, int(BATCH_BYTES / (values * precision.dtype.itemsize)))
    return math.ceil(count / math.ceil(count / fitting))

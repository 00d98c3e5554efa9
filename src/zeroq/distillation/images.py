"""The optimisation of images whose statistics match."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NoReturn

import torch
from torch import Tensor, fx

from zeroq.distillation.attention import find_attention, prepare_attention
from zeroq.distillation.doubts import Trust, examine
from zeroq.distillation.measuring import (
    OF_OWN,
    Moments,
    MomentsOfAll,
    is_measured,
    measuring_graph,
    moments_by_autograd,
)
from zeroq.distillation.share import WHOLE, Share
from zeroq.distillation.starts import natural_noise
from zeroq.distillation.statistics import InputStatistic
from zeroq.distillation.steps import Objective, optimise
from zeroq.distillation.targets import Targets, make_targets
from zeroq.errors import NumericalError, OptionError
from zeroq.graph import Network, replay
from zeroq.precision import Precision
from zeroq.ranks import ALONE, Ranks

NORMS, ATTENTION, NOTHING = "batchnorm", "attention", "nothing"  # what images are made for
ATTENDED = 2  # one image of so many is made for the network's attention
FULL_PRECISION = Precision()
BATCH_BYTES = 3e9  # values that the backward pass keeps, at most


def distill(
    network: Network,
    input_statistic: InputStatistic,
    *,
    count: int = 64,
    iterations: int = 24,
    seed: int = 0,
    precision: Precision = FULL_PRECISION,
    trust: Trust | None = None,
    batch_bytes: float = BATCH_BYTES,
    ranks: Ranks = ALONE,
    on_step: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Images [count, C, ...] on which the inputs of the network's BatchNorms have the statistics of training.

    Minimises the sum over BatchNorms of ||mean~ - mean||^2 + ||deviation~ - deviation||^2, each over the sum of its
    variances, and the same for the input (arXiv:2001.00281, which takes each image alone and weighs nothing), over
    the whole batch, from noise of natural spectrum; each step ends with values that a picture can give.
    trust: which channels are matched; by default as `examine` finds.
    ranks: processes that have a part of each batch; every one of them gives all images.
    network: not folded. Without BatchNorms every second image is optimised for the network's attention instead (see
    `Attending`), and stays what it starts as where there is none: images that are all alike in what they are made for
    are worse than noise, and both kinds together better than either.
    batch_bytes: of values that the backward pass keeps; where they are more, images are made in several batches.
    on_step: called with steps done and steps in all. Raises NumericalError naming the BatchNorm, OptionError.
    """
    if count < 1 or iterations < 0:
        raise OptionError(f"{count} images and {iterations} iterations: give at least 1 image and 0 iterations.")
    if len(network.example) != 1:
        raise OptionError(
            f"The network has {len(network.example)} inputs: distill_several takes one statistic for each of them."
        )
    channels, known = network.example[0].shape[1], len(input_statistic.mean)
    if channels != known:
        raise OptionError(
            f"The network's input has {channels} channels, the input statistic {known}: give one value per channel."
        )
    generator = torch.Generator().manual_seed(seed)
    images = natural_noise((count, *network.example[0].shape[1:]), input_statistic, generator)
    images = images.to(network.example[0].device)
    guide = guide_of(network)
    if guide == NOTHING or not iterations:
        return images
    optimised = images if guide == NORMS else images[::ATTENDED]
    batches = optimised.split(batch_size(network, len(optimised), precision, batch_bytes))
    trust = trust or examine(network, input_statistic) if guide == NORMS else None
    steps, total = itertools.count(1), iterations * len(batches)
    report = (lambda: None) if on_step is None else (lambda: on_step(next(steps), total))
    found = []
    for batch in batches:
        share = Share.of(len(batch), ranks)
        objective: Objective
        if guide == NORMS:
            objective = prepare(network, input_statistic, precision, trust, share=share)
        else:
            objective = prepare_attention(network, input_statistic, precision, batch, generator, share)
        found.append(optimise(batch, objective, iterations, report, share))
    optimised.copy_(torch.cat(found))
    return images


def can_match(network: Network) -> bool:
    """Whether the network has BatchNorms whose statistics images can be fitted to."""
    return len(network.norms) > 0


def guide_of(network: Network) -> str:
    """What images can be made for: BatchNorms' statistics, in their absence the diversity of attention, or nothing."""
    if can_match(network):
        return NORMS
    return ATTENTION if find_attention(network) else NOTHING


@dataclass(frozen=True)
class Matching:
    """All that a step needs: the part of the network up to its BatchNorms, and what is to be matched."""

    graph: fx.Graph
    tensors: Mapping[str, Tensor]
    input: str
    targets: Targets
    statistic: InputStatistic
    precision: Precision
    others: Mapping[str, Tensor] = field(default_factory=dict)  # the network's further inputs, which stay as they are
    moments_of: MomentsOfAll = OF_OWN  # what the graph asks; of the batch, and of others, this process has its share

    def loss(self, images: Tensor) -> Tensor:
        """The distance of the images' statistics from the targets."""
        return self.targets.loss(self.measure(images), self.moments_of.images(images))

    def refuse(self, images: Tensor) -> NoReturn:
        """Name the first BatchNorm whose input holds no numbers. Raises NumericalError."""
        with torch.no_grad():
            self.targets.check(self.measure(images))
        raise NumericalError("The loss of distilled images is NaN or infinite: check the network's running statistics.")

    def measure(self, images: Tensor) -> list[Moments]:
        """Mean and variance of each BatchNorm's input, and of the images at last."""
        value = self.precision.apply(images)
        others = {name: self.precision.apply(other) for name, other in self.others.items()}
        measured = replay(self.graph, self.tensors, {self.input: value, **others})["output"]
        self.moments_of.find()
        return [*measured, moments_by_autograd(self.moments_of.share.whole(images))]


def prepare(
    network: Network,
    statistic: InputStatistic,
    precision: Precision,
    trust: Trust | None = None,
    index: int = 0,
    share: Share = WHOLE,
) -> Matching:
    """The network's tensors in the precision of the computation; those of BatchNorms stay in 32 bits.

    index: of the input that is to be moved.  trust: by default as `examine` finds for a network of one input.
    share: the part of the batch that this process has.
    """
    moments_of = MomentsOfAll(share)
    graph = measuring_graph(network, moments_of)
    of_norms = {
        str(node.target)
        for node in graph.nodes
        if node.op == "get_attr" and any(is_measured(user) for user in node.users)
    }
    used = {str(node.target) for node in graph.nodes if node.op == "get_attr"}
    tensors = {
        name: network.tensors[name] if name in of_norms else precision.apply(network.tensors[name]) for name in used
    }
    targets = make_targets(network, statistic, trust or examine(network, statistic), index)
    return Matching(graph, tensors, network.inputs[index], targets, statistic, precision, moments_of=moments_of)


def batch_size(network: Network, count: int, precision: Precision, batch_bytes: float = BATCH_BYTES) -> int:
    """Images in one batch: all, if what the backward pass keeps fits batch_bytes, else as few even parts as needed."""
    values = sum(math.prod(shape) for shape in network.shapes.values())
    fitting = max(1, int(batch_bytes / (values * precision.dtype.itemsize)))
    return math.ceil(count / math.ceil(count / fitting))

"""What distilled images have to match: the statistics that the network's BatchNorms remember, and the input's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from zeroq.distillation.doubts import Trust
from zeroq.distillation.measuring import Moments, pool
from zeroq.distillation.statistics import InputStatistic
from zeroq.errors import NumericalError
from zeroq.graph import Network
from zeroq.graph.network import norm_places

INPUT_EPSILON = 1e-5  # added to the input's variance, relative to its target: the root of 0 has no finite gradient


@dataclass(frozen=True)
class Targets:
    """The statistics of all matched channels in one row: BatchNorm after BatchNorm, the input's channels last.

    BatchNorms that share their running statistics (a head at several scales) are one entry: the statistics of their
    sites are averaged, as training did.
    """

    names: tuple[str, ...]  # of each entry: the BatchNorm's module path, or "the network"
    sites: tuple[tuple[int, ...], ...]  # of each entry: positions among the measured
    positions: tuple[int, ...]  # of each entry: values per image and channel
    mean: Tensor  # [channels of all]
    deviation: Tensor
    epsilon: Tensor
    weight: Tensor  # 0 where a channel is left out

    def loss(self, found: Sequence[Moments], images: int) -> Tensor:
        """Sum over channels of weight x ((mean~ - mean)^2 + (deviation~ - deviation)^2).

        found: what each BatchNorm's input has, and the network's at last. A channel of a single value (one image,
        1x1 map) has no variance.
        """
        pooled = [pool([found[site] for site in entry]) for entry in self.sites]
        used = self.weight > 0  # what is left out has no part in the gradient either, whatever it is
        mean, variance = (torch.cat([moments[part] for moments in pooled])[used] for part in (0, 1))
        varied = torch.cat(
            [
                torch.full_like(moments[0], float(images * positions > 1))
                for moments, positions in zip(pooled, self.positions, strict=True)
            ]
        )[used]
        of_mean = mean - self.mean[used]
        of_deviation = varied * (torch.sqrt(variance + self.epsilon[used]) - self.deviation[used])
        return (self.weight[used] * (of_mean**2 + of_deviation**2)).sum()

    def check(self, found: Sequence[Moments]) -> None:
        """Refuse statistics that are no numbers, with the name of the first BatchNorm that has them."""
        for name, entry in zip(self.names, self.sites, strict=True):
            if not all(bool(torch.isfinite(value).all()) for site in entry for value in found[site]):
                raise NumericalError(
                    f"The input of {name} is NaN or infinite on distilled images: check the network's weights."
                )


def make_targets(network: Network, statistic: InputStatistic, trust: Trust, index: int = 0) -> Targets:
    """What images of a network are to match, each BatchNorm as much as any other; channels not believed, not at all.

    index: of the input that the images are for.
    """
    places = norm_places(network)
    norms = [network.norms[sites[0]] for sites in places.values()]
    device = network.example[index].device
    means = [norm.mean.float() for norm in norms] + [torch.tensor(statistic.mean, device=device)]
    variances = [norm.variance.float() for norm in norms] + [torch.tensor(statistic.deviation, device=device) ** 2]
    epsilons = [torch.full_like(norm.mean.float(), norm.epsilon) for norm in norms] + [INPUT_EPSILON * variances[-1]]
    believed = [trust.believed[name] for name in places] + [torch.ones_like(means[-1], dtype=torch.bool)]
    epsilon = torch.cat(epsilons)
    sides = [network.shapes[norm.input] for norm in norms] + [tuple(network.example[index].shape[1:])]
    return Targets(
        names=(*places, "the network"),
        sites=(*(tuple(sites) for sites in places.values()), (len(network.norms),)),
        positions=tuple(math.prod(shape[1:]) for shape in sides),
        mean=torch.nan_to_num(torch.cat(means), 0, 0, 0),
        deviation=torch.sqrt(torch.nan_to_num(torch.cat(variances), 0, 0, 0).clamp(min=0) + epsilon),
        epsilon=epsilon,
        weight=torch.cat([weights_of(*rows) for rows in zip(variances, believed, strict=True)]),
    )


def weights_of(variance: Tensor, believed: Tensor) -> Tensor:
    """Weight of each of one BatchNorm's channels [channels]: 1 / sum of its variances, 0 where it is not believed.

    The paper weighs all channels of all BatchNorms alike, so that those of large values drown the others: ResNet18
    (64 px, 36 steps) was left with a mean error of 0.19 in the logarithm of its layers' largest inputs, and of 0.10
    by these weights.
    """
    if not believed.any():
        return torch.zeros_like(variance)
    return believed / variance[believed].sum()

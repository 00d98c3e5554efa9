"""What distilled images have to match: the statistics that the network's BatchNorms remember, and the input's."""

from __future__ import annotations

import copy
import math
import operator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from zeroq.errors import NumericalError
from zeroq.graph.network import Network, Norm
from zeroq.preprocessing import Preprocessing

NATURAL_MEAN, NATURAL_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # RGB of photographs, 0..1 (ImageNet)
LUMINANCE_MEAN, LUMINANCE_DEVIATION = 0.459, 0.226  # 0.299 R + 0.587 G + 0.114 B of them
DEAD = 1e-6  # variance of a channel, relative to its BatchNorm's median, below which it carries nothing
EXTREME = 1e6  # the same, beyond which the statistic is taken for broken


@dataclass(frozen=True)
class InputStatistic:
    """Mean and deviation of the network's input per channel, and the least and the greatest value a picture can give.

    All in the network's input space, that is after normalisation.
    """

    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]

    def __post_init__(self) -> None:
        if not len(self.mean) == len(self.deviation) == len(self.low) == len(self.high):
            raise ValueError("mean, deviation, low and high must have one entry per channel")
        if not all(math.isfinite(value) for value in (*self.mean, *self.deviation, *self.low, *self.high)):
            raise NumericalError("The input statistic holds NaN or infinity: check the preprocessing's mean and std.")
        if min(self.deviation) <= 0 or any(low >= high for low, high in zip(self.low, self.high, strict=True)):
            raise ValueError("deviation must be positive and low below high")


def natural_statistic(
    preprocessing: Preprocessing,
    input_mean: tuple[float, ...] | None = None,
    input_std: tuple[float, ...] | None = None,
) -> InputStatistic:
    """The statistic of natural pictures, or of pixels in 0..1 as given, carried through the model's normalisation.

    Other than three channels are taken for grey ones.
    """
    count = len(preprocessing.mean)
    colour = slice(None, None, -1 if preprocessing.channels == "BGR" else 1)
    natural_mean = NATURAL_MEAN[colour] if count == 3 else (LUMINANCE_MEAN,) * count
    natural_deviation = NATURAL_DEVIATION[colour] if count == 3 else (LUMINANCE_DEVIATION,) * count

    def carried(values: tuple[float, ...]) -> tuple[float, ...]:
        rows = zip(values, preprocessing.mean, preprocessing.std, strict=True)
        return tuple((value - mean) / std for value, mean, std in rows)

    deviation = zip(input_std or natural_deviation, preprocessing.std, strict=True)
    return InputStatistic(
        mean=carried(input_mean or natural_mean),
        deviation=tuple(value / std for value, std in deviation),
        low=carried((0.0,) * count),
        high=carried((1.0,) * count),
    )


class NormaliseAndMeasure(torch.autograd.Function):
    """BatchNorm with stored statistics, which also gives the mean and biased variance of its input per channel.

    One backward pass serves both: with n values a channel,
    dx = gain dy + dmean / n + 2 dvariance (x - mean) / n.
    """

    @staticmethod
    def forward(
        context: Any,
        value: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        mean: Tensor,
        variance: Tensor,
        epsilon: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """value: [N, C, ...] -> the same normalised, [C], [C] in 32 bits."""
        normalised = torch.nn.functional.batch_norm(value, mean, variance, weight, bias, False, 0.0, epsilon)
        found_mean, found_variance = moments(value)
        gain = torch.rsqrt(variance + epsilon) * (1.0 if weight is None else weight)
        context.save_for_backward(value, found_mean, gain)
        context.set_materialize_grads(False)
        return normalised, found_mean, found_variance

    @staticmethod
    def backward(context: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        """Gradients of the three results -> gradient of the value; stored tensors get none."""
        of_normalised, of_mean, of_variance = gradients
        value, mean, gain = context.saved_tensors
        count = value.numel() // value.shape[1]
        slope = torch.zeros_like(mean) if of_variance is None else 2 * of_variance / count
        offset = (0.0 if of_mean is None else of_mean / count) - slope * mean
        result = torch.addcmul(along(offset, value), along(slope, value), value)
        if of_normalised is not None:
            result = result.addcmul_(along(gain, value), of_normalised)
        return result, None, None, None, None, None


def moments(value: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance over everything but axis 1, in 32 bits: [N, C, ...] -> [C], [C].

    By the kernel of BatchNorm's own training, 3 to 15 times faster than torch.var_mean in channels-last layout on a
    CPU; the running statistics that it would update are there for their type, which is that of the result.
    """
    unused = torch.zeros(value.shape[1], device=value.device)
    mean, variance = torch.batch_norm_update_stats(value, unused, unused.clone(), 0.0)
    return mean, variance


def moments_by_autograd(value: Tensor) -> tuple[Tensor, Tensor]:
    """The same for a small value, differentiable."""
    variance, mean = torch.var_mean(value, [axis for axis in range(value.dim()) if axis != 1], correction=0)
    return mean, variance


def along(vector: Tensor, value: Tensor) -> Tensor:
    """A vector per channel in the shape that multiplies a value [N, C, ...], and in its type."""
    return vector.to(value.dtype).reshape(1, -1, *[1] * (value.dim() - 2))


def normalise_and_measure(value: Tensor, weight: Any, bias: Any, mean: Tensor, variance: Tensor, *rest: Any) -> Any:
    """The stand-in for aten.batch_norm, with its arguments: normalised value, mean and variance of the input."""
    return NormaliseAndMeasure.apply(value, weight, bias, mean, variance, rest[2])


def is_measured(node: fx.Node) -> bool:
    """Whether a node is such a stand-in."""
    return node.target is normalise_and_measure


def measuring_graph(network: Network, norms: tuple[Norm, ...]) -> fx.Graph:
    """The part of the network that these BatchNorms need, with the statistics of their inputs as its output.

    Output: per BatchNorm a pair (mean, variance). The graph reads the network's own tensors.
    """
    graph = copy.deepcopy(network.graph)
    nodes = {node.name: node for node in graph.nodes}
    pairs = []
    for norm in norms:
        node = nodes[norm.node]
        node.target = normalise_and_measure
        with graph.inserting_after(node):
            parts = [graph.call_function(operator.getitem, (node, index)) for index in range(3)]
        node.replace_all_uses_with(parts[0], delete_user_cb=lambda user, parts=parts: user not in parts)
        pairs.append((parts[1], parts[2]))
    output = next(node for node in graph.nodes if node.op == "output")
    output.args = (tuple(pairs),)
    graph.eliminate_dead_code()
    return graph


@dataclass(frozen=True)
class Targets:
    """The statistics of all matched channels in one row, BatchNorm after BatchNorm, the input's channels last.

    BatchNorms that share their running statistics (a head at several scales) are one entry: their sites' means are
    averaged, as training did.
    """

    names: tuple[str, ...]  # of each entry: the BatchNorm's module path, "input"
    sites: tuple[tuple[int, ...], ...]  # of each entry: positions of its BatchNorms among the measured
    positions: tuple[int, ...]  # of each entry: values per image and channel
    mean: Tensor  # [channels of all]
    deviation: Tensor
    epsilon: Tensor
    weight: Tensor  # 0 where a channel is left out

    def loss(self, found: list[tuple[Tensor, Tensor]], images: int) -> Tensor:
        """Sum over channels of weight x ((mean~ - mean)^2 + (deviation~ - deviation)^2).

        found: mean and biased variance of each BatchNorm's input, then of the network's. A channel of a single value
        (one image, 1x1 map) has no variance.
        """
        pooled = [
            tuple(sum(found[site][part] for site in entry) / len(entry) for part in (0, 1)) for entry in self.sites
        ]
        mean, variance = (torch.cat([pair[part] for pair in pooled]) for part in (0, 1))
        varied = torch.cat(
            [torch.full_like(pair[0], float(images * n > 1)) for pair, n in zip(pooled, self.positions, strict=True)]
        )
        of_deviation = torch.sqrt(variance + self.epsilon) - self.deviation
        return (self.weight * ((mean - self.mean) ** 2 + varied * of_deviation**2)).sum()

    def check(self, found: list[tuple[Tensor, Tensor]]) -> None:
        """Refuse statistics that are no numbers, with the name of the first BatchNorm that has them."""
        for name, entry in zip(self.names, self.sites, strict=True):
            if not all(torch.isfinite(value).all() for site in entry for value in found[site]):
                raise NumericalError(
                    f"The input of {name} is NaN or infinite on distilled images: check the network's weights."
                )


def make_targets(network: Network, norms: tuple[Norm, ...], statistic: InputStatistic) -> Targets:
    """What images of a network are to match; channels whose running variance is broken or nothing get no weight."""
    groups: dict[str, list[int]] = {}
    for index, norm in enumerate(norms):
        groups.setdefault(statistics_name(network, norm), []).append(index)
    first = [norms[entry[0]] for entry in groups.values()]
    like = torch.tensor
    mean = [norm.mean.float() for norm in first] + [like(statistic.mean)]
    variance = [norm.variance.float() for norm in first] + [like(statistic.deviation) ** 2]
    epsilon = [torch.full_like(norm.mean, norm.epsilon) for norm in first] + [torch.zeros(len(statistic.mean))]
    return Targets(
        names=(*groups, "the network"),
        sites=(*(tuple(entry) for entry in groups.values()), (len(norms),)),
        positions=(
            *(math.prod(network.shapes[norm.input][1:]) for norm in first),
            math.prod(network.example[0].shape[2:]),
        ),
        mean=torch.cat([torch.nan_to_num(value, 0, 0, 0) for value in mean]),
        deviation=torch.sqrt(
            torch.cat([torch.nan_to_num(value, 0, 0, 0).clamp(min=0) for value in variance]) + torch.cat(epsilon)
        ),
        epsilon=torch.cat(epsilon),
        weight=torch.cat([weights_of(m, v) for m, v in zip(mean, variance, strict=True)]),
    )


def weights_of(mean: Tensor, variance: Tensor) -> Tensor:
    """1 for each channel [channels], 0 where the running statistics are no numbers, dead or beyond reason."""
    typical = variance[torch.isfinite(variance)].median() if torch.isfinite(variance).any() else torch.tensor(0.0)
    sound = (
        torch.isfinite(mean) & torch.isfinite(variance) & (variance > DEAD * typical) & (variance <= EXTREME * typical)
    )
    return sound.float()


def statistics_name(network: Network, norm: Norm) -> str:
    """The module path of a BatchNorm; those that share their statistics share it."""
    return str(network.node(norm.node).args[3].target).removesuffix(".running_mean")  # type: ignore[union-attr]

"""In which units a network's input comes, where nothing says it: as the BatchNorm behind the first layer knows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from zeroq.distillation.neutral import around
from zeroq.distillation.starts import column, start
from zeroq.distillation.statistics import InputStatistic
from zeroq.graph import Network, replay
from zeroq.graph.network import CONVOLUTIONS, LINEAR, Norm, norm_name

IMAGES = 16  # of natural spectrum, whose values behind the first layer are compared
FEWEST_VALUES = 32  # of an example, that say something of an input
OTHERWISE = 3.0  # times as large or as small a deviation as is taken for granted: no spectrum of inputs explains it
BROKEN = 1e3  # a channel's mean so many times as large as the others' says nothing, and would outweigh all of them
RANK = 1e-3  # singular values below so much of the largest say nothing of the input's mean


@dataclass(frozen=True)
class Units:
    """An input's statistic as something knows it, and how many times its deviation is that which was taken."""

    statistic: InputStatistic
    times: float
    source: str  # in words: the BatchNorm, or the example
    taken: InputStatistic

    @property
    def other(self) -> bool:
        """Whether it is beyond what inputs of one kind differ by."""
        own, taken = self.statistic, self.taken
        moved = sum(abs(one - other) for one, other in zip(own.mean, taken.mean, strict=True))
        return not 1 / OTHERWISE <= self.times <= OTHERWISE or moved > OTHERWISE * sum(own.deviation)


def units_of(network: Network, index: int, taken: InputStatistic) -> Units | None:
    """What is known of an input: by the first BatchNorm behind one layer that reads it, else by a float example.

    The mean of what a layer gives is its weight times the input's mean: least squares over its channels find that. The
    variance of what it gives is that of its borders, where zeros meet this mean, and the rest grows with the input's.
    index: of the input.  taken: what it is taken for.  None where nothing says anything.
    """
    norm = norm_behind(network, network.inputs[index])
    if norm is None:
        return None if network.norms else by_example(network.example[index], taken)
    size = (norm.mean.double().square() + norm.variance.double()).sqrt().nanmedian()
    sound = torch.isfinite(norm.mean) & torch.isfinite(norm.variance) & (norm.variance > norm.epsilon)
    sound &= norm.mean.abs() <= BROKEN * size
    unmeasured = bool((norm.mean == 0).all() and (norm.variance == 1).all())
    if unmeasured or not sound.any():
        return None
    mean = mean_in_front(network, norm, sound, taken)
    still, moving = (
        variance_of(network, index, norm, means, deviations, taken.picture)[sound]
        for means, deviations in ((mean, (0.0,) * len(mean)), ((0.0,) * len(mean), taken.deviation))
    )
    squares = (norm.variance[sound].double() - still) / moving.clamp(min=1e-30)
    times = math.sqrt(max(float(squares.median()), 0.0))
    if not times:
        return None
    deviations = tuple(times * each for each in taken.deviation)
    return Units(around(mean, deviations, taken.picture), times, f"the BatchNorm {norm_name(network, norm)}", taken)


def norm_behind(network: Network, name: str) -> Norm | None:
    """The first BatchNorm that reads what a layer makes of an input."""
    return next((norm for norm in network.norms if reads(layer_in_front(network, norm), name)), None)


def layer_in_front(network: Network, norm: Norm) -> fx.Node:
    """The node whose value a BatchNorm reads."""
    return network.node(norm.input)


def reads(node: fx.Node, name: str) -> bool:
    """Whether a node is a layer with one group of channels that reads an input, padded perhaps."""
    if node.target not in CONVOLUTIONS | {LINEAR} or node.args[1].op != "get_attr":  # type: ignore[union-attr]
        return False
    groups = node.args[6] if node.target != LINEAR and len(node.args) > 6 else 1
    source: Any = node.args[0]
    while source.target == torch.ops.aten.pad.default:
        source = source.args[0]
    return bool(groups == 1 and source.name == name)


def mean_in_front(network: Network, norm: Norm, sound: Tensor, taken: InputStatistic) -> tuple[float, ...]:
    """The input's mean by channel, where the layer has as many channels that tell it; else as it is taken."""
    node = layer_in_front(network, norm)
    weight = network.tensors[str(node.args[1].target)].double()  # type: ignore[union-attr]
    bias = node.args[2] if len(node.args) > 2 else None
    wanted = norm.mean.double() - (0 if bias is None else network.tensors[str(bias.target)].double())  # type: ignore[union-attr]
    sums = weight.flatten(2).sum(2) if weight.dim() > 2 else weight
    if sums.shape[1] != len(taken.mean) or int(sound.sum()) < sums.shape[1]:
        return taken.mean
    found: Tensor = torch.linalg.pinv(sums[sound], rtol=RANK) @ wanted[sound]
    return tuple(found.tolist())


def variance_of(
    network: Network, index: int, norm: Norm, mean: tuple[float, ...], deviation: tuple[float, ...], picture: bool
) -> Tensor:
    """Of each channel that a BatchNorm reads, float64, on noise of natural spectrum; deviation 0: on the mean alone."""
    inputs = [value[:1].expand(IMAGES, *value.shape[1:]) for value in network.example]
    if any(deviation):
        generator = torch.Generator().manual_seed(0)
        inputs[index] = start(network.example[index], around(mean, deviation, picture), IMAGES, generator)
    else:
        inputs[index] = torch.zeros_like(inputs[index]) + column(mean, inputs[index])
    seen: dict[str, Tensor] = {}

    def note(node: fx.Node, value: Tensor) -> None:
        if node.name == norm.input:
            seen[node.name] = value

    with torch.no_grad():
        replay(network.graph, network.tensors, network.feed(inputs), visit=note, until=norm.input)
    value = seen[norm.input].double()
    return value.var([axis for axis in range(value.dim()) if axis != 1], correction=0)


def by_example(value: Tensor, taken: InputStatistic) -> Units | None:
    """Mean and deviation of all numbers of an example, or None where it holds too few or is constant."""
    if not value.is_floating_point() or value[:1].numel() < FEWEST_VALUES or taken.picture:
        return None
    own = value[:1].double()
    deviation = float(own.std(correction=0))
    if not deviation > 0 or not math.isfinite(deviation):
        return None
    channels = len(taken.mean)
    statistic = around((float(own.mean()),) * channels, (deviation,) * channels, taken.picture)
    return Units(statistic, deviation / (sum(taken.deviation) / channels), "the example", taken)

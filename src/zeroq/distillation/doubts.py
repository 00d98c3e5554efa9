"""Which running statistics of BatchNorms can be believed: broken ones, and ones that the network itself contradicts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from zeroq.distillation.measuring import Moments, measuring_graph, pool
from zeroq.distillation.starts import start
from zeroq.distillation.statistics import InputStatistic
from zeroq.graph import Network, replay
from zeroq.graph.network import norm_places

IMAGES = 16  # of natural spectrum, that the statistics are compared on
DEAD = 1e-4  # variance of a channel, relative to epsilon, below which its BatchNorm gives a constant
EXTREME = 1e6  # variance relative to the BatchNorm's median, beyond which it is taken for broken; the same of means
SPREADS = 5.0  # of the other channels' discrepancies, beyond which one is not believed
LEAST_RATIO = 0.6  # logarithm of a deviation over the one that is measured, and
LEAST_SHIFT = 1.0  # difference of means in deviations, that are believed in any case
FEWEST = 6  # channels that can tell which of them differ from the others
BY_CHANCE = 0.03  # share of all channels that the network contradicts without distortion: 0.024 at most of 14 networks
COUNTER = ".num_batches_tracked"
AGAIN = "; zeroq restatistic measures them again on pictures of yours."
FEW_BATCHES = 30  # 0.9^30 = 4 % of a running statistic are still what it began with, at torch's momentum
NAMED = 5  # BatchNorms named in a warning before it says how many more there are


@dataclass(frozen=True)
class Doubt:
    """Channels of one BatchNorm that nothing is matched to, and why."""

    norm: str  # the module's path
    kind: str  # one of KINDS
    channels: tuple[int, ...]
    of: int  # channels in all


KINDS = {  # kind -> what a person reads of its channels
    "dead": "have a running variance of 0, or nearly: they give a constant",
    "extreme": "have a running mean or variance that is infinite or a million times that of the others",
    "unmeasured": "have the mean 0 and the variance 1 that BatchNorms start with: their statistics were never measured",
    "inconsistent": "have running statistics that the network contradicts on pictures of natural spectrum",
}


@dataclass(frozen=True)
class Trust:
    """What is believed of each BatchNorm, by the path of its module: bool [channels]; and every doubt."""

    believed: Mapping[str, Tensor]
    doubts: tuple[Doubt, ...]

    @property
    def doubted(self) -> frozenset[str]:
        """Paths of BatchNorms that say nothing certain of values; of dead channels they do."""
        return frozenset(doubt.norm for doubt in self.doubts if doubt.kind != "dead")

    def to(self, device: torch.device) -> Trust:
        """The same on a device."""
        return Trust({name: channels.to(device) for name, channels in self.believed.items()}, self.doubts)


def examine(network: Network, statistics: InputStatistic | Sequence[InputStatistic], seed: int = 0) -> Trust:
    """Compare the running statistics of a network with those of pictures of natural spectrum, and with one another.

    BatchNorms keep what training saw, and the network's function does not depend on it where weight and bias make up
    for it. Noise of natural spectrum has other statistics than pictures, but its channels differ from pictures' alike:
    on MobileNetV2 half of a BatchNorm's channels are within 15 % of their common ratio of deviations. A channel far
    outside of what the others do is not believed.
    statistics: of the input, or of each of several.
    """
    generator = torch.Generator().manual_seed(seed)
    each = (statistics,) if isinstance(statistics, InputStatistic) else statistics
    inputs = [start(value, one, IMAGES, generator) for value, one in zip(network.example, each, strict=True)]
    with torch.no_grad():
        measured = replay(measuring_graph(network), network.tensors, network.feed(inputs))["output"]
    believed: dict[str, Tensor] = {}
    doubts: list[Doubt] = []
    for name, sites in norm_places(network).items():
        norm = network.norms[sites[0]]
        kinds = doubtful(norm.mean.float(), norm.variance.float(), norm.epsilon, pool([measured[i] for i in sites]))
        believed[name] = ~torch.stack(list(kinds.values())).any(0)
        doubts += named(name, kinds)
    return Trust(believed, tuple(doubts))


def doubtful(mean: Tensor, variance: Tensor, epsilon: float, measured: Moments) -> dict[str, Tensor]:
    """Which channels are doubted, bool [channels] by kind; a channel has one kind at most."""
    dead = variance <= DEAD * epsilon
    alive = torch.isfinite(mean) & torch.isfinite(variance) & ~dead
    typical = variance[alive].median() if alive.any() else variance.new_tensor(1.0)
    sound = alive & (variance <= EXTREME * typical) & (mean.abs() <= EXTREME * typical.sqrt())
    unmeasured = torch.full_like(dead, bool(len(mean) > 1 and (mean == 0).all() and (variance == 1).all()))
    inconsistent = torch.zeros_like(dead)
    compared = sound & torch.isfinite(measured[0]) & (measured[1] > DEAD * epsilon)
    if compared.sum() >= FEWEST and not unmeasured.any():
        inconsistent[compared] = outside(
            *(value[compared] for value in (mean, variance + epsilon, measured[0], measured[1] + epsilon))
        )
    return {"dead": dead, "extreme": ~sound & ~dead, "unmeasured": unmeasured, "inconsistent": inconsistent}


def outside(mean: Tensor, variance: Tensor, found_mean: Tensor, found_variance: Tensor) -> Tensor:
    """Which channels differ from what is found by far more than the others do, bool [channels].

    Spread: the median distance from the median, times 1.48, which is the deviation of a normal distribution.
    """
    ratio = 0.5 * torch.log(found_variance / variance)
    ratio = ratio - ratio.median()
    shift = (found_mean - mean) / torch.maximum(variance, found_variance).sqrt()
    spreads = [1.48 * each.abs().median().item() for each in (ratio, shift)]
    limits = [max(least, SPREADS * spread) for least, spread in zip((LEAST_RATIO, LEAST_SHIFT), spreads, strict=True)]
    return (ratio.abs() > limits[0]) | (shift.abs() > limits[1])


def named(name: str, kinds: Mapping[str, Tensor]) -> Iterator[Doubt]:
    """The doubts of one BatchNorm."""
    for kind, channels in kinds.items():
        if channels.any():
            yield Doubt(name, kind, tuple(channels.nonzero().flatten().tolist()), len(channels))


def warnings_of(trust: Trust) -> list[str]:
    """One sentence for each kind of doubt; for few contradictions none, as some channels always stand out."""
    channels = sum(len(believed) for believed in trust.believed.values())
    found = []
    for kind, meaning in KINDS.items():
        doubts = sorted((doubt for doubt in trust.doubts if doubt.kind == kind), key=lambda doubt: -len(doubt.channels))
        count = sum(len(doubt.channels) for doubt in doubts)
        if count > (BY_CHANCE * channels if kind == "inconsistent" else 0):
            places = [f"{len(doubt.channels)} of {doubt.of} in {doubt.norm}" for doubt in doubts]
            more = f" and {len(places) - NAMED} BatchNorms more" if len(places) > NAMED else ""
            found.append(
                f"{count} of {channels} BatchNorm channels {meaning}; images are not matched to them "
                f"({', '.join(places[:NAMED])}{more})."
            )
    return found


def few_batches(tensors: Mapping[str, Tensor], *, measurable: bool = True) -> list[str]:
    """A sentence if BatchNorms say that they saw few batches: their statistics still hold part of what they began with.

    tensors: the module's state_dict. A counter of 0 is one that was not stored, as in many converted networks.
    measurable: whether `zeroq restatistic` takes the network.
    """
    seen = {name.removesuffix(COUNTER): int(value) for name, value in tensors.items() if name.endswith(COUNTER)}
    few = {name: count for name, count in seen.items() if 0 < count < FEW_BATCHES}
    if not few:
        return []
    name, count = min(few.items(), key=lambda item: item[1])
    return [
        f"{len(few)} of {len(seen)} BatchNorms saw fewer than {FEW_BATCHES} batches of training ({name}: {count}): "
        f"their running statistics are rough{AGAIN if measurable else '.'}"
    ]

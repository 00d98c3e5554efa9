"""BatchNorm statistics measured anew on unlabelled pictures, batch by batch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from zeroq.errors import DataError
from zeroq.graph import Network, replay
from zeroq.graph.network import norm_places


@dataclass(frozen=True)
class Moments:
    """Count, mean [C] and sum of squared distances from it [C] of values per channel, in 64 bits."""

    count: int
    mean: Tensor
    squares: Tensor

    @classmethod
    def of(cls, value: Tensor) -> Moments:
        """Of a value [N, C, ...] over everything but axis 1."""
        variance, mean = torch.var_mean(
            value.double(), [axis for axis in range(value.dim()) if axis != 1], correction=0
        )
        count = value.numel() // value.shape[1]
        return cls(count, mean, variance * count)

    def merged(self, other: Moments) -> Moments:
        """Of both sets of values together (Chan, Golub and LeVeque 1979): exact, whatever their sizes."""
        count, distance = self.count + other.count, other.mean - self.mean
        mean = self.mean + distance * (other.count / count)
        return Moments(count, mean, self.squares + other.squares + distance**2 * (self.count * other.count / count))

    @property
    def variance(self) -> Tensor:
        """As BatchNorm stores it, that is over count - 1."""
        return self.squares / (self.count - 1)


def measure_statistics(network: Network, batches: Iterable[Tensor]) -> dict[str, Tensor]:
    """New running means and variances, by the names of the tensors that held the old ones.

    Of the values [N, C, ...] that reach each BatchNorm, over all batches, while every BatchNorm normalises by the batch
    itself, as in training. One that runs at several places has the mean of their means and variances, as training has.
    batches: float32 [n, C, H, W].  network: not folded.  Raises DataError where a channel has a single value in all.
    """
    found: dict[str, Moments] = {}
    for batch in batches:
        with torch.inference_mode():
            measure_batch(network, batch, found)
    result: dict[str, Tensor] = {}
    for places in norm_places(network).values():
        sites = [network.norms[place].node for place in places]
        moments = [found[site] for site in sites]
        if min(each.count for each in moments) < 2:
            raise DataError("A single picture has no variance: give more, better some hundred.")
        mean: Any = network.node(sites[0]).args[3]
        variance: Any = network.node(sites[0]).args[4]
        result[str(mean.target)] = torch.stack([each.mean for each in moments]).mean(0).float()
        result[str(variance.target)] = torch.stack([each.variance for each in moments]).mean(0).float()
    return result


def measure_batch(network: Network, batch: Tensor, found: dict[str, Moments]) -> None:
    """Merge what one batch has into what was found, by the BatchNorm's node."""
    norms = {norm.node: norm for norm in network.norms}
    readers = Counter(norm.input for norm in network.norms)
    values: dict[str, Tensor] = {}  # that a BatchNorm is still to read

    def visit(node: fx.Node, value: Any) -> Any:
        if node.name in norms:
            norm = norms[node.name]
            readers[norm.input] -= 1
            read = values[norm.input] if readers[norm.input] else values.pop(norm.input)
            moments = Moments.of(read)
            found[node.name] = found[node.name].merged(moments) if node.name in found else moments
            value = normalised_by_batch(network, node, read, norm.epsilon)
        if node.name in readers:
            values[node.name] = value
        return value

    replay(network.graph, network.tensors, {network.inputs[0]: batch}, visit=visit)


def normalised_by_batch(network: Network, node: fx.Node, value: Tensor, epsilon: float) -> Tensor:
    """What a BatchNorm in training gives."""
    weight, bias = (
        network.tensors[str(argument.target)] if isinstance(argument, fx.Node) else None for argument in node.args[1:3]
    )
    return torch.batch_norm(value, weight, bias, None, None, True, 0.0, epsilon, False)

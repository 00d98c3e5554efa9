"""What images are optimised for where a network has attention and no BatchNorm that remembers a statistic."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from torch import Tensor, fx

from zeroq.distillation.mixtures import mixtures, patch_places
from zeroq.distillation.share import WHOLE, Share
from zeroq.distillation.starts import column
from zeroq.distillation.statistics import InputStatistic
from zeroq.errors import NumericalError
from zeroq.graph import Network, replay
from zeroq.precision import Precision

aten = torch.ops.aten
PRODUCTS = {aten.matmul.default, aten.bmm.default}
HANDED_ON = {aten.reshape.default, aten.expand.default}  # between a softmax and the product that it weighs
POINTS, WIDTH = 33, 0.1  # of the similarities' density over [-1, 1]: where it is taken, deviation of its kernel
MOST_PATCHES, MOST_MAPS = 64, 256  # of an attention's output whose similarities are taken, evenly spread
# Weights of the loss's parts. vit_cifar10 with its activations at 8 bits, 400 of the even places of its test images,
# ranges from 48 images of two seeds, 12 steps: divergence 0.0021 and 0.0017 on noise, 0.0011 and 0.0009 with
# 1, 0.3, 0.1, 1; without diversity 0.0020 and 0.0017; attention at 0 0.0009 and 0.0008, at 1 0.0013 and 0.0011;
# variation at 0.5 0.0010 and 0.0008. Real pictures 0.0006; all images optimised, none left as noise, 0.017.
DIVERSITY, ATTENTION, VARIATION, INPUT = 1.0, 0.1, 0.3, 1.0


@dataclass(frozen=True)
class Attention:
    """The softmax [..., queries, keys] and the product with the values, [..., queries, width]."""

    shares: str
    mixed: str


def find_attention(network: Network) -> tuple[Attention, ...]:
    """Products of two computed values whose left one is a softmax over its last axis, in order of execution.

    Both have queries and keys behind the images: a softmax over classes that weighs numbers is no attention.
    """
    found = []
    for node in network.graph.nodes:
        if node.target not in PRODUCTS or node.args[1].op == "get_attr":
            continue
        left: Any = node.args[0]
        while left.target in HANDED_ON:
            left = left.args[0]
        axes, mixed = (len(network.shapes.get(name, ())) + 1 for name in (left.name, node.name))
        if left.target == aten.softmax.int and left.args[1] % axes == axes - 1 and min(axes, mixed) > 2:
            found.append(Attention(left.name, node.name))
    return tuple(found)


@dataclass(frozen=True)
class Attending:
    """Images whose patches are unlike one another to the network, as those of pictures are and those of noise are not.

    The sum of four parts, each at least 0: for each attention layer's output, how far the density of the cosine
    similarities between its patches is from an even one (PSAQ-ViT, arXiv:2203.02250: the entropy of a kernel density);
    how far the mean attention that each patch gets in each head is from a random mixture of Gaussians (SARDFQ), as
    sum p log(p / q) where that work takes the squared error; the images' total variation; and the distance of their
    mean and deviation per channel from the input's statistic.
    """

    network: Network
    tensors: Mapping[str, Tensor]  # in the precision of the computation
    sites: tuple[Attention, ...]
    wanted: Mapping[str, Tensor]  # by softmax: shares of the patches, [images x heads, patches]
    statistic: InputStatistic
    precision: Precision
    share: Share = WHOLE  # the part of the batch that this process is given

    def loss(self, images: Tensor) -> Tensor:
        """A number for images [N, C, ...]."""
        own = values_of(self.network, self.tensors, self.sites, self.precision.apply(images))
        values = {name: self.share.whole(value) for name, value in own.items()}
        images = self.share.whole(images)
        diversity = [unevenness(patches_of(values[site.mixed].float())) for site in self.sites]
        attention = [distance(received(values[site.shares].float()), self.wanted[site.shares]) for site in self.sites]
        return (
            DIVERSITY * torch.stack(diversity).mean()
            + ATTENTION * torch.stack(attention).mean()
            + VARIATION * total_variation(images, self.statistic)
            + INPUT * input_distance(images, self.statistic)
        )

    def refuse(self, images: Tensor) -> NoReturn:
        """Name the first attention layer that gives no numbers. Raises NumericalError."""
        with torch.no_grad():
            values = values_of(self.network, self.tensors, self.sites, self.precision.apply(images))
        wrong = [site.mixed for site in self.sites if not bool(values[site.mixed].isfinite().all())]
        named = f"The attention {wrong[0]!r}" if wrong else "The loss of distilled images"
        raise NumericalError(f"{named} is NaN or infinite on distilled images: check the network's weights.")


def prepare_attention(
    network: Network,
    statistic: InputStatistic,
    precision: Precision,
    images: Tensor,
    generator: torch.Generator,
    share: Share = WHOLE,
) -> Attending:
    """The objective for as many images [N, C, ...], with a random mixture for each, in each layer and head.

    share: the part of these images that this process has.
    """
    used = {str(node.target) for node in network.graph.nodes if node.op == "get_attr"}
    tensors = {name: precision.apply(network.tensors[name]) for name in used}
    sites = find_attention(network)
    with torch.no_grad():
        values = values_of(network, tensors, sites, precision.apply(images))
    wanted = {}
    for site in sites:
        *leading, _, keys = values[site.shares].shape
        wanted[site.shares] = mixtures(math.prod(leading), keys, generator).to(images.device)
    return Attending(network, tensors, sites, wanted, statistic, precision, share)


def values_of(
    network: Network, tensors: Mapping[str, Tensor], sites: tuple[Attention, ...], images: Tensor
) -> dict[str, Tensor]:
    """What the softmaxes and products give, by name."""
    names = {name for site in sites for name in (site.shares, site.mixed)}
    found: dict[str, Tensor] = {}

    def note(node: fx.Node, value: Any) -> None:
        if node.name in names:
            found[node.name] = value

    replay(network.graph, tensors, {network.inputs[0]: images}, until=sites[-1].mixed, visit=note)
    return found


def patches_of(mixed: Tensor) -> Tensor:
    """An attention's output [N, heads, patches, width], heads side by side, as [N, patches, features].

    Where attention is in windows, N counts those of all images.
    """
    merged = mixed.transpose(1, 2).flatten(2) if mixed.dim() == 4 else mixed.flatten(0, -3)
    return merged[:: math.ceil(len(merged) / MOST_MAPS), :: math.ceil(merged.shape[1] / MOST_PATCHES)]


def unevenness(patches: Tensor) -> Tensor:
    """log(points) - entropy of the density of cosine similarities between patches [N, patches, features], mean over N.

    The density is that of a Gaussian kernel at POINTS places over [-1, 1], made to sum to 1; 0 would be an even one.
    """
    directions = torch.nn.functional.normalize(patches, dim=-1)
    first, second = torch.triu_indices(patches.shape[1], patches.shape[1], 1, device=patches.device)
    similarities = (directions @ directions.transpose(1, 2))[:, first, second]  # [N, pairs]
    points = torch.linspace(-1, 1, POINTS, device=patches.device)
    density = torch.exp(-0.5 * ((similarities[:, :, None] - points) / WIDTH).square()).sum(1) + 1e-12
    shares = density / density.sum(1, keepdim=True)
    return (math.log(POINTS) + (shares * shares.log()).sum(1)).mean()


def received(shares: Tensor) -> Tensor:
    """The part of all attention [..., queries, keys] that each patch gets, [all leading, patches], sums of 1."""
    mean = shares.mean(-2).flatten(0, -2)
    patches = mean[:, -len(patch_places(mean.shape[1])) :] + 1e-12
    return patches / patches.sum(1, keepdim=True)


def distance(found: Tensor, wanted: Tensor) -> Tensor:
    """sum wanted log(wanted / found) over patches, mean over rows."""
    return (wanted * (wanted / found).log()).sum(1).mean()


def total_variation(images: Tensor, statistic: InputStatistic) -> Tensor:
    """Mean difference of neighbouring values of images [N, C, ...] in deviations of the input, summed over axes."""
    scaled = images / column(statistic.deviation, images)
    steps = [scaled.diff(dim=axis).abs().mean() for axis in range(2, images.dim()) if images.shape[axis] > 1]
    return torch.stack(steps).sum() if steps else images.sum() * 0


def input_distance(images: Tensor, statistic: InputStatistic) -> Tensor:
    """((mean~ - mean)^2 + (deviation~ - deviation)^2) / deviation^2, mean over channels of images [N, C, ...]."""
    axes = [axis for axis in range(images.dim()) if axis != 1]
    variance, mean = torch.var_mean(images, axes, correction=0)
    expected, deviation = (torch.tensor(each, device=images.device) for each in (statistic.mean, statistic.deviation))
    found = torch.sqrt(variance + 1e-12)
    return (((mean - expected).square() + (found - deviation).square()) / deviation.square()).mean()

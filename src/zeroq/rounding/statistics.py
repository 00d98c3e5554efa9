"""Second moments of a layer's inputs, summed over any number of batches: what closed-form rounding goes by."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, fx
from torch.nn import functional

from zeroq.graph import Layer

ROWS_PER_IMAGE = 128
PATCHES = 1 << 20  # numbers in the patches that exist at a time, or as many as the sum has: what the cache takes best
BLOCK = 512  # columns: blocks below the diagonal are not computed


class HessianSum:
    """Sum of a a^T over the inputs a that a layer's filters meet, at all of its sites.

    Of an image with more positions than `rows_per_image`, that many are drawn (the same ones in every run, however
    the images are split into batches) and stand for all.
    """

    def __init__(self, layer: Layer, rows_per_image: int = ROWS_PER_IMAGE) -> None:
        columns = math.prod(layer.shape[1:])
        self.layer = layer
        self.rows_per_image = rows_per_image
        self.sum = torch.zeros(layer.groups, columns, columns)  # upper triangle by blocks
        self.positions = 0
        self.generator = torch.Generator().manual_seed(0)

    def add(self, node: fx.Node, inputs: Tensor) -> None:
        """Take in the inputs of one batch at one site: [N, in, *spatial] of a convolution, [N, ..., in] of a linear."""
        if self.layer.operator == "linear":
            rows = inputs.detach().float().reshape(len(inputs), -1, inputs.shape[-1])
            for chunk in rows.split(self.images_at_a_time(rows.shape[1])):
                self.add_windows(chunk[:, :, None])
            return
        stride, padding, dilation = geometry(node, len(self.layer.shape) - 2)
        sides = [side for amount in reversed(padding) for side in (amount, amount)]
        for chunk in inputs.detach().split(self.images_at_a_time(math.prod(inputs.shape[2:]))):
            padded = functional.pad(chunk.float(), sides).movedim(1, -1)
            self.add_windows(windows(padded, self.layer.shape[2:], stride, dilation))

    def images_at_a_time(self, positions: int) -> int:
        """How many images' patches fit into the bound on memory."""
        columns = math.prod(self.layer.shape[1:]) * self.layer.groups
        return max(1, max(PATCHES, self.sum.numel()) // (min(positions, self.rows_per_image) * columns))

    def add_windows(self, windows: Tensor) -> None:
        """Take in [N, *positions, *kernel, channels], a view that need not exist in memory."""
        kernel = len(self.layer.shape) - 2 if self.layer.operator != "linear" else 1
        counts = windows.shape[1 : windows.dim() - kernel - 1]
        total, images, groups = math.prod(counts), len(windows), self.layer.groups
        taken = min(total, self.rows_per_image)
        chosen = torch.stack([self.choose(total, taken) for _ in range(images)])  # [images, taken]
        image = torch.arange(images)[:, None].expand_as(chosen)
        rows = windows[(image, *torch.unravel_index(chosen, counts))].flatten(0, 1)  # [rows, *kernel, channels]
        rows = rows.reshape(len(rows), -1, groups, rows.shape[-1] // groups).permute(2, 0, 1, 3).flatten(2)
        for start in range(0, rows.shape[2], BLOCK):
            left = rows[:, :, start : start + BLOCK].transpose(1, 2)
            product = left @ rows[:, :, start:]
            self.sum[:, start : start + BLOCK, start:].add_(product, alpha=total / taken)
        self.positions += total * images

    def choose(self, total: int, taken: int) -> Tensor:
        """Positions of one image, all or some by chance."""
        return torch.arange(total) if taken == total else torch.randperm(total, generator=self.generator)[:taken]

    def hessian(self) -> Tensor:
        """H = 2 E[a a^T] over images, sites and positions, float32 [groups, columns, columns].

        Columns are in the order (*kernel, input channel of the group); zero everywhere if nothing was taken in.
        """
        upper = self.sum.triu() * (2 / max(self.positions, 1))
        return upper + upper.triu(1).transpose(1, 2)


def windows(padded: Tensor, kernel: tuple[int, ...], stride: list[int], dilation: list[int]) -> Tensor:
    """What a filter sees at each position: a view [N, *positions, *kernel, channels] of [N, *spatial, channels]."""
    spatial, steps = padded.shape[1:-1], padded.stride()[1:-1]
    counts = [
        (size - spread * (length - 1) - 1) // step + 1
        for size, length, step, spread in zip(spatial, kernel, stride, dilation, strict=True)
    ]
    moves = [at * step for at, step in zip(steps, stride, strict=True)]
    inner = [at * spread for at, spread in zip(steps, dilation, strict=True)]
    shape = (len(padded), *counts, *kernel, padded.shape[-1])
    return padded.as_strided(shape, (padded.stride(0), *moves, *inner, padded.stride(-1)))


def geometry(node: fx.Node, axes: int) -> list[list[int]]:
    """Stride, padding and dilation of a convolution's node, one number per spatial axis."""
    given = [*node.args[3:6], *[1, 0, 1][max(len(node.args) - 3, 0) :]]
    lists = [list(value) if isinstance(value, (list, tuple)) else [value] for value in given]
    return [list(itertools.islice(itertools.cycle(value), axes)) for value in lists]  # type: ignore[arg-type]

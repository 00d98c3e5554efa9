"""Moments of a layer's inputs and of the outputs wanted there, summed over any number of batches."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, fx
from torch.nn import functional

from zeroq.graph import Layer

ROWS_PER_IMAGE = 64  # at most
# Numbers in the patches that exist at a time, or as many as the sum has: on a CPU what the cache takes best.
PATCHES, GPU_PATCHES = 1 << 20, 1 << 26
BLOCK = 512  # columns: blocks below the diagonal are not computed
FOLDS = 3  # one image of so many checks what is fitted on the others


@dataclass(frozen=True)
class Moments:
    """Of inputs a and wanted outputs y, over images, sites and positions; float32, zero where nothing was taken in.

    Columns are in the order (*kernel, input channel of the group).
    """

    input_mean: Tensor  # E[a], [groups, columns]
    covariance: Tensor  # E[(a - E[a]) (a - E[a])^T], [groups, columns, columns]
    output_mean: Tensor  # E[y], [groups, filters]
    cross: Tensor  # E[(y - E[y]) (a - E[a])^T], [groups, filters, columns]

    def hessian(self, *, centred: bool) -> Tensor:
        """H = 2 E[a a^T], of a filter's squared error; centred: of that error's variance."""
        mean = self.input_mean
        return 2 * (self.covariance if centred else self.covariance + mean[:, :, None] * mean[:, None, :])


@dataclass
class Sums:
    """Sums over rows of inputs and outputs, each less a fixed shift, so that constant channels cancel exactly."""

    inputs: Tensor  # [groups, columns]
    squares: Tensor  # [groups, columns, columns], upper triangle by blocks
    outputs: Tensor  # [groups, filters]
    products: Tensor  # [groups, filters, columns]
    weight: float = 0.0

    @classmethod
    def empty(cls, groups: int, filters: int, columns: int, device: torch.device | str = "cpu") -> Sums:
        """Before the first row."""
        return cls(
            torch.zeros(groups, columns, device=device), torch.zeros(groups, columns, columns, device=device),
            torch.zeros(groups, filters, device=device), torch.zeros(groups, filters, columns, device=device),
        )  # fmt: skip

    def add(self, rows: Tensor, outputs: Tensor | None, share: float) -> None:
        """Take in rows [groups, rows, columns] and [groups, rows, filters], each standing for `share` of them."""
        self.weight += rows.shape[1] * share
        self.inputs.add_(rows.sum(1), alpha=share)
        for start in range(0, rows.shape[2], BLOCK):
            left = rows[:, :, start : start + BLOCK].transpose(1, 2)
            self.squares[:, start : start + BLOCK, start:].baddbmm_(left, rows[:, :, start:], alpha=share)
        if outputs is not None:
            self.outputs.add_(outputs.sum(1), alpha=share)
            self.products.baddbmm_(outputs.transpose(1, 2), rows, alpha=share)


def moments_of(parts: Sequence[Sums], shift: Tensor, output_shift: Tensor) -> Moments:
    """What the sums over some rows and over others say together, the shift added again."""
    weight = max(sum(part.weight for part in parts), 1.0)

    def mean(name: str) -> Tensor:
        first, *others = (getattr(part, name) for part in parts)
        found = first / weight
        for other in others:
            found.add_(other, alpha=1 / weight)
        return found

    inputs, outputs, covariance, cross = map(mean, ("inputs", "outputs", "squares", "products"))
    covariance.baddbmm_(inputs[:, :, None], inputs[:, None, :], alpha=-1)
    for start in range(BLOCK, covariance.shape[1], BLOCK):
        covariance[:, start : start + BLOCK, :start] = covariance[:, :start, start : start + BLOCK].transpose(1, 2)
    cross.baddbmm_(outputs[:, :, None], inputs[:, None, :], alpha=-1)
    return Moments(inputs + shift, covariance, outputs + output_shift, cross)


class MomentSum:
    """Moments of the inputs that a layer's filters meet, at all of its sites, and of the outputs wanted there.

    Of an image with more positions than `rows_per_image`, that many are drawn (the same ones in every run, however
    the images are split into batches) and stand for all. Images are counted site by site; where outputs are wanted,
    every third one is summed apart, so that what is fitted on the others can be checked on it.
    """

    def __init__(
        self,
        layer: Layer,
        rows_per_image: int = ROWS_PER_IMAGE,
        *,
        outputs: bool = True,
        device: torch.device | str = "cpu",
    ) -> None:
        """outputs: whether any are wanted; otherwise there is no room for products with them.  device: of all."""
        self.layer = layer
        self.columns = math.prod(layer.shape[1:])
        self.rows_per_image = rows_per_image
        self.filters = layer.shape[0] // layer.groups if outputs else 0
        empty = partial(Sums.empty, layer.groups, self.filters, self.columns, device)
        self.fitted, self.checked = empty(), empty() if outputs else None
        self.shift: tuple[Tensor, Tensor] | None = None
        self.images: dict[str, int] = {}
        self.generator = torch.Generator().manual_seed(0)

    def add(self, node: fx.Node, inputs: Tensor, outputs: Tensor | None = None) -> None:
        """Take in one batch at one site: [N, in, *spatial] of a convolution, [N, ..., in] of a linear layer.

        outputs: what the site should give for them, [N, out, *spatial] or [N, ..., out].
        """
        first = self.images.get(node.name, 0)
        self.images[node.name] = first + len(inputs)
        for windows, wanted in self.chunked(node, inputs.detach(), None if outputs is None else outputs.detach()):
            self.add_windows(windows, wanted, first)
            first += len(windows)

    def chunked(self, node: fx.Node, inputs: Tensor, outputs: Tensor | None) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Some images at a time: [N, *positions, *kernel, channels], and what is wanted, [N, *positions, out]."""
        linear = self.layer.operator == "linear"
        if linear:
            inputs = inputs.reshape(len(inputs), -1, inputs.shape[-1])
            outputs = None if outputs is None else outputs.reshape(len(outputs), -1, outputs.shape[-1])
        elif outputs is not None:
            outputs = outputs.movedim(1, -1)
        count = self.images_at_a_time(math.prod(inputs.shape[1:-1] if linear else inputs.shape[2:]))
        wanted = [None] * -(-len(inputs) // count) if outputs is None else outputs.float().split(count)
        for chunk, beside in zip(inputs.float().split(count), wanted, strict=True):
            yield (chunk[:, :, None] if linear else self.patches(node, chunk)), beside

    def patches(self, node: fx.Node, inputs: Tensor) -> Tensor:
        """What the filters of a convolution see, [N, *positions, *kernel, channels]."""
        stride, padding, dilation = geometry(node, len(self.layer.shape) - 2)
        sides = [side for amount in reversed(padding) for side in (amount, amount)]
        return windows(functional.pad(inputs, sides).movedim(1, -1), self.layer.shape[2:], stride, dilation)

    def images_at_a_time(self, positions: int) -> int:
        """How many images' patches fit into the bound on memory."""
        columns = self.columns * self.layer.groups
        least = PATCHES if self.fitted.inputs.device.type == "cpu" else GPU_PATCHES
        return max(1, max(least, self.columns * columns) // (min(positions, self.rows_per_image) * columns))

    def add_windows(self, windows: Tensor, outputs: Tensor | None, first: int) -> None:
        """Take in [N, *positions, *kernel, channels], a view that need not exist in memory, from image `first` on."""
        kernel = len(self.layer.shape) - 2 if self.layer.operator != "linear" else 1
        counts = windows.shape[1 : windows.dim() - kernel - 1]
        total, images, groups = math.prod(counts), len(windows), self.layer.groups
        taken = min(total, self.rows_per_image)
        chosen = torch.stack([self.choose(total, taken) for _ in range(images)])  # [images, taken]
        image = torch.arange(images)[:, None].expand_as(chosen)
        index = tuple(each.to(windows.device) for each in (image, *torch.unravel_index(chosen, counts)))
        rows = windows[index].reshape(images * taken, -1, groups, windows.shape[-1] // groups)
        rows = rows.permute(2, 0, 1, 3).flatten(2).contiguous()  # products of groups are slow on any other layout
        wanted = None if outputs is None else outputs[index].reshape(images * taken, groups, -1).transpose(0, 1)
        shift, output_shift = self.shifts(rows, wanted)
        rows = rows - shift[:, None]
        wanted = None if wanted is None else wanted - output_shift[:, None]
        if self.checked is None:
            self.fitted.add(rows, wanted, total / taken)
            return
        checking = (torch.arange(first, first + images) % FOLDS == FOLDS - 1).repeat_interleave(taken)
        for sums, mask in ((self.fitted, ~checking), (self.checked, checking)):
            if mask.any():
                among = mask.nonzero().flatten().to(rows.device)
                part = rows if mask.all() else rows[:, among]
                sums.add(part, None if wanted is None else wanted[:, among], total / taken)

    def shifts(self, rows: Tensor, outputs: Tensor | None) -> tuple[Tensor, Tensor]:
        """What is taken off inputs and outputs, the means of the first rows."""
        if self.shift is None:
            nothing = rows.new_zeros(self.layer.groups, self.filters)
            self.shift = rows.mean(1), nothing if outputs is None else outputs.mean(1)
        return self.shift

    def choose(self, total: int, taken: int) -> Tensor:
        """Positions of one image, all or some by chance."""
        return torch.arange(total) if taken == total else torch.randperm(total, generator=self.generator)[:taken]

    def moments(self) -> Moments:
        """Over everything that was taken in."""
        return self.of(self.fitted) if self.checked is None else self.of(self.fitted, self.checked)

    def halves(self) -> tuple[Moments, Moments]:
        """Over the images to fit on, and over those to check on; the same twice where none is to be checked on."""
        fitted = self.of(self.fitted)
        return fitted, self.of(self.checked) if self.checked is not None and self.checked.weight else fitted

    def of(self, *parts: Sums) -> Moments:
        """Moments of some of the sums."""
        nothing = torch.zeros_like(parts[0].inputs), torch.zeros_like(parts[0].outputs)
        return moments_of(parts, *(self.shift or nothing))


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

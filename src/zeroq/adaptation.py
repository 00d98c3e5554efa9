"""restatistic(): the BatchNorm statistics of another domain, from unlabelled pictures, as weights for --weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import zeroq.devices as devices
from zeroq.errors import DataError, ModelError, RunError
from zeroq.evaluate import Pictures, measure_statistics, open_pictures
from zeroq.graph import Network, capture
from zeroq.models import LoadedModel
from zeroq.models.weights import tensors_of
from zeroq.numbers.tensor_file import tensor_file_bytes
from zeroq.preprocessing import Preprocessing
from zeroq.whole_files import make_folder, write_whole

BATCH = 64
LEAST_DEVIATION = 1e-4  # of pixels, that --input-std takes as it is rounded here
OTHERWISE = "name another file with --out"
FEW = 32  # pictures below which a warning is given
OnProgress = Callable[[str, int, int], None]  # stage, done, total


def restatistic(
    model: LoadedModel,
    data: Path,
    out: Path,
    *,
    batch: int | None = None,
    threads: int | None = None,
    on_progress: OnProgress | None = None,
) -> dict[str, Any]:
    """Measure a network's BatchNorm statistics on pictures, and write its state_dict with them as safetensors.

    data: a folder of pictures, nested or not, or an npz with `images`; labels are not asked for.  Gives what
    `zeroq restatistic --json` prints.  Raises ModelError without BatchNorm, DataError, RunError.
    """
    progress = on_progress or (lambda stage, done, total: None)
    preprocessing = model.picture()
    refuse_overwriting(out, model)
    with devices.threads(threads):
        generator = torch.Generator().manual_seed(0)
        network = capture(model.module, torch.randn(2, *model.input_shape, generator=generator))
        if not network.norms:
            raise ModelError(
                f"{model.name} has no BatchNorm, so there are no statistics to measure again: quantize it as it is, or "
                "with --calibration FOLDER."
            )
        pictures = open_pictures(data, preprocessing)
        pixels = PixelStatistic()
        tensors = measure_statistics(network, pixels.noted(even_batches(pictures, batch or BATCH, progress)))
    changed = with_tensors(model.module, network, tensors, pictures.count)
    make_folder(out.parent, OTHERWISE)
    write_whole(out, tensor_file_bytes(changed, {"images": str(pictures.count)}), OTHERWISE)
    mean, deviation = pixels.of_pictures(preprocessing)
    return {
        "model": model.source,
        "file": str(out),
        "given": list(model.given or ()),
        "images": pictures.count,
        "batchnorms": len(tensors) // 2,
        "input_mean": mean,
        "input_std": deviation,
        "warnings": [*model.warnings, *few_pictures(pictures.count)],
    }


def refuse_overwriting(out: Path, model: LoadedModel) -> None:
    """Raise RunError where a file is there that is no earlier one of ours, or whose weights are read."""
    if model.weights is not None and out.exists() and out.samefile(model.weights):
        raise RunError(f"{out} holds the weights that are read (--weights): {OTHERWISE}.")
    if out.exists() and (out.suffix != ".safetensors" or not out.is_file()):
        raise RunError(f"{out} is there already, and no file of weights: {OTHERWISE}, or remove it.")


def few_pictures(count: int) -> list[str]:
    """A sentence if statistics of so many pictures are rough."""
    return [] if count >= FEW else [f"Statistics of {count} pictures are rough: give at least {FEW}, better 200."]


def even_batches(pictures: Pictures, most: int, progress: OnProgress) -> Iterator[Tensor]:
    """All pictures in as few batches as needed, of one size but for the rounding: each normalises by its own mean."""
    if pictures.count < 2:
        list(pictures.read(1))  # a file that is no picture is refused as such
        raise DataError("A single picture has no variance to measure: give more, better 200.")
    size = math.ceil(pictures.count / math.ceil(pictures.count / max(most, 2)))
    while pictures.count % size == 1:  # a last one alone would have no deviation from others
        size += 1
    done = 0
    for inputs in pictures.read(size):
        yield inputs
        done += len(inputs)
        progress("restatistic", done, pictures.count)


class PixelStatistic:
    """Mean and deviation of each channel over all pictures that went by."""

    def __init__(self) -> None:
        self.count, self.sums, self.squares = 0, torch.zeros(()), torch.zeros(())

    def noted(self, batches: Iterable[Tensor]) -> Iterator[Tensor]:
        """The batches [n, C, H, W], unchanged."""
        for batch in batches:
            values = batch.double().transpose(0, 1).flatten(1)
            self.count += values.shape[1]
            self.sums, self.squares = self.sums + values.sum(1), self.squares + values.square().sum(1)
            yield batch

    def of_pictures(self, preprocessing: Preprocessing) -> tuple[list[float], list[float]]:
        """In pixel / 255, as --input-mean and --input-std take them."""
        mean = self.sums / self.count
        deviation = (self.squares / self.count - mean**2).clamp(min=0).sqrt()
        scale, shift = torch.tensor(preprocessing.std), torch.tensor(preprocessing.mean)
        return rounded(mean * scale + shift), rounded((deviation * scale).clamp(min=LEAST_DEVIATION))


def rounded(values: Tensor) -> list[float]:
    return [round(value, 4) for value in values.tolist()]


def with_tensors(
    module: nn.Module, network: Network, tensors: Mapping[str, Tensor], pictures: int
) -> dict[str, Tensor]:
    """The module's state_dict with other tensors in place of those of the network's names, and of their aliases.

    pictures: that these were measured on, which count as at least so many batches.
    """
    state = tensors_of(module)
    places = {network.tensors[name].data_ptr(): tensor for name, tensor in tensors.items()}
    found: dict[str, Tensor] = {}
    counted: dict[str, Tensor] = {}
    for name, old in state.items():
        new = places.get(old.data_ptr()) if old.numel() else None
        found[name] = old.detach().clone() if new is None else new.to(old.dtype).reshape(old.shape)
        if new is not None and (counter := f"{name.rpartition('.')[0]}.num_batches_tracked".lstrip(".")) in state:
            counted[counter] = state[counter].clamp(min=pictures)
    # No two share memory, which the format refuses.
    return {name: tensor.clone() for name, tensor in (found | counted).items()}

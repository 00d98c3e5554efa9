"""A run up to its bit setting, for what is decided behind it, and its networks on real pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.halves import Half, halves, scores, spread
from benchmarks.measure import shared_run
from benchmarks.rows import Row
from zeroq import devices
from zeroq.accuracy import in_inference
from zeroq.candidates import Candidates, Weights
from zeroq.channels import ranged
from zeroq.divergence import kl_divergence
from zeroq.models import LoadedModel, load_model
from zeroq.numbers.values import BitSetting
from zeroq.options import Options
from zeroq.pipeline import facts
from zeroq.preparation import prepare
from zeroq.run_directory import RunDirectory
from zeroq.stages import Stages

PICTURES = 300  # of each half, at most


@dataclass(frozen=True)
class Chosen:
    """Candidates, the setting that was chosen, and what the network gives for pictures in floating point."""

    candidates: Candidates
    setting: BitSetting
    pictures: list[Half]
    expected: dict[str, Tensor]  # by role

    def state(self, candidates: Candidates, weights: Weights) -> dict[str, Any]:
        """What distilled images and what pictures say of the network that some weights make."""
        return self.of_network(candidates, candidates.network(weights))

    def of_network(self, candidates: Candidates, network: Callable[..., Any]) -> dict[str, Any]:
        """The same of any network."""
        misfit = candidates.misfit(network)
        sets = {half.role: beside_float(network, half, self.expected[half.role]) for half in self.pictures}
        return {"held_out": misfit.held_out, "misfit": misfit.with_noise, "sets": sets}


@contextmanager
def candidates_of(row: Row, model: LoadedModel, options: Options) -> Iterator[tuple[Stages, Candidates]]:
    """All stages of a row up to what bits are chosen among, in its shared run directory.

    options: the row's, or others that make the same images.
    """
    prepared = prepare(model, options)
    with RunDirectory(shared_run(row)) as run, devices.threads(options.threads):
        run.describe(facts(prepared))
        stages = Stages(run, prepared, lambda stage, done, total: None)
        images = stages.distil()
        stages, ranges = ranged(stages, images)
        yield stages, Candidates(stages.prepared, images, ranges, lambda done, total: None)


@contextmanager
def chosen(row: Row, data: Path, threads: int | None) -> Iterator[Chosen]:
    """All stages of a row before the last, in its shared run directory, from which those are taken that are there."""
    model = load_model(f"{data / 'networks' / row.network}.py:{row.network}")
    with candidates_of(row, model, row.options(threads=threads)) as (stages, candidates):
        setting = stages.allocate(candidates, stages.sensitivity(candidates)).setting
        pictures = halves(row.network, model, data)
        expected = {half.role: some_scores(stages.prepared.folded.run, half) for half in pictures}
        yield Chosen(candidates, setting, pictures, expected)


def some_scores(network: Callable[..., Any], half: Half) -> Tensor:
    """Of pictures spread evenly over a half."""
    return scores(in_inference(network), half.data, spread(half.data, PICTURES))  # type: ignore[arg-type]


def beside_float(network: Callable[..., Any], half: Half, expected: Tensor) -> dict[str, Any]:
    """How many of these pictures a network has right, and how far it diverges."""
    found = some_scores(network, half)
    labels = torch.as_tensor(half.data.labels)[torch.from_numpy(spread(half.data, PICTURES))]
    right = (found.argmax(1) == labels).sum()
    return {"images": len(labels), "top1": int(right), "divergence": float(kl_divergence(expected, found).mean())}

"""How much is computed at a time, so that no stage of a run needs more memory than --memory-limit, or where that is not
given than is free: decided before any.

Of every stage it is predicted from the network's graph what it holds at its worst, as a sum of weights, images, values
of some images at a time, and second moments of a layer's inputs. What can be chosen is then as large as the limit
leaves room for, at most what it is without a limit. Coefficients are counted in the stages' code, or bounds of
the peaks of ResNet18, ResNet20 and MobileNetV2; docs/memory.md compares predictions with peaks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

import zeroq.resident as resident
from zeroq.candidates import HELD_OUT, NOISE, UNLIKE_IMAGES
from zeroq.demand import Demand, demand_of, most_widths
from zeroq.distillation import BATCH_BYTES
from zeroq.errors import OptionError
from zeroq.graph.live import IN_MEMORY, Room
from zeroq.precision import PROBE_IMAGES
from zeroq.preparation import Prepared
from zeroq.ranges import GRADIENT_BYTES
from zeroq.ranks import ALONE, Ranks, count
from zeroq.run_directory import RunDirectory

VERIFIED_IMAGES = 8  # that the file is compared with its simulation on
LEAST_BATCH = 8  # images that are distilled together: statistics of fewer say little (docs/distillation.md)
GPU_SHARE, GPU_CHUNK = 0.25, 64  # of a GPU's memory, for values at one time; images whose values these are, at most
FREE_SHARE = 0.8  # of the memory that is free, for a run without --memory-limit: what it frees, it keeps
GB = 10**9

SLACK = 60e6  # what is imported when it is first needed, and whatever is small
EXPORTER = 60e6  # the same from the first export on
STARTS, SAVED = 6, 4  # times the bytes of all images: while noise is shaped, while they are written and read
OPTIMISED = 9  # times the bytes of a batch: images, gradient, Adam's moments, spectra
OPERATOR = 4  # times the bytes of the largest value: what an operator makes on the way
EXACT_OPERATOR = 10  # the same of sums in 64 bits
SECOND_MOMENTS = 9  # matrices [columns, columns] of a layer at once
PATCHES, LEAST_PATCHES = 4, 4 << 20  # times the bytes of the patches that are taken at once, and as many at least
LEARNED, LEARNING, SIMULATED = 6, 2, 3  # times the bytes of a block's weights, of its values, and of all weights
TRIED = 5  # settings and corrections whose integers are kept
EXPORTED, VERIFIED = 3.0, 3.0  # times the bytes of weights in floating point
COMPARED = 6  # bytes for each quantized number that is compared


@dataclass(frozen=True)
class Amounts:
    """How much is computed at a time; by default as without a limit."""

    batch_bytes: float = BATCH_BYTES  # of values that the backward pass of distillation keeps
    probed: int = PROBE_IMAGES  # images that the precision is chosen with
    chunk: int = IN_MEMORY.chunk  # images that ranges are observed, weights rounded and networks compared on at a time
    widened: int = IN_MEMORY.chunk  # images that sensitivities are measured on at a time, for every width
    kept: int | None = None  # chunks whose values stay in memory while weights are rounded; None: all
    verified: int = VERIFIED_IMAGES  # images that the file is verified on

    def room(self, folder: Path) -> Room:
        """What rounding may keep; the rest lies in a folder, or for a process without it in the nearest above it."""
        return Room(self.chunk, self.kept, next(each for each in (folder, *folder.parents) if each.is_dir()))


UNLIMITED = Amounts()


@dataclass(frozen=True)
class MemoryPlan:
    """Amounts, and what is predicted with them."""

    amounts: Amounts = UNLIMITED
    demand: Demand | None = None
    predicted_mb: Mapping[str, float] | None = None  # by stage, of the whole process, 10^6 bytes; None: nobody asked
    warnings: tuple[str, ...] = ()

    @property
    def limited(self) -> bool:
        """Whether the run is to hold no more than it needs at a time."""
        return self.demand is not None

    @property
    def peak_mb(self) -> float | None:
        """Of the whole run."""
        return None if self.predicted_mb is None else max(self.predicted_mb.values())

    def to_json(self) -> dict[str, Any]:
        """As run.json has it."""
        return {"amounts": asdict(self.amounts), "predicted_mb": self.predicted_mb}

    def kept(self, run: RunDirectory, limit: float | None) -> MemoryPlan:
        """The plan that an earlier run began with, as what the process holds differs a little from run to run."""
        if self.demand is None:
            return self
        found = run.decide("memory", {"limit": limit, "demand": asdict(self.demand)}, self.to_json)
        return replace(self, amounts=Amounts(**found["amounts"]), predicted_mb=found["predicted_mb"])


NO_LIMIT = MemoryPlan()


def plan_of(prepared: Prepared, ranks: Ranks = ALONE) -> MemoryPlan:
    """Of a run whose network is prepared; without --memory-limit everything is as it always is, if there is memory for
    that. Raises OptionError.

    ranks: processes that share the run out, of which each keeps within the limit; every one is to ask. What is free is
    for all that torchrun has started, which may have runs of their own.
    """
    if ranks.device.type == "cuda":
        return MemoryPlan(on_gpu(prepared, torch.cuda.get_device_properties(ranks.device).total_memory))
    demand = demand_of(prepared)
    resident.trim()
    held, peak = (max(ranks.gathered([each])) for each in (resident.held(), resident.peak()))
    if (limit := prepared.options.memory_limit) is not None:
        return plan_memory(demand, limit, held, peak)
    return plan_within(demand, min(ranks.gathered([resident.available()])) / count(), held, peak)


def plan_within(demand: Demand, free: float, held: int, peak: int) -> MemoryPlan:
    """Nothing is limited if a run fits what is free (bytes), beside what the process holds; else as much as fits.

    held, peak: as in `plan_memory`. Raises OptionError where the least that a run can hold does not fit.
    """
    room = held + FREE_SHARE * free
    usual = max(predicted(demand, UNLIMITED, held).values())
    if usual <= room:
        return NO_LIMIT
    least = max(peak, *predicted(demand, limits_of(demand)[0], held).values())
    limit = math.floor(room / GB * 10) / 10
    if least > limit * GB:
        raise OptionError(
            f"This run needs {tenths_above(least):g} GB of memory at least, and {room / GB:.1f} GB are free for it: "
            f"ask for fewer --images, or give --memory-limit {tenths_above(least):g} to try it all the same."
        )
    warning = (
        f"This run would hold up to {usual / GB:.1f} GB of memory, and {room / GB:.1f} GB are free for it: it keeps "
        f"within these, as with --memory-limit {limit:g}."
    )
    return replace(plan_memory(demand, limit, held, peak), warnings=(warning,))


def on_gpu(prepared: Prepared, memory: int) -> Amounts:
    """As much at a time as a part of a GPU's memory (bytes) holds: what it is given in small pieces, it waits for."""
    room, network = memory * GPU_SHARE, prepared.network
    image = 4 * sum(math.prod(shape) for shape in network.shapes.values())
    chunk = min(GPU_CHUNK, max(1, int(room / image)))
    return Amounts(batch_bytes=room, probed=chunk, chunk=chunk, widened=max(1, chunk // most_widths(prepared)))


def plan_memory(demand: Demand, limit: float, held: int, peak: int) -> MemoryPlan:
    """The largest amounts with which no stage needs more than `limit` (10^9 bytes), beside what the process holds.

    held: bytes of the process with the network prepared.  peak: the most that it took to prepare it.
    Raises OptionError, with the least limit that can be met.
    """
    least, most = limits_of(demand)
    need = max(peak, *predicted(demand, least, held).values())
    if need > limit * GB:
        raise OptionError(
            f"--memory-limit {limit:g} cannot be met, as this run needs {tenths_above(need):g} GB at least: "
            "give that, or ask for fewer --images."
        )
    amounts = least
    for name, choices in most.items():
        tried = (replace(amounts, **{name: choice}) for choice in choices)
        amounts = next(each for each in tried if max(predicted(demand, each, held).values()) <= limit * GB)
    stages = {"capture": float(peak), **predicted(demand, amounts, held)}
    return MemoryPlan(amounts, demand, {stage: round(each / 1e6, 1) for stage, each in stages.items()})


def tenths_above(need: float) -> float:
    """Bytes in GB, rounded up."""
    return math.ceil(need / GB * 10) / 10


def limits_of(demand: Demand) -> tuple[Amounts, dict[str, list[Any]]]:
    """The least amounts, and for each the values that it may have: the most first, the least last."""
    fewest = min(LEAST_BATCH, demand.batch_images)
    halved = [8, 4, 2, 1]
    batches = [BATCH_BYTES, *(images * demand.values for images in range(demand.batch_images, fewest - 1, -1))]
    choices: dict[str, list[Any]] = {
        "chunk": halved,
        "widened": halved,
        "verified": halved,
        "probed": [PROBE_IMAGES, 2, 1],
        "kept": [None, *range(demand.rounded, -1, -1)],
        "batch_bytes": batches,
    }
    return Amounts(**{name: values[-1] for name, values in choices.items()}), choices


def predicted(demand: Demand, amounts: Amounts, held: int) -> dict[str, float]:
    """Bytes of the whole process at the worst moment of each stage behind the capture."""
    need, base = demand, held + SLACK
    integers = need.weights / 4
    chunk = amounts.chunk
    noise = need.images * (1 - 1 / HELD_OUT) / NOISE + UNLIKE_IMAGES
    images = (need.images + need.rounded / 2 + noise) * need.pixels
    outputs = 2 * (max(need.images // HELD_OUT, 1) + UNLIKE_IMAGES) * need.output
    at_work = chunk * (need.floating + OPERATOR * need.largest)
    batch = min(need.images, max(1, int(amounts.batch_bytes / need.values)))
    compared = chunk * (need.quantized + EXACT_OPERATOR * need.largest) + integers
    kept = need.rounded if amounts.kept is None else min(need.rounded, amounts.kept * chunk)
    rounding = (
        need.rounded * need.pixels + need.weights
        + chunk * (need.floating + need.quantized + OPERATOR * need.largest)
        + max(
            kept * max(before.live, layer.live) + SECOND_MOMENTS * layer.moments
            + PATCHES * min(max(layer.moments, LEAST_PATCHES), chunk * layer.patches)
            for before, layer in zip(need.layers[:1] + need.layers, need.layers, strict=False)
        )
    )  # fmt: skip
    judged = need.rounded + max(need.images // HELD_OUT, 1)
    at_borders = judged if amounts.kept is None else min(judged, amounts.kept * chunk)
    simulated = SIMULATED * need.weights + judged * need.pixels
    learning = max((
        simulated + at_borders * block.live + LEARNED * block.weights
        + chunk * (LEARNING * block.values + OPERATOR * need.largest)
        for block in need.blocks
    ), default=0.0)  # fmt: skip
    candidates = need.widths * integers if need.widths > 1 else 0
    settled = candidates + TRIED * integers + outputs
    exported = EXPORTER + EXPORTED * need.weights
    measured = need.weights / 2 + amounts.widened * need.widths * (need.floating + OPERATOR * need.largest)  # in bf16
    return {
        "distill": base + max(
            STARTS * need.images * need.pixels,
            amounts.probed * (need.backward + OPERATOR * need.largest) + need.weights,
            2 * need.images * need.pixels + need.weights
            + batch * (need.backward + OPERATOR * need.largest / 2 + OPTIMISED * need.pixels),
            SAVED * need.images * need.pixels,
        ),
        "ranges": base + images + 2 * need.bins + need.binning + max(
            min(chunk * need.gradients, max(GRADIENT_BYTES, need.gradients)) + chunk * OPERATOR * need.largest,
            chunk * (need.quantized + EXACT_OPERATOR * need.largest) + outputs,
        ),
        "sensitivity": base + images + (candidates + max(rounding, measured) if need.widths > 1 else 0.0),
        "allocate": base + images + (settled + max(rounding, compared, exported) if need.widths > 1 else 0.0),
        "rounding": base + images + settled + max(rounding, compared, learning),
        "export": base + images + settled + exported,
        "verify": base + EXPORTER + images + settled + VERIFIED * need.weights + amounts.verified * (
            COMPARED * need.integers + 2 * need.floating + EXACT_OPERATOR * need.largest
        ),
        "report": base + EXPORTER + images + settled + max(compared, at_work),
    }  # fmt: skip

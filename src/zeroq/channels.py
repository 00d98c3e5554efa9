"""The stages that bring the channels of some values together, before ranges are fitted to them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from zeroq.candidates import NOISE, Images
from zeroq.fitted_ranges import compared_ranges
from zeroq.graph.walk import CHUNK
from zeroq.models.meaning import fingerprint_of
from zeroq.preparation import Prepared
from zeroq.ranges.channels import Value, bins_of, channel_factors, together
from zeroq.ranks import ALONE, Ranks
from zeroq.repair import middles, shiftable
from zeroq.simulate.placement import Quantizer, quantizer_bits
from zeroq.stages import Stages

CENTRES, FACTORS = "centres.json", "factors.json"
# Of the divergence without factors, at most: less of a gain is chance. At 8, 6 and 4 bits FastestDet has 0.98, 0.97 and
# 0.93, NanoDet 0.95 (64 images: 0.99), 1.01 and 1.11, EtinyNet 0.77, 0.60 and 0.94. On pictures, 6 bits, FastestDet
# gains 0.04 of it and NanoDet loses 0.10, EtinyNet gains 0.3.
CLEARLY = 0.95


def alike(stages: Stages, images: Images) -> Stages:
    """The stages behind both, of the network whose channels are centred and then scaled.

    images: on the device.
    """
    return scaled(centred(stages, images), images)


def centred(stages: Stages, images: Images) -> Stages:
    """Channels moved to lie around zero; there is no such stage where none can be."""
    prepared = stages.computing
    if not shiftable(prepared.folded):
        return stages
    centres = numbers_of(
        stages, "centres", {"noise": NOISE}, CENTRES,
        lambda: middles(prepared.folded, images.observed, stages.amounts.chunk),
    )  # fmt: skip
    return replace(stages, prepared=stages.prepared.centred(centres))


def scaled(stages: Stages, images: Images) -> Stages:
    """Channels that depthwise layers alone read times a factor each, where that helps; there is no such stage where
    none can be.
    """
    prepared = stages.computing
    if not prepared.scalable:
        return stages
    plan = prepared.plan
    key = {
        "noise": NOISE, "input_bits": plan.input_bits, "input_widths": plan.input_widths, "floating": plan.floating,
        "divergence": fingerprint_of(prepared.meaning),
    }  # fmt: skip
    factors = numbers_of(
        stages, "factors", key, FACTORS,
        lambda: helpful_factors(prepared, images, stages.amounts.chunk, stages.ranks),
    )  # fmt: skip
    return replace(stages, prepared=stages.prepared.scaled(factors))


def helpful_factors(prepared: Prepared, images: Images, chunk: int = CHUNK, ranks: Ranks = ALONE) -> dict[str, Tensor]:
    """Factors of all families, or none: those with which the network, its activations alone quantized, diverges
    clearly less on images held out from fitting.
    """
    found = factors_of(prepared, images, chunk)

    def divergence(prepared: Prepared) -> float:
        return min(each for _, each in compared_ranges(prepared, images, chunk, ranks=ranks).values())

    return found if found and divergence(prepared.scaled(found)) < CLEARLY * divergence(prepared) else {}


def factors_of(prepared: Prepared, images: Images, chunk: int = CHUNK) -> dict[str, Tensor]:
    """By the name of each family that has quantized values, float64 [channels] on the CPU."""
    scalable = prepared.scalable
    bits = quantizer_bits(prepared.folded, prepared.placement, prepared.plan.input_bits)
    names = {value for values in scalable.values() for value in values}
    found = bins_of(prepared.folded, names, images.observed, prepared.meaning, chunk)

    def by_quantizer(values: Sequence[str]) -> dict[Quantizer, list[str]]:
        shared: dict[Quantizer, list[str]] = {}
        for value in values:
            shared.setdefault(prepared.placement.of_value[value], []).append(value)
        return shared

    return {
        family: channel_factors([
            Value(together([found[value] for value in values]), narrowest(bits, quantizer.name), quantizer.ceiling)
            for quantizer, values in by_quantizer(every).items()
        ]).cpu()
        for family, every in scalable.items()
    }  # fmt: skip


def narrowest(bits: Mapping[str, int], quantizer: str) -> int:
    """Bits of a value where it has fewest."""
    return min(width for name, width in bits.items() if name.split("/")[0] == quantizer)


def numbers_of(
    stages: Stages, name: str, key: Mapping[str, object], file: str, compute: Callable[[], dict[str, Tensor]]
) -> dict[str, Tensor]:
    """A stage that finds numbers of channels, float64 [channels]."""
    return stages.stage(
        name, key, [file], compute=compute,
        save=lambda found: stages.run.write_json(file, {name: each.tolist() for name, each in found.items()}),
        load=lambda: {
            name: torch.tensor(each, dtype=torch.float64) for name, each in stages.run.read_json(file).items()
        },
    )  # fmt: skip

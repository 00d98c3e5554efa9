"""From images to activation ranges: the channels of some values are brought together before ranges are fitted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from torch import Tensor

from zeroq.candidates import NOISE, Images
from zeroq.fitted_ranges import fit_ranges
from zeroq.graph.walk import CHUNK
from zeroq.models.fingerprint import fingerprint_of
from zeroq.numbers.values import Ranges
from zeroq.preparation import Prepared
from zeroq.ranges.channels import MOST, MOST_AT_A_COST, Bins, ChannelBins, Value, channel_factors, together
from zeroq.ranks import ALONE, Ranks
from zeroq.repair import middles, shiftable
from zeroq.simulate.placement import Quantizer, quantizer_bits
from zeroq.stages import Stages
from zeroq.stored import numbers_from_json, numbers_to_json, ranges_from_json, ranges_to_json

CENTRES, FACTORS, RANGES = "centres.json", "factors.json", "ranges.json"
# Of the divergence without factors, at most: less of a gain is chance. At 8, 6 and 4 bits FastestDet has 0.98, 0.97 and
# 0.93, NanoDet 0.95 (64 images: 0.99), 1.01 and 1.11, EtinyNet 0.77, 0.60 and 0.94. On pictures, 6 bits, FastestDet
# gains 0.04 of it and NanoDet loses 0.10, EtinyNet gains 0.3.
CLEARLY = 0.95
# The same where weights pay for them. At 6 bits MobileNetV1, EtinyNet, MobileNetV2, FastestDet and NanoDet have 0.86,
# 0.80, 0.74, 0.74 and 0.41 of it, on pictures 0.93, 0.81, 0.91, 0.86 and 0.84; ESPNet has 0.91, and on pictures 1.38.
CLEARLY_AT_A_COST = 0.9


def centred(stages: Stages, images: Images) -> Stages:
    """The stages behind that which moves channels to lie around zero; there is none where none can be moved.

    images: on the device.
    """
    prepared = stages.computing
    if not shiftable(prepared.folded):
        return stages
    centres = stages.stage(
        "centres", {"noise": NOISE}, [CENTRES],
        compute=lambda: middles(prepared.folded, images.observed, stages.amounts.chunk),
        save=lambda found: stages.run.write_json(CENTRES, numbers_to_json(found)),
        load=lambda: numbers_from_json(stages.run.read_json(CENTRES)),
    )  # fmt: skip
    return replace(stages, prepared=stages.prepared.centred(centres))


def ranged(stages: Stages, images: Images) -> tuple[Stages, Ranges]:
    """Activation ranges, and the stages behind them: of the network whose channels are centred and scaled where some
    can be.

    images: on the device.
    """
    stages = centred(stages, images)
    prepared, plan, run = stages.computing, stages.prepared.plan, stages.run
    key = {
        "noise": NOISE, "input_bits": plan.input_bits, "input_widths": plan.input_widths, "floating": plan.floating,
        "divergence": fingerprint_of(prepared.meaning), "scalable": [family.name for family in prepared.scalable],
    }  # fmt: skip
    scalable = bool(prepared.scalable)

    def save(found: tuple[dict[str, Tensor], Ranges]) -> None:
        if scalable:
            run.write_json(FACTORS, numbers_to_json(found[0]))
        run.write_json(RANGES, ranges_to_json(found[1]))

    factors, ranges = stages.stage(
        "ranges", key, [FACTORS, RANGES] if scalable else [RANGES],
        compute=lambda: helpful_factors(
            prepared, images, stages.amounts.chunk, stages.step("ranges"), stages.ranks
        ),
        save=save,
        load=lambda: (
            numbers_from_json(run.read_json(FACTORS)) if scalable else {}, ranges_from_json(run.read_json(RANGES))
        ),
    )  # fmt: skip
    return (replace(stages, prepared=stages.prepared.scaled(factors)) if factors else stages), ranges


def helpful_factors(
    prepared: Prepared,
    images: Images,
    chunk: int = CHUNK,
    on_step: Callable[[int, int], None] | None = None,
    ranks: Ranks = ALONE,
) -> tuple[dict[str, Tensor], Ranges]:
    """Factors of all families, of those that they cost nothing, or none, and the ranges of the network with them: those
    with which it, its activations alone quantized, diverges clearly less on images held out from fitting.

    Factors are float64 [channels] on the CPU, by the names of families.
    """
    bins = {value: ChannelBins(value) for values in prepared.scalable.values() for value in values}
    ranges, divergence = fit_ranges(prepared, images, chunk, on_step, ranks, beside=bins)
    chosen: dict[str, Tensor] = {}
    for found, most in trials(prepared, bins):
        own, less = fit_ranges(prepared.scaled(found), images, chunk, on_step, ranks)
        if less < most * divergence:
            chosen, ranges, divergence = found, own, less
    return chosen, ranges


def trials(prepared: Prepared, bins: Mapping[str, ChannelBins]) -> list[tuple[dict[str, Tensor], float]]:
    """Factors to try, those that cost more behind those that cost less, and the share of the divergence without them
    that the one with them may have.
    """
    found = factors_of(prepared, {value: each.numbers for value, each in bins.items()})
    free = {family.name: found[family.name] for family in prepared.scalable if family.free}
    costly = found if len(found) > len(free) else {}
    return [(each, most) for each, most in ((free, CLEARLY), (costly, CLEARLY_AT_A_COST)) if each]


def factors_of(prepared: Prepared, numbers: Mapping[str, Bins]) -> dict[str, Tensor]:
    """Of each family that has quantized values, whose numbers are given."""
    bits = quantizer_bits(prepared.folded, prepared.placement, prepared.plan.input_bits)

    def by_quantizer(values: Sequence[str]) -> dict[Quantizer, list[str]]:
        shared: dict[Quantizer, list[str]] = {}
        for value in values:
            shared.setdefault(prepared.placement.of_value[value], []).append(value)
        return shared

    return {
        family.name: channel_factors(
            [
                Value(
                    together([numbers[value] for value in values]), narrowest(bits, quantizer.name), quantizer.ceiling
                )
                for quantizer, values in by_quantizer(every).items()
            ],
            MOST if family.free else MOST_AT_A_COST,
        ).cpu()
        for family, every in prepared.scalable.items()
    }  # fmt: skip


def narrowest(bits: Mapping[str, int], quantizer: str) -> int:
    """Bits of a value where it has fewest."""
    return min(width for name, width in bits.items() if name.split("/")[0] == quantizer)

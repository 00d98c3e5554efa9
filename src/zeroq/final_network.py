"""The network that a chosen setting comes to: what of the corrections helps, and which outputs matter too much."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from zeroq.allocate import budget_in_activation_bits
from zeroq.candidates import ERRORS, MEANS, METHOD, Candidates, Misfit, Weights, joined
from zeroq.finer_outputs import LEAST, choose_finer
from zeroq.numbers.values import BitSetting
from zeroq.preparation import Prepared
from zeroq.rounding import Pace, reconstruct
from zeroq.simulate import Placement, QuantizedNetwork, Quantizer
from zeroq.simulate.idle import without_idle
from zeroq.simulate.outputs import output_quantizers, without
from zeroq.simulate.peak import memory_of

CLEARLY = 0.95  # of the divergence on held-out images, at most (docs/reconstruction.md)
CORRECTED = {ERRORS: f"{METHOD}, errors corrected", MEANS: f"{METHOD}, means corrected"}


@dataclass(frozen=True)
class Final:
    """A quantized network, and what was decided about it last."""

    network: QuantizedNetwork
    rounding: str  # how its weights were rounded, in words
    finer_outputs: tuple[str, ...]  # layers whose outputs stay in floating point


def final_network(
    candidates: Candidates, setting: BitSetting, weight_only: tuple[str, ...], on_step: Callable[[int, int], None]
) -> Final:
    """All layers rounded with the correction that helps; every process is to ask.

    weight_only: layers that compute in floating point with what their integers stand for.
    """
    tried = candidates.tried(setting, list(CORRECTED), on_step)
    correction = chosen_correction({each: misfit for each, (_, misfit) in tried.items()})
    weights, misfit = tried[correction]
    rounding = CORRECTED[correction]
    if steps := candidates.prepared.options.reconstruction:
        learned, better = reconstructed(candidates, weights, steps, on_step)
        helps = clearly_less(learned.misfit(learned.network(better)), misfit)
        candidates, weights = (learned, better) if helps else (candidates, weights)
        rounding += ", reconstructed" if helps else ", not reconstructed, as held-out images do not speak for it"
    network, finer = with_finer_outputs(candidates, weights, weight_only)
    return Final(network, rounding, finer)


def reconstructed(
    candidates: Candidates, weights: Weights, steps: int, on_step: Callable[[int, int], None]
) -> tuple[Candidates, Weights]:
    """With integers, biases and activation steps that are learned block by block (`rounding.reconstruct`)."""
    prepared, images = candidates.prepared, candidates.images
    found, ranges = reconstruct(
        prepared.folded, prepared.placement, candidates.ranges, prepared.plan.input_bits, weights,
        joined(images.rounding, images.variants), images.held_out, Pace(steps),
        seed=prepared.options.seed, room=candidates.room, ranks=candidates.ranks, on_step=on_step,
    )  # fmt: skip
    return replace(candidates, ranges=ranges), found


def clearly_less(learned: Misfit, before: Misfit) -> bool:
    """Whether what was learned serves images that it was not learned from: less than that is chance."""
    return learned.held_out <= CLEARLY * before.held_out and learned.with_noise <= before.with_noise


def chosen_correction(misfits: Mapping[str, Misfit]) -> str:
    """By held-out images alone: errors are corrected on images of both kinds, so what noise says is theirs as well, and
    where even images like those that they were corrected on speak for the means, pictures do (docs/corrections.md).
    """
    return MEANS if misfits[MEANS].held_out < misfits[ERRORS].held_out else ERRORS


def with_finer_outputs(
    candidates: Candidates, weights: Weights, weight_only: tuple[str, ...]
) -> tuple[QuantizedNetwork, tuple[str, ...]]:
    """The network, with those layers' outputs in floating point that matter, and the names of these."""
    prepared = candidates.prepared
    quantizers = output_quantizers(prepared.folded, prepared.placement, prepared.plan.floating)
    placement = placement_with(prepared, weight_only)

    def made(names: tuple[str, ...]) -> QuantizedNetwork:
        left = without(placement, [quantizers[name] for name in names]) if names else placement
        return candidates.network(weights, left, weight_only)

    if not keeps_peak(prepared, list(quantizers.values())):
        quantizers = {}
    least = LEAST if prepared.meaning.divergence is None else 0.0  # a user's own has a scale of its own
    finer = choose_finer(list(quantizers), lambda names: candidates.divergence(made(names)), least=least)
    return made(finer), finer


def placement_with(prepared: Prepared, weight_only: tuple[str, ...]) -> Placement:
    """Where quantizers stand if these layers compute in floating point."""
    floating = (*prepared.plan.floating, *weight_only)
    return without_idle(prepared.folded, prepared.placement, floating) if weight_only else prepared.placement


def keeps_peak(prepared: Prepared, quantizers: Sequence[Quantizer]) -> bool:
    """Whether the values of some quantizers may be in floating point, as far as a bound on the peak goes."""
    limit = budget_in_activation_bits(least=0, activation_mb=prepared.options.activation_mb)
    if limit is None:
        return True
    memory = memory_of(prepared.folded, without(prepared.placement, list(quantizers)), prepared.plan.input_bits)
    return memory.peak(prepared.plan.input_bits) <= limit

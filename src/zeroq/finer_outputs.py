"""Output layers whose values leave in floating point, as rounding them to 8 bits is what does most of the harm."""

from __future__ import annotations

from collections.abc import Callable, Collection

SHARE = 0.3  # of the whole network's divergence that comes from rounding one layer's output, at least
LEAST = 1e-3  # divergence that it causes, at least: nats, or a share of the outputs' variance


def choose_finer(
    layers: Collection[str],
    divergence: Callable[[tuple[str, ...]], float],
    *,
    least: float = LEAST,
    share: float = SHARE,
) -> tuple[str, ...]:
    """Layers whose outputs are to leave in floating point; their integer kernels are lost, so only where it matters.

    divergence: of the network whose layers of these names leave so, on held-out images.
    Layers are tried one after another, each beside those that were chosen before it.
    """
    chosen: tuple[str, ...] = ()
    if not layers:
        return chosen
    whole = now = divergence(())
    for name in layers:
        finer = divergence((*chosen, name))
        if now - finer > max(least, share * whole):
            chosen, now = (*chosen, name), finer
    return chosen

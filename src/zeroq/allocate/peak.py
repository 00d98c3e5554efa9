"""A peak of memory as a filter of what layers may choose: widths of inputs that cannot be within it are left out."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from zeroq.simulate.peak import Memory, Moment

Widths = Mapping[str, tuple[int, ...]]  # of each layer's input, ascending
Harm = Callable[[str, int], float]  # what a width of a layer's input costs


def least_peak(memory: Memory, widths: Widths) -> int:
    """Bits in memory at most, when every input is as narrow as it may be."""
    return memory.peak({name: own[0] for name, own in widths.items()})


def possible(memory: Memory, widths: Widths, limit: int) -> dict[str, tuple[int, ...]]:
    """Without the widths that no setting within the peak has, whatever else is chosen.

    limit: in bits, at least `least_peak`.
    """
    least = {name: own[0] for name, own in widths.items()}
    return {
        name: tuple(width for width in own if memory.peak(least | {name: width}) <= limit)
        for name, own in widths.items()
    }


def within_peak(memory: Memory, widths: Widths, limit: int, harm: Harm) -> dict[str, tuple[int, ...]]:
    """Widths of which every combination is within the peak.

    As long as the widest ones together are not, a value of the worst moment becomes narrower: the one whose bits
    saved there do the least harm each. That is a rule of thumb, and what it gives away is part of the gap.
    limit: in bits, at least `least_peak`.
    """
    kept = possible(memory, widths, limit)
    while True:
        taken, moment = memory.worst({name: own[-1] for name, own in kept.items()})
        if taken <= limit:
            return kept
        kept |= mildest(memory, moment, kept, harm)


def mildest(memory: Memory, moment: Moment, widths: Widths, harm: Harm) -> dict[str, tuple[int, ...]]:
    """What is left to the layers that read a value of a moment, if that which is least harmful becomes narrower."""
    now = memory.widths({name: own[-1] for name, own in widths.items()})
    prices = []
    for name, count in moment.elements.items():
        width, changed = narrowed(memory.readers[name], widths)
        if changed:
            added = sum(harm(layer, own[-1]) - harm(layer, widths[layer][-1]) for layer, own in changed.items())
            prices.append((added / (count * (now[name] - width)), name, changed))
    return min(prices)[2]


def narrowed(readers: tuple[str, ...], widths: Widths) -> tuple[int, dict[str, tuple[int, ...]]]:
    """A value's next lower width, and what the layers that read it may then choose; nothing where it has none."""
    top = max(widths[layer][-1] for layer in readers)
    changed = {layer: tuple(width for width in widths[layer] if width < top) for layer in readers}
    if not all(changed.values()):
        return top, {}
    changed = {layer: own for layer, own in changed.items() if own != widths[layer]}
    return max((changed.get(layer) or widths[layer])[-1] for layer in readers), changed

"""--fastest: layers whose integer kernels are slower on this machine than floating point compute in floating point.

Each layer is timed by itself, in integers and in floating point at its place. That proposes layers; what decides is the
whole file with these in floating point, timed against the file without. Weights stay integers in the file either way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy
from numpy.typing import NDArray

import zeroq.devices as devices
from zeroq.deploy.one_layer import Kernel, KernelTimes, kernel_of, measure_kernel
from zeroq.deploy.timing import Timing, interleaved
from zeroq.deploy.verify import open_session
from zeroq.graph import Layer
from zeroq.numbers.grid import SHIFTED_BITS, Grid, shifted
from zeroq.numbers.values import BitSetting, IntegerWeight
from zeroq.preparation import Prepared
from zeroq.rounding import round_weight
from zeroq.simulate.outputs import behind, output_quantizers

WHOLE, AGAIN = "integers", "integers again"  # sessions of one file: how far apart they are is what chance does
PASSES = 3  # over all files, of which each must say the same
SECONDS = 2.0  # of a pass
LEAST = 0.01  # of the file's time, at least, that is worth a layer in floating point

Names = tuple[str, ...]  # of layers


def choose_fastest(
    prepared: Prepared, file: Callable[[Names], bytes], on_step: Callable[[int, int], None]
) -> dict[str, Any]:
    """What was measured and decided, as run.json and result.json have it.

    file: the bytes of the ONNX file in which layers of these names compute in floating point.
    """
    threads = prepared.options.threads or 0
    times = time_layers(kernels_by_layer(prepared), lambda kernel: measure_kernel(kernel, threads), on_step)
    proposed = proposals(times)
    files = {names: file(names) for names in ((), *proposed)} if proposed else {}
    most = None if prepared.options.size_mb is None else prepared.options.size_mb * 1e6
    fitting = [names for names in proposed if most is None or len(files[names]) <= most]
    passes = time_files(files, fitting, batch_of_one(prepared), threads) if fitting else []
    chosen = fastest_of(passes, fitting)
    return record_of(times, proposed, passes, fitting, chosen)


def kernels_by_layer(prepared: Prepared) -> dict[str, list[Kernel]]:
    """Of layers between integers on both sides: others compute in floating point already, or give it as they are."""
    network, placement, plan = prepared.folded, prepared.placement, prepared.plan
    nodes = {node.name: node for node in network.graph.nodes}
    outputs = output_quantizers(network, placement, plan.floating)
    return {
        layer.name: [kernel_of(network, nodes[site]) for site in layer.sites]
        for layer in plan.layers
        if layer.name not in outputs and all(behind(nodes[site], placement) is not None for site in layer.sites)
    }


def time_layers(
    kernels: Mapping[str, Sequence[Kernel]],
    measure: Callable[[Kernel], KernelTimes],
    on_step: Callable[[int, int], None],
) -> dict[str, KernelTimes]:
    """By layer, over all its sites; equal kernels are measured once."""
    unlike = list(dict.fromkeys(kernel for each in kernels.values() for kernel in each))
    known: dict[Kernel, KernelTimes] = {}
    for index, kernel in enumerate(unlike):
        known[kernel] = measure(kernel)
        on_step(index + 1, len(unlike))
    return {name: sum((known[kernel] for kernel in each), KernelTimes(0.0, 0.0, 0.0)) for name, each in kernels.items()}


def proposals(times: Mapping[str, KernelTimes]) -> list[Names]:
    """Layers that floating point may be faster for: each between integers, and each if its neighbours are no integers.

    Only whole files can tell which of the two holds.
    """
    between = tuple(name for name, each in times.items() if each.between < each.integers)
    bare = tuple(name for name, each in times.items() if each.bare < each.integers)
    return [names for names in dict.fromkeys((between, bare)) if names]


def time_files(
    files: Mapping[Names, bytes], proposed: Sequence[Names], feed: tuple[NDArray[Any], ...], threads: int
) -> list[dict[str, Timing]]:
    """Some passes over the file in integers, twice, and each proposal, by its number."""
    sources = {WHOLE: (), AGAIN: ()} | {str(index): names for index, names in enumerate(proposed)}
    sessions = {name: open_session(files[names], threads, spinning=False) for name, names in sources.items()}
    inputs = [each.name for each in sessions[WHOLE].get_inputs()]
    values = dict(zip(inputs, feed, strict=True))
    return [interleaved(sessions, values, seconds=SECONDS) for _ in range(PASSES)]


def fastest_of(passes: Sequence[Mapping[str, Timing]], proposed: Sequence[Names]) -> Names:
    """The fastest proposal that beats the file in integers in every pass, by more than chance does; () if none."""
    winners = [
        (sum(each[str(index)].median for each in passes), names)
        for index, names in enumerate(proposed)
        if all(is_faster(each, str(index)) for each in passes)
    ]
    return min(winners, default=(0.0, ()), key=lambda winner: winner[0])[1]


def is_faster(times: Mapping[str, Timing], name: str) -> bool:
    """Whether a file's median lies below both of the file in integers by more than these differ, and worth it."""
    one, other = times[WHOLE].median, times[AGAIN].median
    least = min(one, other)
    return times[name].median < least - max(abs(one - other), LEAST * least)


def record_of(
    times: Mapping[str, KernelTimes],
    proposed: Sequence[Names],
    passes: Sequence[Mapping[str, Timing]],
    fitting: Sequence[Names],
    chosen: Names,
) -> dict[str, Any]:
    """The decision, with the times that it rests on, in milliseconds; note: the same as a sentence."""
    files = None
    if passes:
        shown = fitting.index(chosen) if chosen else 0
        whole, fastest = (float(numpy.median([each[key].median for each in passes])) for key in (WHOLE, str(shown)))
        files = {"integers": round(whole, 4), "floating": round(fastest, 4)}
    between = [name for name in chosen if times[name].between < times[name].integers]
    layers = [
        {
            "name": name,
            "integers_ms": round(times[name].integers, 4),
            "floating_ms": round(times[name].between if name in between else times[name].bare, 4),
        }
        for name in chosen
    ]
    instructions = devices.integer_instructions()
    record = {"integer_instructions": instructions, "measured": len(times), "layers": layers, "files_ms": files}
    return record | {"note": note_of(record, max((len(names) for names in proposed), default=0))}


def note_of(record: Mapping[str, Any], proposed: int) -> str:
    """What came of it, in one sentence."""
    here = f"on this machine ({record['integer_instructions']})"
    if not proposed:
        return f"no layer is slower in integers than in floating point {here}: all {record['measured']} stay integers"
    if (files := record["files_ms"]) is None:
        return f"no file with layers in floating point fits the size asked for: all {record['measured']} stay integers"
    compared = f"{files['floating']:.3g} ms against {files['integers']:.3g} ms"
    if not record["layers"]:
        return (
            f"no file with layers in floating point is faster {here}, by more than chance in each of {PASSES} passes: "
            f"{compared}, so all {record['measured']} stay integers"
        )
    return f"{len(record['layers'])} of {record['measured']} layers in floating point {here}: {compared} in integers"


def reason_of(layer: Mapping[str, Any], bits: int) -> str:
    """Why a layer is not among the integers."""
    return (
        f"stays in floating point as its integer kernel is slower on this machine: {layer['integers_ms']:.3g} ms "
        f"against {layer['floating_ms']:.3g} ms; its weights are stored in {bits} bits"
    )


def batch_of_one(prepared: Prepared) -> tuple[NDArray[Any], ...]:
    """An input of one image."""
    example = prepared.network.example
    return tuple(value[:1].numpy() for value in example)


def weights_to_time(prepared: Prepared, setting: BitSetting) -> dict[str, IntegerWeight]:
    """Any integers of the right widths, as time hangs on no value: those that are soonest made. Files of them are as
    large as any: with all that rounding may add to a layer.
    """
    tensors, portable = prepared.folded.tensors, prepared.options.portable

    def any_weight(layer: Layer) -> IntegerWeight:
        found = round_weight(
            tensors[layer.weight], setting[layer.name], None, groups=layer.groups, method="nearest", portable=portable,
            name=layer.name,
        )  # fmt: skip
        # Rounding corrects the means of layers of one site; equal numbers might be stored once for several layers.
        corrects = layer.bias is None and len(layer.sites) == 1
        return with_shift(replace(found, bias=found.dequantized().flatten(1).sum(1) if corrects else None))

    return {layer.name: any_weight(layer) for layer in prepared.plan.layers}


def with_shift(weight: IntegerWeight) -> IntegerWeight:
    """On shifted grids, where these may be."""
    if weight.bits > SHIFTED_BITS:
        return weight
    integers = shifted(weight.integers, weight.integers.new_ones(len(weight.integers)))
    integers[(0,) * integers.dim()] = Grid(weight.bits, signed=True).high + 1
    return replace(weight, integers=integers)

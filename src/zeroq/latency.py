"""--latency-ms: how long each layer and the whole file take on this machine; what no setting keeps is refused at once.

onnxruntime unpacks weights of 2 to 7 bits when it loads a file, so one kernel serves every width and a layer is timed
once for all of them. What its time hangs on is the input: below 8 bits something cuts it off, or quantizes again what
others read in 8 bits. Each layer is timed by itself, its kinds in turns, and the whole file with all inputs at their
widest; what this takes beside the layers is one number, and what two layers' inputs share is counted for both. So the
latency of a setting is a sum over layers, bounded as bit operations are. None of it hangs on a value: it is measured
before there are images, with any ranges and weights.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import onnxruntime
from onnx import ModelProto

import zeroq.devices as devices
from zeroq.allocate import MILLISECOND
from zeroq.bounds import limits_of
from zeroq.deploy.one_layer import BETWEEN, CLIPPED, INTEGERS, NARROWED, Kernel, kernel_of, time_kinds
from zeroq.deploy.timing import interleaved
from zeroq.deploy.verify import open_session
from zeroq.fastest import batch_of_one, kernels_by_layer
from zeroq.graph.text import graph_to_data
from zeroq.numbers.values import Latencies
from zeroq.preparation import Prepared
from zeroq.rehearsal import file_without_numbers
from zeroq.run_directory import RunDirectory
from zeroq.simulate.placement import WIDE_BITS

DECISION = "latency"  # its name in run.json
NOTE = "a layer takes as long at every width of its weights, as these are unpacked when the file is loaded"

Measure = Callable[[Kernel, Iterable[str]], Mapping[str, float]]  # kernel, kinds -> milliseconds by kind


@dataclass(frozen=True)
class Timed:
    """What is timed of one layer."""

    kernels: tuple[Kernel, ...]  # of its sites
    kinds: Mapping[int, tuple[str, ...]]  # by bits of its input, those of its sites
    floating: bool  # whether it may compute in floating point


def time_network(prepared: Prepared, run: RunDirectory, on_step: Callable[[int, int], None]) -> dict[str, Any] | None:
    """What run.json is to hold of latencies: of an earlier run, or measured; None where they are not bounded.

    Raises SizeError where no setting keeps the bound, before anything is written.
    """
    if prepared.options.latency_ms is None:
        return None
    found: dict[str, Any] = run.known(DECISION, origin(prepared)) or measured(prepared, on_step)
    limits_of(with_latencies(prepared, found).plan, prepared.options, None, prepared.memory)
    return found


def keep(prepared: Prepared, run: RunDirectory, record: Mapping[str, Any] | None) -> None:
    """Store latencies in run.json before they are used."""
    if record is not None:
        run.decide(DECISION, origin(prepared), lambda: record)


def with_latencies(prepared: Prepared, record: Mapping[str, Any] | None) -> Prepared:
    """A network whose plan of layers says how long these take."""
    return prepared if record is None else replace(prepared, plan=replace(prepared.plan, latency=latencies_of(record)))


def origin(prepared: Prepared) -> dict[str, Any]:
    """What latencies hang on."""
    options, plan = prepared.options, prepared.plan
    return {
        "cpu": devices.processor(),
        "instructions": devices.integer_instructions(),
        "onnxruntime": onnxruntime.__version__,
        "threads": options.threads,
        "graph": graph_to_data(prepared.network.graph),
        "shapes": [list(value.shape) for value in prepared.network.example],
        "inputs": {name: list(widths) for name, widths in plan.inputs.items()},
        "floating": list(plan.floating),
        "fastest": options.fastest,
    }


def measured(prepared: Prepared, on_step: Callable[[int, int], None]) -> dict[str, Any]:
    """Times of this machine, at batch 1, as run.json has them."""
    start, threads = time.perf_counter(), prepared.options.threads or 0
    on_step(0, 1)
    whole = time_file(file_without_numbers(prepared), prepared)
    layers = timed_layers(prepared)
    times = time_kernels(layers.values(), lambda kernel, kinds: time_kinds(kernel, kinds, threads), on_step)
    return record_of(layers, times, prepared.plan.input_bits, whole) | {
        "cpu": devices.processor(),
        "integer_instructions": devices.integer_instructions(),
        "seconds": round(time.perf_counter() - start, 3),
        "note": NOTE,
    }


def timed_layers(prepared: Prepared) -> dict[str, Timed]:
    """Of every quantized layer."""
    network, of_value, plan = prepared.folded, prepared.placement.of_value, prepared.plan
    nodes = {node.name: node for node in network.graph.nodes}
    between = kernels_by_layer(prepared) if prepared.options.fastest else {}

    def kind(site: str, layer: str, bits: int) -> str:
        """Of a site: cut off behind what makes the value, where no other reads it, which may want more bits."""
        if bits == WIDE_BITS:
            return INTEGERS
        quantizer = of_value[nodes[site].all_input_nodes[0].name].name
        return CLIPPED if prepared.memory.readers.get(quantizer) == (layer,) else NARROWED

    return {
        layer.name: Timed(
            tuple(kernel_of(network, nodes[site]) for site in layer.sites),
            {bits: tuple(kind(site, layer.name, bits) for site in layer.sites) for bits in plan.inputs[layer.name]},
            layer.name in between,
        )
        for layer in plan.layers
    }


def time_kernels(
    layers: Iterable[Timed], measure: Measure, on_step: Callable[[int, int], None]
) -> dict[Kernel, Mapping[str, float]]:
    """By kernel and kind; equal kernels are measured once, in all kinds that a layer wants of them."""
    wanted: dict[Kernel, dict[str, None]] = {}
    for layer in layers:
        for index, kernel in enumerate(layer.kernels):
            own = {INTEGERS, *(kinds[index] for kinds in layer.kinds.values()), *([BETWEEN] if layer.floating else [])}
            wanted.setdefault(kernel, {}).update(dict.fromkeys(sorted(own)))
    found = {}
    for index, (kernel, kinds) in enumerate(wanted.items()):
        found[kernel] = measure(kernel, list(kinds))
        on_step(index + 1, len(wanted))
    return found


def record_of(
    layers: Mapping[str, Timed],
    times: Mapping[Kernel, Mapping[str, float]],
    input_bits: Mapping[str, int],
    whole: float,
) -> dict[str, Any]:
    """Milliseconds of each layer by the bits of its input, and of all that is beside the layers.

    input_bits: with which the whole file was timed.  A step more takes no less, whatever chance says of a short layer.
    Where a layer may compute in floating point, it takes what the faster of the two does.
    """
    integers = {
        name: {bits: taken(layer.kernels, kinds, times) for bits, kinds in layer.kinds.items()}
        for name, layer in layers.items()
    }
    own = {name: dict(by_bits) for name, by_bits in integers.items()}
    for name, layer in layers.items():
        if layer.floating:
            floating = sum(times[kernel][BETWEEN] for kernel in layer.kernels)
            own[name] = {bits: min(each, floating) for bits, each in integers[name].items()}
    beside = whole - sum(integers[name][bits] for name, bits in input_bits.items())
    return {
        "whole_ms": rounded(whole),
        "beside_ms": rounded(beside),
        "layers": [
            {"name": name, "ms": {str(bits): rounded(each) for bits, each in by_bits.items()}}
            for name, by_bits in own.items()
        ],
    }


def taken(kernels: Sequence[Kernel], kinds: Sequence[str], times: Mapping[Kernel, Mapping[str, float]]) -> float:
    """Milliseconds of a layer's sites, each of its kind."""
    return sum(max(times[kernel][kind], times[kernel][INTEGERS]) for kernel, kind in zip(kernels, kinds, strict=True))


def rounded(milliseconds: float) -> float:
    """To whole ticks."""
    return round(milliseconds * MILLISECOND) / MILLISECOND


def latencies_of(record: Mapping[str, Any]) -> Latencies:
    """In ticks."""
    by_layer = {
        layer["name"]: {int(bits): round(each * MILLISECOND) for bits, each in layer["ms"].items()}
        for layer in record["layers"]
    }
    return Latencies(by_layer, round(record["beside_ms"] * MILLISECOND))


def time_file(model: ModelProto, prepared: Prepared) -> float:
    """Milliseconds of one image in a whole file here, median."""
    session = open_session(model, prepared.options.threads or 0, spinning=False)
    names = [each.name for each in session.get_inputs()]
    feed = dict(zip(names, batch_of_one(prepared), strict=True))
    return interleaved({"file": session}, feed)["file"].median

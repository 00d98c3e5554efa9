"""What kinds of activation ranges, and noise to fit them on, are worth on real pictures, activations alone quantized:

    python -m benchmarks.ranges --data ../shared/data

Results are kept in benchmarks/results/ranges/; a network whose method is unchanged is not measured again. Distilled
images of an earlier benchmark of the same method are used again. docs/ranges.md is written anew after each.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.document import NOTHING, table
from benchmarks.halves import CONFIRMATION, SELECTION, batches, halves, spread
from benchmarks.process import add_common, parsed, read
from benchmarks.rows import CACHE, FAMILIES, ROOT, key_of, method_code
from benchmarks.task_rows import NETWORKS as TASKS_OF
from benchmarks.upkeep import renew_networks
from zeroq.accuracy import model_subject
from zeroq.candidates import Images, accompanied, divergence_of, outputs
from zeroq.channels import helpful_factors, trials
from zeroq.evaluate import TASKS
from zeroq.fitted_ranges import KINDS, compared_ranges, fit_ranges
from zeroq.models import LoadedModel, load_model
from zeroq.numbers.values import Ranges
from zeroq.options import Options
from zeroq.pipeline import quantize_model
from zeroq.preparation import Prepared, prepare
from zeroq.ranges.channels import ChannelBins
from zeroq.repair import middles
from zeroq.run_directory import RunDirectory
from zeroq.simulate import quantize_activations

DOCUMENT = ROOT / "docs" / "ranges.md"
RESULTS = ROOT / "benchmarks" / "results" / "ranges"
BITS = (8, 6, 4)
PICTURES = 96  # of each half
NO_NOISE, NOT_CENTRED = "no noise", "not centred"
NO_FACTORS, FREE, AT_A_COST = "no factors", "free factors", "factors at a cost"
COLUMNS = (*KINDS, NO_NOISE, NO_FACTORS, FREE, AT_A_COST, NOT_CENTRED)
NAMES = (*FAMILIES, *TASKS_OF)
CHOICES = {"networks": list(NAMES)}
HEAD = """# Activation ranges

Written by `python -m benchmarks.ranges --data ../shared/data`; change nothing here by hand.

A range cuts off outliers so that the rest is resolved more finely. How finely it should be depends on what the errors
are to be least of. *Alike*: the squared error of the value itself, every number alike. *Weighed*: the squared error of
the output, to first order; every number counts by the squared gradient of the output, from one backward pass of a
random probe (`ranges/probe.py`). A run takes the kind with which the network diverges less on held-out distilled images
(`fitted_ranges.py`): *kept*. Both are fitted to distilled images and to half as many of noise of natural spectrum, as
distilled images give the first layers fewer of the rare high values that pictures do. *No noise*: what would be kept of
the two, fitted to distilled images alone.

Channels of some values have factors (`channels.py`), where the network diverges clearly less with them on held-out
distilled images, which *kept* says as well. *No factors*, *free factors*: those that depthwise layers alone read,
*factors at a cost*: also those that other convolutions read, whose weights take them up, at fewer than 8 bits: what
would be kept of the two kinds with each of these, in networks that have any. *Not centred*: what would be kept without
factors if no channel were moved either, in networks that have values whose channels can be moved to lie around zero.

Below, the divergence from floating point of networks whose activations alone are quantized, on real pictures that no
run has seen: mean KL of class scores, of detectors the normalized squared error. Selection and confirmation halves as
on the page of benchmarks; of detectors and segmenters even and odd places. A result marked `stale` was measured with
another version of the method.
"""


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.ranges", description=(__doc__ or "").split("\n")[0])
    add_common(parser, CHOICES)
    asked = parsed(parser, CHOICES)
    renew_networks(asked, RESULTS, key_for, measured, write_document, "bits")
    return 0


def write_document() -> None:
    """docs/ranges.md from all results there are."""
    DOCUMENT.write_text(document(), encoding="utf-8")


def key_for(name: str) -> str:
    """Of everything that decides a result."""
    return key_of([name, PICTURES, BITS, method_code(name)])


def measured(name: str, data: Path, threads: int | None) -> tuple[dict[str, Any], None]:
    """Divergence of both kinds for every width, by half; a failure ends the command."""
    model = load_model(f"{data}/networks/{name}.py:{name}")
    images = distilled(model, CACHE / "runs" / method_code(name)[:12] / name, threads)
    pictures = pictures_of(name, model, data)
    found: dict[str, Any] = {}
    for bits in BITS:
        prepared = prepare(model, Options.of(activation_bits=bits))
        plain = Images(images, "distilled")
        own = accompanied(plain, prepared, seed=0)
        centred = prepared.centred(middles(prepared.folded, own.observed))
        factors = helpful_factors(centred, own)[0]
        scaled = centred.scaled(factors) if factors else centred
        kinds = compared_ranges(scaled, own)
        tried = {kind: (scaled, ranges) for kind, (ranges, _) in kinds.items()}
        tried[NO_NOISE] = scaled, fit_ranges(scaled, plain)[0]
        tried |= {name: (network, fit_ranges(network, own)[0]) for name, network in by_factors(centred, own).items()}
        if centred.centres:
            tried[NOT_CENTRED] = prepared, fit_ranges(prepared, own)[0]
        record: dict[str, Any] = {
            "kept": min(kinds, key=lambda kind: kinds[kind][1]), "factors": kind_of(centred, factors)
        }  # fmt: skip
        for half, inputs in pictures.items():
            record[half] = {column: divergence(*network, inputs) for column, network in tried.items()}
        found[str(bits)] = record
    return {"bits": found}, None


def by_factors(prepared: Prepared, images: Images) -> dict[str, Prepared]:
    """The network with factors of each kind that can be tried, and without; none where none can."""
    bins = {value: ChannelBins(value) for values in prepared.scalable.values() for value in values}
    fit_ranges(prepared, images, beside=bins)
    found = {kind_of(prepared, factors): prepared.scaled(factors) for factors, _ in trials(prepared, bins)}
    return {NO_FACTORS: prepared, **found} if found else {}


def kind_of(prepared: Prepared, factors: Mapping[str, Tensor]) -> str:
    """What factors are called, given by their families."""
    if not factors:
        return NO_FACTORS
    return FREE if all(family.free for family in prepared.scalable if family.name in factors) else AT_A_COST


def distilled(model: LoadedModel, out: Path, threads: int | None) -> Tensor:
    """The images of a run, which an earlier benchmark has left or which is made now."""
    quantize_model(model, Options.of(threads=threads), out)
    with RunDirectory(out) as run:
        return run.read_tensors("distilled.safetensors")["images"]


def pictures_of(name: str, model: LoadedModel, data: Path) -> dict[str, Tensor]:
    """Inputs of each half."""
    if name in FAMILIES:
        return {
            half.role: torch.cat(list(batches(half.data, spread(half.data, PICTURES))))
            for half in halves(name, model, data)
        }
    subject = model_subject(model, None)
    source = TASKS[subject.meaning.task].open(data / TASKS_OF[name], model.picture(), subject.meaning, subject.classes)
    every = first(inputs for inputs, _ in source.batches(1))
    return {SELECTION: every[::2], CONFIRMATION: every[1::2]}


def first(parts: Iterable[Tensor]) -> Tensor:
    """The first PICTURES."""
    taken: list[Tensor] = []
    for part in parts:
        taken.append(part)
        if sum(map(len, taken)) >= PICTURES:
            break
    return torch.cat(taken)[:PICTURES]


def divergence(prepared: Prepared, ranges: Ranges, inputs: Tensor) -> float:
    """Of the network with its activations alone quantized."""
    graph, tensors, _ = quantize_activations(
        prepared.folded, prepared.placement, ranges, prepared.plan.input_bits
    )
    network = replace(prepared.folded, graph=graph, tensors=tensors)
    return divergence_of(prepared.meaning, outputs(prepared.folded.run, inputs), network.run, inputs)


def document() -> str:
    """The page, from all results there are."""
    found = {name: record for name in NAMES if (record := read(RESULTS / f"{name}.json")) is not None}
    stale = {name for name, record in found.items() if record["key"] != key_for(name)}
    parts = [HEAD, f"Processors: {', '.join(sorted({record['cpu'] for record in found.values()})) or NOTHING}."]
    for bits in BITS:
        lines = [
            [f"{name}{' `stale`' if name in stale else ''}", *cells(record["bits"][str(bits)])]
            for name, record in found.items()
        ]
        head = ["network", "kept", *(f"{column}, {half}" for half in (SELECTION, CONFIRMATION) for column in COLUMNS)]
        parts.append(f"## {bits} bits\n\n{table(head, lines)}")
    return "\n\n".join(part.strip() for part in parts) + "\n"


def cells(record: dict[str, Any]) -> list[str]:
    """What was kept, and the divergences."""
    found = [record[half].get(column) for half in (SELECTION, CONFIRMATION) for column in COLUMNS]
    kept = [record["kept"], *(kind for kind in (record.get("factors"),) if kind in (FREE, AT_A_COST))]
    return [", ".join(kept), *(NOTHING if each is None else f"{each:.4f}" for each in found)]


if __name__ == "__main__":
    sys.exit(main())

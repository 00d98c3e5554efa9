"""What was asked for, as a sentence and as the command that asks for it again."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

from zeroq.options import Options, flag
from zeroq.report.words import count_of, listed, number


def sentence(options: Options, *, distilled: bool = True) -> str:
    """The target, the widths and what they were fitted on, in one sentence.

    distilled: whether the images were made from the network, rather than left as noise.
    """
    widths = listed([str(width) for width in options.candidate_widths], "or")
    limits = []
    if options.average_bits is not None:
        limits.append(f"{number(options.average_bits)} on average")
    if options.compression is not None:
        limits.append(f"together {number(options.compression)} times smaller")
    if options.size_mb is not None:
        limits.append(f"in a file of at most {number(options.size_mb)} MB")
    if options.bit_operations is not None:
        limits.append(f"within {number(options.bit_operations)} × 10⁹ bit operations for each image")
    target = f"Weights of {widths} bits{', ' if limits else ' in every layer'}{' and '.join(limits)}"
    if options.edges is not None and options.candidate_widths != (options.edges,):
        target += f" but the first and the last, which have {options.edges}"
    named = [f"{pattern} at {width}" for pattern, width in options.layer_bits]
    named += [f"{pattern} in floating point" for pattern in options.keep_float]
    if named:
        target += f"; as asked by name, {listed(named)}"
    inputs = f"activations of {listed([str(width) for width in options.activation_widths], 'or')} bits"
    if options.edge_inputs is not None and options.activation_widths != (options.edge_inputs,):
        inputs += f", {options.edge_inputs} in front of the first and the last layer"
    if options.activation_mb is not None:
        inputs += f", at most {number(options.activation_mb)} MB of them at one time"
    if options.latency_ms is not None:
        inputs += f", at most {number(options.latency_ms)} ms for each image"
    return f"{target}; {inputs}; {source(options, distilled)}."


def source(options: Options, distilled: bool) -> str:
    """Where the images came from, without which nothing can be measured."""
    if options.calibration is not None:
        return f"ranges and rounding fitted to the pictures in {options.calibration.name or options.calibration}"
    if not distilled:
        return "no data: everything was fitted to noise with the spectrum of natural pictures"
    return "no data: everything was fitted to images distilled from the network itself"


def command(run: Mapping[str, Any]) -> list[str]:
    """The words of the shell command of this run, quoted, or of the call in Python; options at their defaults are left
    out.
    """
    options = Options.of(**run["options"])
    if in_python(run):
        return f"zeroq.quantize({', '.join(['module', 'example', *keywords(options)])})".split(" ")
    words = ["zeroq", "quantize", str(run["model"])]
    if run.get("weights"):
        words += ["--weights", str(run["weights"])]
    return [shlex.quote(word) for word in (*words, *run.get("given", ()), *arguments(options))]


def in_python(run: Mapping[str, Any]) -> bool:
    """Whether a run was of a module that was held there."""
    return run.get("given", ()) is None


def keywords(options: Options) -> Iterator[str]:
    """Every option that is not at its default, as a call in Python spells it."""
    given = options.to_dict()
    for field in fields(options):
        if getattr(options, field.name) != field.default:
            yield f"{field.name}={given[field.name]!r}"


def arguments(options: Options) -> Iterator[str]:
    """Every option that is not at its default, as the command line spells it."""
    for field in fields(options):
        value = getattr(options, field.name)
        if value == field.default:
            continue
        if isinstance(value, bool):
            yield flag(field.name) if value else f"--no-{field.name.replace('_', '-')}"
        elif field.name == "layer_bits":
            for pattern, width in value:
                yield from ("--layer-bits", f"{pattern}={width}")
        elif field.name == "keep_float":
            for pattern in value:
                yield from ("--keep-float", pattern)
        else:
            yield from (flag(field.name), spelled(value))


def spelled(value: Any) -> str:
    """Several values with commas between them; numbers without needless zeros."""
    if isinstance(value, tuple):
        return ",".join(map(spelled, value))
    return f"{value:.17g}" if isinstance(value, float) and value == int(value) else str(value)


def images_sentence(options: Options, shown: int, *, distilled: bool = True) -> str:
    """What the pictures of the contact sheet are."""
    if options.calibration is not None:
        return f"{count_of(shown, 'picture')} of those you gave, as the network sees them."
    if not distilled:
        return (
            "Noise with the spectrum, the colours and the contrast of natural pictures: the network holds nothing that "
            "says what its pictures were like."
        )
    return (
        "Made from the statistics that the network's BatchNorms keep, or where it has none from what its attention "
        "tells apart, not taken from anywhere: they need not look like anything, only move the network as real "
        "pictures do."
    )

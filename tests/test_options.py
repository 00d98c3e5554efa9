"""Every refusal is one sentence, pinned here."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from zeroq import options
from zeroq.errors import OptionError
from zeroq.numbers import grid
from zeroq.options import Options

REFUSED: list[tuple[dict[str, Any], str]] = [
    (
        {"average_bits": 4.0, "size_mb": 3},
        "--average-bits 4 and --size-mb 3 are each a target of their own: keep one of --average-bits, --compression "
        "and --size-mb.",
    ),
    ({"average_bits": 9}, "--average-bits 9: choose 2 to 8, the bits that a weight may have."),
    ({"average_bits": 1.5}, "--average-bits 1.5: choose 2 to 8, the bits that a weight may have."),
    ({"average_bits": float("nan")}, "--average-bits nan: choose 2 to 8, the bits that a weight may have."),
    ({"compression": 40}, "--compression 40: choose 4 to 16, which is 32 over the bits of a weight."),
    ({"size_mb": -1.0}, "--size-mb -1: give a size above 0, in megabytes of 10^6 bytes."),
    ({"size_mb": float("inf")}, "--size-mb inf: give a size above 0, in megabytes of 10^6 bytes."),
    (
        {"weight_bits": (2, 4, 8)},
        "--weight-bits 2,4,8 leaves a choice for each layer, which needs a target: add --average-bits, "
        "--compression, --size-mb or --bit-operations, or name one width.",
    ),
    ({"weight_bits": 9}, "--weight-bits 9: choose 2 to 8."),
    ({"weight_bits": ()}, "--weight-bits names no width: give one, or several such as 2,4,8."),
    ({"weight_bits": True}, "--weight-bits True: choose 2 to 8."),
    ({"activation_bits": 1}, "--activation-bits 1: choose 2 to 8."),
    (
        {"activation_bits": (4, 8), "average_bits": 4},
        "--activation-bits 4,8 leaves a choice for each layer's input, which needs a bound on what inputs take: "
        "add --bit-operations, --activation-mb or --latency-ms, or name one width.",
    ),
    ({"activation_bits": (4, 9), "bit_operations": 2}, "--activation-bits 9: choose 2 to 8."),
    ({"activation_bits": ()}, "--activation-bits names no width: give one, or several such as 4,8."),
    ({"edge_bits": "wide"}, "--edge-bits wide: choose 2 to 8, or same."),
    ({"edge_bits": 1}, "--edge-bits 1: choose 2 to 8, or same."),
    ({"layer_bits": {"conv*": 16}}, "--layer-bits conv*: a width of 16: choose 2 to 8."),
    (
        {"layer_bits": "conv*"},
        "--layer-bits conv*: write a pattern of layer names and a width, as in 'stage1.*=4'.",
    ),
    ({"layer_bits": ["conv*=4", "conv*=8"]}, "--layer-bits conv*=4 and conv*=8 differ: keep one."),
    (
        {"layer_bits": {"fc": 8}, "keep_float": "fc"},
        "--keep-float fc and --layer-bits fc=8 contradict each other: drop one.",
    ),
    ({"effort": "quick"}, "--effort quick: choose fast, balanced or best."),
    ({"effort": "quick", "average_bits": 4}, "--effort quick: choose fast, balanced or best."),
    ({"images": 0}, "--images 0: give a whole number, at least 1."),
    ({"iterations": -1}, "--iterations -1: give a whole number, at least 0."),
    (
        {"calibration": "pictures", "iterations": 10},
        "--iterations is about distilled images, and --calibration puts your own pictures in their place: "
        "drop one of the two.",
    ),
    ({"input_mean": 0.5}, "--input-mean and --input-std belong together: give both or neither."),
    (
        {"input_mean": [0.5, 0.5, 0.5], "input_std": 0.2},
        "--input-mean has 3 values and --input-std 1: give one per channel in both.",
    ),
    (
        {"input_mean": [128.0, 0.5], "input_std": [0.2, 0.2]},
        "--input-mean 128,0.5: give means of pixel / 255, from 0 to 1.",
    ),
    (
        {"input_mean": 0.5, "input_std": 0},
        "--input-std 0: give deviations of pixel / 255, above 0 and at most 1.",
    ),
    ({"precision": "fp16"}, "--precision fp16: choose auto, fp32 or bf16."),
    ({"seed": -1}, "--seed -1: give a whole number from 0 to 9223372036854775807."),
    ({"seed": 0.5}, "--seed 0.5: give a whole number from 0 to 9223372036854775807."),
    ({"device": "gpu"}, "--device gpu: choose auto, cpu or cuda."),
    (
        {"device": "cuda", "memory_limit": 4},
        "--memory-limit bounds what a run takes on the CPU: choose --device cpu, or drop it.",
    ),
    ({"threads": 0}, "--threads 0: give a whole number from 1 to 1024."),
    ({"threads": 10**11}, "--threads 100000000000: give a whole number from 1 to 1024."),
    ({"portable": "no"}, "portable='no': give True or False."),
    ({"keep_images": 0}, "keep_images=0: give True or False."),
    (
        {"bit_operations": 1, "fastest": True},
        "--fastest computes layers in floating point, which --bit-operations does not count: drop one of the two.",
    ),
    ({"memory_limit": 0}, "--memory-limit 0: give GB of 10^9 bytes, above 0."),
    ({"memory_limit": float("nan")}, "--memory-limit nan: give GB of 10^9 bytes, above 0."),
    ({"bit_operations": 0}, "--bit-operations 0: give a number above 0, of 10^9 for each image."),
    ({"activation_mb": -2.0}, "--activation-mb -2: give a number above 0, in megabytes of 10^6 bytes."),
    ({"latency_ms": 0.0}, "--latency-ms 0: give a number above 0, in milliseconds for one image."),
    (
        {"average_bits": 4, "bit_operations": 1.5, "latency_ms": 2, "activation_bits": (4, 8)},
        "--average-bits 4, --bit-operations 1.5, --latency-ms 2: of these sums over layers two at most can be kept at "
        "once where inputs have a choice: drop one, or name one width in --activation-bits.",
    ),
    ({"reconstruct": -1}, "--reconstruct -1: give a whole number, at least 0."),
    ({"average_bit": 4}, "There is no option 'average_bit': did you mean 'average_bits'?"),
    (
        {"overwrite": True},
        f"There is no option 'overwrite': choose from {', '.join(field.name for field in fields(Options))}.",
    ),
]


@pytest.mark.parametrize(("asked", "sentence"), REFUSED, ids=[str(asked) for asked, _ in REFUSED])
def test_what_cannot_be_done_is_refused_in_one_sentence(asked: dict[str, Any], sentence: str) -> None:
    with pytest.raises(OptionError) as refusal:
        Options.of(**asked)
    assert str(refusal.value) == sentence


def test_no_pattern_is_none() -> None:
    assert Options.of(keep_float=None) == Options()


@pytest.mark.parametrize(
    ("asked", "label", "widths", "edges"),
    [
        ({}, "w8a8", (8,), 8),
        ({"weight_bits": 4}, "w4a8", (4,), 8),
        ({"weight_bits": [4, 4], "edge_bits": "same"}, "w4a8", (4,), None),
        ({"average_bits": 4.0}, "avg4-a8", (2, 4, 8), None),
        ({"average_bits": 4, "edge_bits": 8}, "avg4-a8", (2, 4, 8), 8),
        ({"size_mb": 3.5, "activation_bits": 6}, "size3.5-a6", (2, 4, 8), None),
        ({"compression": 8, "weight_bits": (5, 3)}, "compression8-a8", (3, 5), None),
        ({"bit_operations": 1.5}, "bops1.5-a8", (2, 4, 8), None),
        ({"bit_operations": 2, "average_bits": 4}, "avg4-bops2-a8", (2, 4, 8), None),
        ({"bit_operations": 2, "activation_bits": [8, 4]}, "bops2-a4-8", (2, 4, 8), None),
        ({"activation_mb": 0.3, "activation_bits": [8, 4]}, "w8a4-8-peak0.3", (8,), 8),
        ({"activation_mb": 0.3, "size_mb": 2}, "size2-peak0.3-a8", (2, 4, 8), None),
        ({"latency_ms": 2.5, "fastest": True}, "w8a8-ms2.5", (8,), 8),
        ({"latency_ms": 2, "size_mb": 2, "bit_operations": 3}, "size2-bops3-ms2-a8", (2, 4, 8), None),
    ],
)
def test_what_follows_from_the_options(
    asked: dict[str, Any], label: str, widths: tuple[int, ...], edges: int | None
) -> None:
    chosen = Options.of(**asked)
    assert (chosen.label, chosen.candidate_widths, chosen.edges) == (label, widths, edges)


@pytest.mark.parametrize(
    ("asked", "bits"),
    [
        ({"weight_bits": 4, "activation_bits": 4}, 8),
        ({"average_bits": 4, "activation_bits": 6}, 8),
        ({"average_bits": 4, "activation_bits": 6, "edge_bits": "same"}, None),
        ({"average_bits": 4, "edge_bits": 5}, 5),
        ({"bit_operations": 2, "activation_bits": [8, 4]}, None),
        ({"activation_mb": 0.3, "activation_bits": [8, 4]}, 8),
    ],
)
def test_what_edges_read_is_wide_unless_it_is_part_of_a_choice(asked: dict[str, Any], bits: int | None) -> None:
    assert Options.of(**asked).edge_inputs == bits


def test_options_survive_json() -> None:
    chosen = Options.of(
        average_bits=4, weight_bits=[2, 3], layer_bits="conv*=8", keep_float="fc", input_mean=0.5, input_std=0.2, seed=7
    )
    assert Options.of(**json.loads(json.dumps(chosen.to_dict()))) == chosen
    several = Options.of(activation_bits=[8, 4, 8], bit_operations=1.5)
    assert several.activation_widths == (4, 8) and Options.of(activation_bits=[6]).activation_bits == 6
    assert Options.of(**json.loads(json.dumps(several.to_dict()))) == several
    pictures = Options.of(calibration="some/pictures")
    assert pictures.calibration == Path("some/pictures")
    assert Options.of(**json.loads(json.dumps(pictures.to_dict()))) == pictures


def test_the_widths_are_those_of_the_grid() -> None:
    assert (options.LEAST_BITS, options.MOST_BITS) == (grid.LEAST_BITS, grid.MOST_BITS)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"layer_bits": None}, "--layer-bits None: "),
        ({"layer_bits": [("a",)]}, "--layer-bits [('a',)]: "),
        ({"calibration": 3}, "--calibration 3: "),
        ({"activation_bits": None}, "--activation-bits None: choose 2 to 8."),
        ({"keep_float": [1]}, "A layer is named by a pattern such as 'stage1.*', and 1 is none."),
        ({"layer_bits": {1: 4}}, "A layer is named by a pattern such as 'stage1.*', and 1 is none."),
    ],
    ids=str,
)
def test_values_of_another_kind_are_refused(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(OptionError) as error:
        Options.of(**options)
    assert str(error.value).startswith(sentence)

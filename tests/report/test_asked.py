"""What was asked for, in words and as a command."""

from __future__ import annotations

import shlex
from typing import Any

import pytest

from zeroq.options import Options
from zeroq.report import asked

NO_DATA = "no data: everything was fitted to images distilled from the network itself."


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({}, f"Weights of 8 bits in every layer; activations of 8 bits; {NO_DATA}"),
        (
            {"weight_bits": 4},
            "Weights of 4 bits in every layer but the first and the last, which have 8; activations of 8 bits; "
            + NO_DATA,
        ),
        ({"average_bits": 4}, f"Weights of 2, 4 or 8 bits, 4 on average; activations of 8 bits; {NO_DATA}"),
        (
            {"compression": 10.5, "activation_bits": 6},
            "Weights of 2, 4 or 8 bits, together 10.5 times smaller; activations of 6 bits, 8 in front of the first "
            f"and the last layer; {NO_DATA}",
        ),
        (
            {"bit_operations": 1.5, "average_bits": 4},
            "Weights of 2, 4 or 8 bits, 4 on average and within 1.5 × 10⁹ bit operations for each image; "
            f"activations of 8 bits; {NO_DATA}",
        ),
        (
            {"activation_mb": 0.25, "activation_bits": [4, 8]},
            "Weights of 8 bits in every layer; activations of 4 or 8 bits, 8 in front of the first and the last layer, "
            "at most 0.25 MB of them at one time; "
            + NO_DATA,
        ),
        (
            {"latency_ms": 2.5},
            f"Weights of 8 bits in every layer; activations of 8 bits, at most 2.5 ms for each image; {NO_DATA}",
        ),
        (
            {"size_mb": 3.5, "weight_bits": [3, 8], "calibration": "some/pictures"},
            "Weights of 3 or 8 bits, in a file of at most 3.5 MB; activations of 8 bits; "
            "ranges and rounding fitted to the pictures in pictures.",
        ),
    ],
)
def test_sentence(options: dict[str, Any], text: str) -> None:
    assert asked.sentence(Options.of(**options)) == text


def test_command_has_every_option_that_is_not_at_its_default() -> None:
    options = Options.of(
        size_mb=3.5, weight_bits=[2, 4, 8], layer_bits={"stage1.*": 4, "head": 8}, keep_float="a*", portable=False,
        keep_images=False, edge_bits="same", seed=7, input_mean=[0.5], input_std=[0.25], fastest=True,
    )  # fmt: skip
    run = {"model": "my net.py:make", "weights": "w.pt", "options": options.to_dict()}
    assert shlex.split(" ".join(asked.command(run))) == [
        "zeroq", "quantize", "my net.py:make", "--weights", "w.pt", "--size-mb", "3.5", "--weight-bits", "2,4,8",
        "--edge-bits", "same", "--layer-bits", "stage1.*=4", "--layer-bits", "head=8", "--keep-float", "a*",
        "--no-portable", "--fastest", "--input-mean", "0.5", "--input-std", "0.25", "--seed", "7", "--no-keep-images",
    ]  # fmt: skip


def test_command_of_defaults_is_short_and_numbers_are_exact() -> None:
    assert asked.command({"model": "digits", "options": Options().to_dict()}) == ["zeroq", "quantize", "digits"]
    run = {"model": "digits", "options": Options.of(average_bits=10 / 3).to_dict()}
    assert float(asked.command(run)[-1]) == 10 / 3
    assert asked.command({"model": "digits", "options": Options.of(average_bits=4.0).to_dict()})[-1] == "4"


def test_command_says_how_pictures_become_inputs() -> None:
    run = {"model": "net.py:make", "given": ["--preprocess", "my p.json", "--input-shape", "3,40,40"]}
    assert shlex.split(" ".join(asked.command(run | {"options": Options().to_dict()}))) == [
        "zeroq", "quantize", "net.py:make", "--preprocess", "my p.json", "--input-shape", "3,40,40",
    ]  # fmt: skip


def test_a_module_held_in_python_has_a_call() -> None:
    options = Options.of(average_bits=4, layer_bits={"head": 8}, keep_float="a*", portable=False)
    run = {"model": "network", "given": None, "options": options.to_dict()}
    assert " ".join(asked.command(run)) == (
        "zeroq.quantize(module, example, average_bits=4, layer_bits={'head': 8}, keep_float=['a*'], portable=False)"
    )


def test_layers_that_were_named_are_in_the_sentence() -> None:
    said = asked.sentence(Options.of(average_bits=4, layer_bits="conv1=8", keep_float="head"))
    assert "; as asked by name, conv1 at 8 and head in floating point; activations" in said

"""Bounds beside size, as limits and in whole runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.runs import loaded, quick_run
from zeroq.bounds import Limits, limits_of
from zeroq.errors import SizeError
from zeroq.options import Options
from zeroq.preparation import prepare
from zeroq.run_directory import read_json
from zeroq.terminal import run_rows

STEM, BODY, HEAD = 64 * 8 * 27, 64 * 8 * 72, 4 * 8  # multiply-accumulates of the network "residual"


def test_limits_are_those_that_were_asked_for() -> None:
    plan = prepare(loaded("residual"), Options.of(average_bits=4, bit_operations=0.003)).plan
    assert limits_of(plan, Options.of(average_bits=4, bit_operations=0.003), 0) == Limits(4 * 1400, 3_000_000)
    assert limits_of(plan, Options.of(size_mb=0.001), 300) == Limits(700 * 8, None)
    assert limits_of(plan, Options.of(size_mb=0.000001), None) == Limits(None, None)


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        (
            {"bit_operations": 0.0001},
            "0.0001 x 10^9 bit operations cannot be reached, the smallest setting has 0.001402: ",
        ),
        (
            {"bit_operations": 0.0001, "compression": 10},
            "0.0001 x 10^9 bit operations cannot be reached with --compression 10, the smallest setting has 0.001402: ",
        ),
    ],
)
def test_what_no_setting_reaches_is_refused_before_anything_is_written(
    asked: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(SizeError) as caught:
        quick_run("residual", out=tmp_path / "run", **asked)
    assert str(caught.value).startswith(sentence)
    assert not (tmp_path / "run").exists()
    assert 2 * 8 * (STEM + 2 * BODY + HEAD) == 1_401_344


def test_a_run_within_a_number_of_bit_operations() -> None:
    run = quick_run("residual", bit_operations=0.0025)
    result, frontier = run.result, read_json(run.directory / "frontier.json")
    counted = sum(
        layer["multiply_accumulates"] * layer["weight_bits"] * layer["activation_bits"] for layer in result["layers"]
    )
    assert result["bounds"] == {"bit_operations": {"asked": 0.0025, "reached": counted / 1e9}}
    assert counted <= 2_500_000
    assert 0.002 < frontier["candidates"][0]["bit_operations"] <= 0.0025
    assert frontier["chosen"]["bit_operations"] == counted / 1e9 and frontier["optimum"]["gap"] == 0
    rows = dict(run_rows(result))
    assert rows["bit operations of an image"] == f"{counted / 1e9:.4g} x 10^9, asked for at most 0.0025"
    page = (run.directory / "report.html").read_text()
    assert "within 0.0025 × 10⁹ bit operations for each image" in page and "bit operations of an image" in page


def test_a_run_within_a_size_and_a_number_of_bit_operations() -> None:
    run = quick_run("residual", average_bits=4, bit_operations=0.0025)
    frontier = read_json(run.directory / "frontier.json")
    assert run.result["average_bits"] <= 4 and run.result["bounds"]["bit_operations"]["reached"] <= 0.0025
    assert frontier["limit"] == {"average_bits": 4, "bit_operations": 0.0025}
    assert set(frontier["optimum"]) == {"sensitivity", "lower_bound", "gap"} and frontier["optimum"]["gap"] >= 0


def test_without_a_bound_none_is_named() -> None:
    result = quick_run("residual", average_bits=4).result
    assert result["bounds"] == {} and "bit operations of an image" not in dict(run_rows(result))

"""A divergence that computes something else has another fingerprint, and one that does not has the same."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from zeroq.divergence import Meaning
from zeroq.models.fingerprint import fingerprint_of


def largest(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    return torch.stack([value.max() for value in (one - other).abs()])


def test_another_divergence_is_another_fingerprint() -> None:
    plain = fingerprint_of(Meaning("regression"))
    own = fingerprint_of(Meaning("regression", divergence=largest))
    other = fingerprint_of(Meaning("regression", divergence=lambda one, other: (one - other).abs().mean((1, 2, 3))))
    assert plain == "regression" and len({plain, own, other}) == 3


def test_a_fingerprint_is_the_same_in_every_process() -> None:
    """Constants of a function may be functions themselves, whose text holds their address."""
    program = (
        "from tests.models.test_fingerprint import largest; from zeroq.divergence import Meaning\n"
        "from zeroq.models.fingerprint import fingerprint_of\n"
        "print(fingerprint_of(Meaning('regression', divergence=largest)))"
    )
    done = in_two_processes(program)
    assert done[0] == done[1] and len(done[0].strip()) == 64


def in_two_processes(program: str) -> list[str]:
    """What a program prints where sets and dictionaries have other orders."""
    return [
        subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True,
            env=os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(["src", "."])},
            cwd=Path(__file__).parents[2],
        ).stdout
        for seed in ("1", "2")
    ]  # fmt: skip


def of(divergence: Callable[..., Any]) -> str:
    return fingerprint_of(Meaning("regression", divergence=divergence))


SOURCE = """
import torch
POWER, WEIGHTS = {power}, {weights}

class Scale:
    offset = {offset}
    @staticmethod
    def twice(value): return value * {times}
    @property
    def moved(self): return self.offset + {moved}
    def __init__(self, by): self.by = by
    def of(self, value): return {of}

SCALE = Scale({by})

def helper(value):
    return value.abs() ** POWER {comment}

def divergence(one, other, floor={floor}):
    return (lambda value: SCALE.of(helper(value)).flatten(1).mean(1) * WEIGHTS["all"] + floor)(one - other)
"""
PLAIN = {"power": 1, "weights": {"all": 2.0}, "of": "value * self.by", "by": 3, "comment": "", "floor": 0}
PLAIN |= {"offset": 1, "times": 2, "moved": 0}


def in_file(**changed: Any) -> str:
    """Of the function of a file with some of its text changed."""
    namespace = ModuleType("users_file")
    exec(SOURCE.format(**PLAIN | changed), namespace.__dict__)
    return of(namespace.divergence)


@pytest.mark.parametrize(
    "changed",
    [
        {"power": 6}, {"weights": {"all": 2.5}}, {"of": "value / self.by"}, {"by": 4}, {"floor": 0.5},
        {"offset": 2}, {"times": 3}, {"moved": 1},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_all_that_a_function_calls_and_reads_in_its_file_counts(changed: dict[str, Any]) -> None:
    assert in_file() == in_file()
    assert in_file(**changed) != in_file()


def test_what_is_only_said_about_it_does_not() -> None:
    assert in_file(comment="# the power of it") == in_file()


def powered(one: torch.Tensor, other: torch.Tensor, power: Any = 1) -> torch.Tensor:
    return (one - other).abs().flatten(1).mean(1) ** power


def closing(power: Any) -> Callable[..., Any]:
    return lambda one, other: powered(one, other, power)


class Weighted:
    def __init__(self, weight: Any) -> None:
        self.weight = weight

    def __call__(self, one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        return self.measure(one, other)

    def measure(self, one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        return powered(one * self.weight, other * self.weight)


@pytest.mark.parametrize(
    "made",
    [
        closing,
        lambda power: functools.partial(powered, power=power),
        Weighted,
        lambda power: Weighted(power).measure,
    ],
    ids=["closure", "partial", "object", "method"],
)
@pytest.mark.parametrize(
    ("one", "other"),
    [(1, 2), ((1, 2, 1), (1, 2, 2)), (torch.ones(3), torch.ones(3) * 2), ({"a": [1]}, {"a": [2]})],
    ids=["number", "numbers", "tensor", "dictionary"],
)
def test_what_it_is_given_beforehand_counts(made: Callable[[Any], Any], one: Any, other: Any) -> None:
    assert of(made(one)) == of(made(one)) != of(made(other))


def test_what_nobody_can_tell_is_another_each_time() -> None:
    held = nn.Module()
    held.register_forward_hook(lambda *given: None)
    assert of(closing(held)) != of(closing(held))


def allowing(names: Any) -> Callable[..., Any]:
    return lambda one, other: powered(one, other, 2 if "mean" in names else 1)


def test_sets_count_in_every_process_alike() -> None:
    program = (
        "from tests.models.test_fingerprint import allowing, closing, of\n"
        "print(of(closing({'mean', 'sum', 'most'})), of(lambda one, other: one in {'mean', 'sum', 'most', 'least'}))"
    )
    assert in_two_processes(program)[0].split() == in_two_processes(program)[1].split()
    assert of(allowing({"mean", "sum"})) == of(allowing({"sum", "mean"})) != of(allowing({"sum"}))

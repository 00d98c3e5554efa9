"""Numbers as a person reads them."""

from __future__ import annotations

import math

import pytest

from zeroq.report import words


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"), (4, "4"), (98.44, "98.4"), (1280, "1,280"), (0.0514, "0.0514"), (0.00041, "0.00041"),
        (5.746e-8, "5.75×10⁻⁸"), (-2.5, "−2.5"), (-1e-7, "−1×10⁻⁷"), (9.999, "10"), (2.5e9, "2.5×10⁹"),
        (None, "–"), (math.inf, "–"), (math.nan, "–"),
    ],
)  # fmt: skip
def test_number(value: float | None, text: str) -> None:
    assert words.number(value) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 bytes"), (999, "999 bytes"), (1000, "1 kB"), (159_214, "159 kB"), (999_999, "1 MB"),
        (2_843_000, "2.84 MB"), (44_700_000, "44.7 MB"), (2.31e9, "2.31 GB"), (4e12, "4,000 GB"), (None, "–"),
    ],
)  # fmt: skip
def test_size(count: float | None, text: str) -> None:
    assert words.size(count).replace(words.SPACE, " ") == text


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (1, "100 %"), (0, "0 %"), (0.984375, "98.4 %"), (0.99987, "over 99.9 %"), (0.0001, "under 0.1 %"),
        (0.5, "50 %"), (-0.02, "−2 %"), (None, "–"),
    ],
)  # fmt: skip
def test_percent_is_whole_only_where_the_share_is(share: float | None, text: str) -> None:
    assert words.percent(share).replace(words.SPACE, " ") == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.05, "0.05 s"),
        (3.14, "3.1 s"),
        (47.6, "48 s"),
        (59.7, "1 min 00 s"),
        (185, "3 min 05 s"),
        (7800, "2 h 10 min"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    assert words.duration(seconds).replace(words.SPACE, " ") == text


def test_compact() -> None:
    assert [words.compact(value) for value in (0, 864, 120_400, 1_504_000, 3.8e9)] == [
        "0",
        "864",
        "120k",
        "1.5M",
        "3.8G",
    ]


def test_count_of_and_listed() -> None:
    assert words.count_of(1, "layer") == f"1{words.SPACE}layer"
    assert words.count_of(2, "best mix", "best mixes") == f"2{words.SPACE}best mixes"
    assert words.listed(["2", "4", "8"], "or") == "2, 4 or 8"
    assert words.listed(["8"], "or") == "8"

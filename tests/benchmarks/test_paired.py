"""The paired interval: published figures, and its coverage by simulation."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.paired import paired_difference


def variants(both: int, first_only: int, second_only: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    first = np.repeat([True, True, False, False], [both, first_only, second_only, neither])
    second = np.repeat([True, False, True, False], [both, first_only, second_only, neither])
    return first, second


def test_equals_another_implementation() -> None:
    # statpsych's ci.prop.ps(.05, 12, 4, 26, 6) gives 0.44 with standard error 0.09448809.
    result = paired_difference(*variants(both=6, first_only=4, second_only=26, neither=12))
    assert (result.gained, result.lost) == (26, 4)
    assert result.difference == pytest.approx(100 * 22 / 48)
    assert result.low == pytest.approx(100 * (0.44 - 1.6448536 * 0.09448809), abs=1e-4)
    assert result.high == pytest.approx(100 * (0.44 + 1.6448536 * 0.09448809), abs=1e-4)


def test_order_of_the_images_does_not_matter_and_order_of_the_variants_turns_the_sign() -> None:
    first, second = variants(40, 7, 3, 10)
    order = np.random.default_rng(0).permutation(len(first))
    there, back = paired_difference(first, second), paired_difference(second[order], first[order])
    assert there.difference == -back.difference == pytest.approx(100 * -4 / 60)
    assert (there.low, there.high) == (-back.high, -back.low)


def test_equal_variants_differ_by_nothing_but_are_not_certain() -> None:
    first, _ = variants(500, 0, 0, 100)
    result = paired_difference(first, first)
    assert result.difference == 0 and -0.5 < result.low < 0 < result.high < 0.5


def test_extremes_stay_within_a_hundred_points() -> None:
    result = paired_difference(*variants(0, 0, 3, 0))
    assert result.difference == 100 and result.high <= 100


@pytest.mark.parametrize(("images", "gain", "loss"), [(600, 0.01, 0.02), (1500, 0.003, 0.003), (450, 0.05, 0.10)])
def test_holds_the_truth_in_nine_of_ten_samples(images: int, gain: float, loss: float) -> None:
    generator, held = np.random.default_rng(1), 0
    for _ in range(2000):
        outcome = generator.choice(4, images, p=[gain, loss, 0.7, 0.3 - gain - loss])
        result = paired_difference((outcome == 1) | (outcome == 2), (outcome == 0) | (outcome == 2))
        held += result.low <= 100 * (gain - loss) <= result.high
    assert 0.885 <= held / 2000 <= 0.95  # at few differing images the interval is a little too wide, never too narrow


def test_anything_but_two_rows_of_truth_values_is_a_defect() -> None:
    for first, second in ((np.ones(3), np.ones(3)), (np.ones(3, bool), np.ones(2, bool)), (np.ones(0, bool),) * 2):
        with pytest.raises(ValueError):
            paired_difference(first, second)

"""What pixels are like, as a network's input."""

from __future__ import annotations

import pytest

from zeroq.distillation import natural_statistic
from zeroq.errors import OptionError
from zeroq.preprocessing import Preprocessing


def test_natural_pictures_are_carried_through_the_normalisation() -> None:
    usual = Preprocessing((8, 8), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "RGB")
    statistic = natural_statistic(usual)
    assert statistic.mean == pytest.approx((0, 0, 0), abs=1e-9) and statistic.deviation == pytest.approx((1, 1, 1))
    assert statistic.low == pytest.approx((-2.1179, -2.0357, -1.8044), abs=1e-3)
    bytes_around_zero = natural_statistic(Preprocessing((8, 8), (128 / 255,) * 3, (1 / 255,) * 3, "BGR"))
    assert bytes_around_zero.mean == pytest.approx((-24.47, -11.72, -4.325))
    assert (bytes_around_zero.low[0], bytes_around_zero.high[0]) == pytest.approx((-128, 127))


def test_one_channel_has_the_luminance_of_natural_pictures_and_five_the_same() -> None:
    assert natural_statistic(Preprocessing((8, 8), (0.0,), (1.0,), "L")).mean == (0.459,)
    assert natural_statistic(Preprocessing((8, 8), (0.0,) * 5, (1.0,) * 5)).deviation == (0.226,) * 5


def test_pixels_of_another_domain_take_the_place_of_natural_ones() -> None:
    statistic = natural_statistic(Preprocessing((8, 8), (0.5,), (0.5,), "L"), (0.25,), (0.1,))
    assert (statistic.mean, statistic.deviation) == ((-0.5,), (0.2,))


@pytest.mark.parametrize(
    ("mean", "deviation", "sentence"),
    [
        ((0.5,), None, "--input-mean has 1 values, the network's input 3 channels: give one value per channel."),
        (None, (0.5, 0.5), "--input-std has 2 values, the network's input 3 channels: give one value per channel."),
        (None, (0.5, 0.5, 0.0), "--input-std holds 0: deviations of pixels in 0..1 are positive."),
    ],
)
def test_a_domain_that_does_not_fit_is_refused(mean: tuple[float], deviation: tuple[float], sentence: str) -> None:
    with pytest.raises(OptionError, match=sentence.replace(".", r"\.")):
        natural_statistic(Preprocessing((8, 8), (0.5,) * 3, (0.5,) * 3, "RGB"), mean, deviation)

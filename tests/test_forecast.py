"""The forecast of a loss: one law, in fractions of one, and none where nothing is known."""

from __future__ import annotations

import pytest

from zeroq.forecast import LAW, Law, forecast


def divergence(mean: float | None) -> dict[str, float | int | None]:
    return {"mean": mean, "agreement": 0.9, "images": 16}


def test_the_law_is_a_power_with_an_interval_around_it() -> None:
    law = Law(loss=20.0, power=1.5, width=0.5, share=0.4)
    drop, low, high = law.points(0.25)
    assert (drop, low, high) == pytest.approx((2.5, 1.0, 4.0))
    assert law.points(0.0) == (0.0, -0.5, 0.5) == law.points(-1e-9)


def test_no_more_than_everything_is_lost() -> None:
    drop, low, high = LAW.points(1e6)
    assert drop == high == 100.0 and low < 100.0


def test_more_divergence_loses_more_and_surely_so() -> None:
    found = [LAW.points(value) for value in (0.0, 0.001, 0.01, 0.1, 0.3, 1.0)]
    assert [drop for drop, _, _ in found] == sorted({drop for drop, _, _ in found})
    widths = [high - low for _, low, high in found]
    assert widths == sorted(widths)


def test_result_json_has_it_in_fractions_of_one() -> None:
    found = forecast("classification", divergence(0.1))
    assert found is not None and list(found) == ["metric", "drop", "low", "high"]
    assert (found["metric"], found["drop"]) == ("top1", round(LAW.points(0.1)[0] / 100, 5))
    assert found["low"] < found["drop"] < found["high"] < 1


@pytest.mark.parametrize("task", ["segmentation", "detection", "regression"])
def test_other_tasks_have_none(task: str) -> None:
    assert forecast(task, divergence(0.1)) is None


def test_what_could_not_be_compared_has_none() -> None:
    assert forecast("classification", divergence(None)) is None

"""Geometry of the charts: what stands where."""

from __future__ import annotations

import itertools
import re
from typing import Any

import pytest

from tests.report.records import mixed_record, uniform_record
from zeroq.report import RunRecord, charts


def chart_of(record: RunRecord, **changes: Any) -> charts.FrontierChart | None:
    """The frontier of a record, with other entries in frontier.json."""
    frontier = {**record.frontier, **changes}
    return charts.frontier_chart(frontier, weights_of(record.result), record.result["onnx_bytes"])


def test_frontier_path_descends_and_stays_within_its_box() -> None:
    record = mixed_record()
    chart = chart_of(record)
    assert chart is not None
    places = [(float(x), float(y)) for x, y in re.findall(r"[MH]([\d.]+)[ V]([\d.]+)", chart.path)]
    assert all(0 <= place <= 100 for point in places for place in point)
    assert all(a[0] < b[0] and a[1] <= b[1] for a, b in itertools.pairwise(places))  # y points downwards in SVG


def test_a_frontier_of_bit_operations_has_these_on_its_axis() -> None:
    record = mixed_record()
    candidates = [dict(each, bit_operations=each["average_bits"]) for each in record.frontier["candidates"]]
    chart = chart_of(
        record, over="bit_operations", limit={"bit_operations": 4}, points=[[2e9, 1.0], [8e9, 0.1]],
        candidates=candidates, optimum={"gap": 0.25},
    )  # fmt: skip
    assert chart is not None and chart.limit is not None
    assert (chart.over, chart.gap, chart.limit.label) == ("bit operations of an image", 0.25, "4G")
    assert [tick.label for tick in chart.x_ticks] == ["2G", "4G", "6G", "8G"]
    assert all(0 < each.x <= chart.limit.at for each in chart.candidates if each.average_bits <= 4)


def test_a_frontier_of_thousands_of_points_is_drawn_with_few() -> None:
    record = mixed_record()
    points = [[8_000_000 + 1000 * k, 10.0 / (1 + k)] for k in range(6391)]
    chart = chart_of(record, points=points)
    assert chart is not None
    assert chart.points == 6391
    assert chart.path.count("H") <= charts.MOST_VERTICES


def test_one_candidate_is_the_chosen_one_and_stands_at_the_limit_or_left_of_it() -> None:
    record = mixed_record()
    chart = chart_of(record)
    assert chart is not None
    (chosen,) = [setting for setting in chart.candidates if setting.chosen]
    assert chart.limit is not None
    assert chosen.x <= chart.limit.at
    assert chosen.measured_y is not None
    assert chosen.predicted_y is not None
    assert chosen.measured_y > chosen.predicted_y


@pytest.mark.parametrize(
    ("limit", "expected"),
    [({"average_bits": 4}, 500.0), ({"compression": 8}, 500.0), ({"size_mb": 0.0035}, 500.0), ({}, None)],
)
def test_limit_in_bytes_of_a_thousand_weights(limit: dict[str, float], expected: float | None) -> None:
    assert charts.limit_bytes(limit, 1000, 3000) == expected


def test_candidates_that_were_not_measured_have_no_place() -> None:
    record = mixed_record()
    candidates = [dict(setting, divergence=None, sensitivity=None) for setting in record.frontier["candidates"]]
    chart = chart_of(record, candidates=candidates)
    assert chart is not None
    assert {(setting.predicted_y, setting.measured_y) for setting in chart.candidates} == {(None, None)}


def test_no_frontier_where_nothing_was_to_choose() -> None:
    record = uniform_record()
    assert chart_of(record) is None


def test_depth_has_a_column_a_layer_with_the_chosen_dot_on_top() -> None:
    record = mixed_record(7)
    chart = charts.depth_chart(record.result["layers"], record.sensitivity)
    assert [column.layer["name"] for column in chart.columns] == [layer["name"] for layer in record.result["layers"]]
    assert all(column.dots[-1].chosen and len(column.dots) == 3 for column in chart.columns)
    assert all(column.bits_height == 12.5 * column.layer["weight_bits"] for column in chart.columns)
    assert chart.widths == (2, 4, 8)


def test_depth_without_sensitivities_has_no_dots() -> None:
    record = uniform_record(7)
    chart = charts.depth_chart(record.result["layers"], record.sensitivity)
    assert chart.sensitivity_ticks == ()
    assert all(column.dots == () for column in chart.columns)


def test_ranges_reach_from_low_to_high_around_a_common_zero() -> None:
    quantizers = {
        "x": {"low": -4.0, "high": 4.0, "bits": 8, "source": "neither"},
        "relu": {"low": 0.0, "high": 1.0, "bits": 8, "source": "distilled"},
    }
    chart = charts.range_chart(quantizers)
    assert [(column.at, column.height) for column in chart.columns] == [(0.0, 100.0), (50.0, 25.0)]
    assert chart.sources == (("distilled", 1), ("neither", 1))


def test_portions_of_the_file_add_up() -> None:
    result = mixed_record().result
    portions = charts.file_portions(result)
    assert sum(part.percent for part in portions) == pytest.approx(100, abs=0.1)
    assert [part.key for part in portions] == ["w2", "w4", "w8", "rest"]


def test_times_without_those_that_are_not_known() -> None:
    assert charts.time_portions({"capture": 1.0, "distill": 4.0, "report": None}) == (
        ("capture", 1.0, 25.0),
        ("distill", 4.0, 100.0),
    )


def weights_of(result: object) -> int:
    return sum(layer["parameters"] for layer in result["layers"])  # type: ignore[index]

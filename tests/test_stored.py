"""Values as JSON and back."""

from __future__ import annotations

import json

from zeroq.numbers.values import ActivationRange, Ranges, SensitivityTable
from zeroq.stored import ranges_from_json, ranges_to_json, sensitivity_from_json, sensitivity_to_json


def test_ranges_come_back_to_the_last_bit() -> None:
    ranges = Ranges(
        {"input": ActivationRange(-0.1, 1 / 3, 8, "distilled"), "relu": ActivationRange(0.0, 6.0, 4, "neither")}
    )
    assert ranges_from_json(json.loads(json.dumps(ranges_to_json(ranges)))) == ranges


def test_a_table_comes_back_to_the_last_bit() -> None:
    table = SensitivityTable("kl", ("first", "last"), (2, 8), ((1 / 3, 1e-9), (0.1, 0.0)), derived=(8,), coarse=(2,))
    data = json.loads(json.dumps(sensitivity_to_json(table, "kl")))
    assert data == {
        "measure": "kl", "widths": [2, 8], "derived": [8], "coarse": [2],
        "layers": {"first": {"2": 1 / 3, "8": 1e-9}, "last": {"2": 0.1, "8": 0.0}},
    }  # fmt: skip
    assert sensitivity_from_json(data) == table


def test_a_table_of_inputs_comes_back_beside_that_of_weights_and_alone() -> None:
    inputs = SensitivityTable("kl", ("last",), (4, 8), ((0.25, 1 / 3),))
    for table in (
        SensitivityTable("kl", ("first",), (2, 8), ((1 / 3, 1e-9),), inputs), SensitivityTable("kl", (), (), (), inputs)
    ):  # fmt: skip
        data = json.loads(json.dumps(sensitivity_to_json(table, "kl")))
        assert data["inputs"] == {"widths": [4, 8], "derived": [], "layers": {"last": {"4": 0.25, "8": 1 / 3}}}
        assert sensitivity_from_json(data) == table


def test_without_a_choice_there_is_no_table() -> None:
    data = sensitivity_to_json(None, "rounded")
    assert data == {"measure": "rounded", "widths": [], "derived": [], "layers": {}}
    assert sensitivity_from_json(data) is None

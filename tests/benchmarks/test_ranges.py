"""What the study of ranges compares, and how it names it."""

from __future__ import annotations

import torch

from benchmarks.halves import CONFIRMATION, SELECTION
from benchmarks.ranges import AT_A_COST, COLUMNS, FREE, NO_FACTORS, by_factors, cells, kind_of
from tests.runs import QUICK, loaded, prepare_once
from zeroq.candidates import Images, accompanied
from zeroq.options import Options


def test_networks_with_factors_of_each_kind_are_compared() -> None:
    found: dict[str, set[str]] = {}
    for name, bits in (("depthwise", 8), ("depthwise", 6), ("residual", 8)):
        prepared = prepare_once(loaded(name), Options.of(**QUICK, activation_bits=bits))
        images = accompanied(Images(torch.randn(8, *prepared.model.input_shape), "distilled"), prepared, seed=0)
        networks = by_factors(prepared, images)
        found[f"{name} {bits}"] = set(networks)
        for kind, network in networks.items():
            assert bool(network.factors) == (kind != NO_FACTORS)
    free = {family.name for family in prepared.scalable if family.free}
    assert found["residual 8"] == set() and not free
    assert found["depthwise 8"] == {NO_FACTORS, FREE} and AT_A_COST in found["depthwise 6"]


def test_factors_are_called_by_what_they_cost() -> None:
    prepared = prepare_once(loaded("depthwise"), Options.of(**QUICK, activation_bits=6))
    every = {family.name: torch.ones(1) for family in prepared.scalable}
    free = {family.name: torch.ones(1) for family in prepared.scalable if family.free}
    assert [kind_of(prepared, factors) for factors in ({}, free, every)] == [NO_FACTORS, FREE, AT_A_COST]


def test_a_line_says_what_was_kept_and_leaves_out_what_was_not_tried() -> None:
    halves = {half: {"alike": 0.1, "weighed": 0.2} for half in (SELECTION, CONFIRMATION)}
    line = cells({"kept": "alike", "factors": FREE, **halves})
    assert line[0] == "alike, free factors" and len(line) == 1 + 2 * len(COLUMNS)
    assert line[1:3] == ["0.1000", "0.2000"] and set(line[3 : 1 + len(COLUMNS)]) == {"–"}
    assert cells({"kept": "alike", "factors": NO_FACTORS, **halves})[0] == "alike"

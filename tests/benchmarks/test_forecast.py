"""The law of the forecast: fitted, checked on networks left out, and in the product as the document says."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.forecast import Case, case_of, cases, checked, document, fitted, meets
from benchmarks.rows import Row
from zeroq.forecast import LAW, Law


def made(law: Law, networks: int = 5) -> list[Case]:
    """Cases that obey a law, each network off by a share of its own."""
    found = []
    for index in range(networks):
        off = 1 + law.share * (index / (networks - 1) - 0.5)
        for divergence in (0.01, 0.1, 0.3, 0.6):
            drop = law.points(divergence)[0] * off
            found.append(Case(f"net{index}", str(divergence), divergence, drop, drop - 0.1, drop + 0.1, False))
    return found


def test_a_law_is_found_again() -> None:
    found = fitted(made(Law(loss=15.0, power=1.2, width=0.0, share=0.4)))
    assert (found.loss, found.power) == pytest.approx((15.0, 1.2), abs=0.11)
    assert found.width <= 0.4 and 0.1 <= found.share <= 0.5


def test_a_network_is_forecast_by_the_others() -> None:
    """One network loses ten times what the others do: its own losses must not widen its interval."""
    known = made(Law(loss=15.0, power=1.2, width=0.0, share=0.1))
    odd = [Case("odd", str(d), d, 150 * d**1.2, 150 * d**1.2 - 0.1, 150 * d**1.2 + 0.1, False) for d in (0.1, 0.3)]
    by_network = checked([*known, *odd])
    assert by_network["odd"][1] == [False, False]
    assert by_network["odd"][0] == fitted(known)
    assert "**no**" in document([*known, *odd])


def test_a_measured_loss_has_an_error_of_its_own() -> None:
    law = Law(loss=10.0, power=1.0, width=0.5, share=0.0)
    near = Case("a", "s", 0.1, 2.0, 1.4, 2.6, False)
    assert meets(law, near)  # 0.5 to 1.5 and 1.4 to 2.6
    assert not meets(law, Case("a", "s", 0.1, 2.0, 1.6, 2.4, False))


def test_a_case_is_of_both_halves() -> None:
    half = {"images": 8, "float_correct": "ff", "correct": "f0"}
    other = {"images": 12, "float_correct": "fff0", "correct": "fff0"}
    record = {"sets": {"selection": half, "confirmation": other}, "divergence": {"mean": 0.25}}
    case = case_of(Row("net", "w8a8", "distilled"), record, stale=True)
    assert (case.divergence, case.stale) == (0.25, True)
    assert case.drop == pytest.approx(100 * 4 / 20) and case.low < case.drop < case.high


def test_the_product_has_the_law_of_the_results_and_it_keeps_its_limits() -> None:
    """The results that the repository holds: what is written in zeroq.forecast is what they say."""
    known = cases()
    assert len({case.network for case in known}) >= 9
    assert fitted(known) == LAW
    hits = [hit for _, each in checked(known).values() for hit in each]
    assert np.mean(hits) >= 0.9

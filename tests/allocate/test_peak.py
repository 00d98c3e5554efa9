"""The filter by a peak of memory against every combination of widths."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from zeroq.allocate.peak import least_peak, possible, within_peak
from zeroq.simulate.peak import Memory, Moment

LAYERS = ("a", "b", "c", "d")
Widths = dict[str, tuple[int, ...]]


@st.composite
def problems(draw: st.DrawFn) -> tuple[Memory, Widths]:
    """Up to 4 values that 4 layers read, in up to 4 moments; some layers without a choice."""
    widths = {layer: tuple(sorted(draw(st.sets(st.sampled_from((2, 4, 8)), min_size=1)))) for layer in LAYERS}
    values = draw(st.integers(1, 4))
    readers = {
        f"v{index}": tuple(draw(st.lists(st.sampled_from(LAYERS), min_size=1, max_size=2, unique=True)))
        for index in range(values)
    }
    moments = [
        Moment(
            str(index), draw(st.integers(0, 20)), draw(st.dictionaries(st.sampled_from([*readers]), st.integers(1, 9)))
        )
        for index in range(draw(st.integers(1, 4)))
    ]
    return Memory(tuple(moments), readers), widths


def every_setting(widths: Widths | Mapping[str, tuple[int, ...]]) -> list[dict[str, int]]:
    return [dict(zip(widths, chosen, strict=True)) for chosen in itertools.product(*widths.values())]


@settings(deadline=None, max_examples=200)
@given(problems(), st.integers(0, 60))
def test_what_is_left_is_within_the_peak_and_what_is_possible_is_kept(
    problem: tuple[Memory, Widths], slack: int
) -> None:
    memory, widths = problem
    every = every_setting(widths)
    least = min(memory.peak(setting) for setting in every)
    assert least_peak(memory, widths) == least
    limit = least + slack
    allowed = [setting for setting in every if memory.peak(setting) <= limit]
    reachable = possible(memory, widths, limit)
    assert reachable == {
        name: tuple(w for w in own if any(s[name] == w for s in allowed)) for name, own in widths.items()
    }
    kept = within_peak(memory, widths, limit, lambda layer, width: (8 - width) * (1 + LAYERS.index(layer)))
    assert all(own and set(own) <= set(reachable[name]) for name, own in kept.items())
    assert all(memory.peak(setting) <= limit for setting in every_setting(kept))
    assume(len(allowed) == len(every))
    assert kept == widths


def test_the_value_whose_bits_do_the_least_harm_becomes_narrower() -> None:
    memory = Memory((Moment("one", 0, {"v": 10, "w": 10}),), {"v": ("a",), "w": ("b",)})
    widths = {"a": (4, 8), "b": (4, 8)}
    harms = {("a", 4): 0.3, ("b", 4): 0.2}
    kept = within_peak(memory, widths, 120, lambda layer, width: harms.get((layer, width), 0.0))
    assert kept == {"a": (4, 8), "b": (4,)}
    harms["b", 4] = 0.4
    assert within_peak(memory, widths, 120, lambda layer, width: harms.get((layer, width), 0.0)) == {
        "a": (4,), "b": (4, 8),
    }  # fmt: skip


def test_a_value_that_two_layers_read_is_as_wide_as_the_wider_one() -> None:
    memory = Memory((Moment("one", 0, {"v": 10}),), {"v": ("a", "b")})
    assert memory.peak({"a": 4, "b": 8}) == 80
    assert within_peak(memory, {"a": (2, 8), "b": (4, 8)}, 40, lambda layer, width: 0.0) == {"a": (2,), "b": (4,)}

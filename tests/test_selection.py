"""Which setting is chosen, and what frontier.json says of it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace

import pytest

from zeroq.errors import SizeError
from zeroq.graph import Layer
from zeroq.numbers.values import BitSetting, Latencies, SensitivityTable
from zeroq.options import Options
from zeroq.selection import Selection, select, thinned
from zeroq.setting import LayerPlan
from zeroq.simulate.peak import Memory, Moment


def layer(name: str, parameters: int, products: int = 1) -> Layer:
    """products: of each weight, for one image."""
    return Layer(
        name=name, weight=f"{name}.weight", biases=(None,), operator="conv2d", sites=(name,),
        shape=(parameters, 1, 1, 1), groups=1, multiply_accumulates=products * parameters,
    )  # fmt: skip


def plan_of(parameters: Mapping[str, int], widths: Mapping[str, tuple[int, ...]]) -> LayerPlan:
    layers = tuple(layer(name, count) for name, count in parameters.items())
    return LayerPlan(layers, dict(widths), dict.fromkeys(parameters, 8), ())


OPEN = (2, 4, 8)
PLAN = plan_of({"a": 100, "b": 300, "c": 100}, {"a": OPEN, "b": OPEN, "c": (8,)})
TABLE = SensitivityTable("kl", ("a", "b"), OPEN, ((0.4, 0.2, 0.1), (0.3, 0.1, 0.05)))


UNLIMITED = Memory((), {})
WHOLE = {"a": 1.0, "b": 1.0, "c": 1.0}  # nothing of a sensitivity is made up for


def run(
    options: Options,
    divergence: Mapping[tuple[int, ...], float] | None = None,
    other: int = 0,
    left_over: Mapping[str, float] = WHOLE,
    plan: LayerPlan = PLAN,
    table: SensitivityTable = TABLE,
    memory: Memory = UNLIMITED,
) -> Selection:
    """select() with divergences by bits; unknown ones are the mean width taken from 9."""

    def measured(setting: BitSetting) -> float:
        bits = tuple(setting.bits.values())
        return (divergence or {}).get(bits, 9 - sum(bits) / 3)

    return Selection(select(
        plan, table, options, other, measured, lambda done, total: None, left_over=left_over, memory=memory
    ))  # fmt: skip


def test_the_verified_divergence_decides_not_the_table() -> None:
    best = run(Options(average_bits=5))
    assert dict(best.setting.bits)["c"] == 8
    by_table = best.record["candidates"][0]
    other = best.record["candidates"][-1]
    turned = run(Options(average_bits=5), {tuple(other["bits"].values()): -1.0})
    assert turned.record["chosen"]["name"] == other["name"] != by_table["name"]


def test_candidates_hold_the_target_and_say_all_that_is_known_of_them() -> None:
    record = run(Options(average_bits=5)).record
    assert record["limit"] == {"average_bits": 5}
    assert record["points"][0] == [2 * 400 + 800, pytest.approx(0.7)]
    assert record["points"][-1] == [8 * 500, pytest.approx(0.15)]
    for candidate in record["candidates"]:
        assert list(candidate) == ["name", "bits", "average_bits", "weight_bytes", "sensitivity", "divergence"]
        assert candidate["average_bits"] <= 5 and candidate["weight_bytes"] == candidate["average_bits"] * 500 / 8
    names = [candidate["name"] for candidate in record["candidates"]]
    assert names[0] == "frontier-1" and len(set(names)) == len(names)
    assert record["chosen"] in record["candidates"]


def test_of_a_sensitivity_counts_what_later_layers_leave() -> None:
    """Whole, b is worth 4 bits; with a hundredth of it left, a has them."""
    whole, left = (
        run(Options(average_bits=5), left_over=WHOLE | {"b": share}).record["candidates"][0] for share in (1.0, 0.01)
    )
    assert [list(each["bits"].values()) for each in (whole, left)] == [[4, 4, 8], [8, 2, 8]]
    assert left["sensitivity"] == pytest.approx(0.1 + 0.01 * 0.3)


def test_a_size_counts_what_stands_beside_the_weights() -> None:
    assert run(Options(size_mb=0.0006)).setting.bits == {"a": 8, "b": 8, "c": 8}
    assert run(Options(size_mb=0.0006), other=400).record["chosen"]["weight_bytes"] <= 200
    with pytest.raises(SizeError, match="the smallest file has 0.0006 MB, of which 0.0004 MB are not"):
        run(Options(size_mb=0.0005), other=400)


def test_bit_operations_alone_are_spent_exactly() -> None:
    """c takes 8 x 8 x 100 of them, a and b 8 x 100 and 8 x 300 for each bit."""
    record = run(Options(bit_operations=19199e-9)).record
    first = record["candidates"][0]
    assert list(first["bits"].values()) == [8, 2, 8] and first["bit_operations"] == 17600e-9
    assert record["limit"] == {"bit_operations": 19199e-9} and record["over"] == "bit_operations"
    assert record["points"][0] == [6400 + 6400, pytest.approx(0.7)]
    assert record["optimum"] == {"sensitivity": 0.4, "lower_bound": 0.4, "gap": 0.0}
    assert list(run(Options(bit_operations=19200e-9)).record["candidates"][0]["bits"].values()) == [4, 4, 8]
    with pytest.raises(SizeError, match="^1.2e-05 x 10.9 bit operations cannot be reached, .* has 0.0000128: ask for"):
        run(Options(bit_operations=12e-6))


def test_two_bounds_at_once_are_both_kept_and_the_gap_is_that_of_brute_force() -> None:
    """Each product of a is worth ten of b: within the size b alone would be wide, within the operations a narrow."""
    plan = replace(PLAN, layers=(layer("a", 100, 30), layer("b", 300), layer("c", 100)))
    options = Options(average_bits=5, bit_operations=110e-6)
    record = run(options, plan=plan).record
    every = [
        (0.0 + TABLE.of("a", a) + TABLE.of("b", b))
        for a, b in itertools.product(OPEN, OPEN)
        if 100 * a + 300 * b + 800 <= 2500 and 8 * (3000 * a + 300 * b + 800) <= 110_000
    ]
    assert record["over"] == "weight_bits" and record["limit"] == {"average_bits": 5, "bit_operations": 110e-6}
    for candidate in record["candidates"]:
        assert candidate["average_bits"] <= 5 and candidate["bit_operations"] <= 110e-6
    optimum = record["optimum"]
    assert optimum["sensitivity"] == record["candidates"][0]["sensitivity"] >= min(every) >= optimum["lower_bound"]
    assert optimum["gap"] == pytest.approx(optimum["sensitivity"] - optimum["lower_bound"])
    with pytest.raises(SizeError, match="^5e-05 x .* cannot be reached with --average-bits 5, .* raise the target"):
        run(Options(average_bits=5, bit_operations=50e-6), plan=plan)


INPUTS = SensitivityTable("kl", ("b", "c"), (4, 8), ((0.2, 0.01), (0.04, 0.02)))


def with_inputs() -> tuple[LayerPlan, SensitivityTable]:
    """The plan and the table with a choice of 4 and 8 bits for the inputs of b and c."""
    return replace(PLAN, input_widths={"b": (4, 8), "c": (4, 8)}), replace(TABLE, inputs=INPUTS)


def test_bits_of_inputs_are_chosen_with_those_of_weights() -> None:
    """Against every combination: the sum of both sensitivities within the bit operations."""
    plan, table = with_inputs()
    for limit in range(9600, 32000, 1600):
        found = run(Options(bit_operations=limit / 1e9, activation_bits=(4, 8)), plan=plan, table=table)
        best = min(
            table.of("a", a) + table.of("b", b) + INPUTS.of("b", own) + INPUTS.of("c", other)
            for a, b, own, other in itertools.product(OPEN, OPEN, (4, 8), (4, 8))
            if 100 * a * 8 + 300 * b * own + 100 * 8 * other <= limit
        )
        first = found.record["candidates"][0]
        assert first["sensitivity"] == pytest.approx(best) and found.record["optimum"]["gap"] == 0
        assert set(first["activation_bits"]) == {"b", "c"} and first["bit_operations"] <= limit / 1e9
        assert found.setting.inputs == found.record["chosen"]["activation_bits"]
    names = [candidate["name"] for candidate in found.record["candidates"]]
    assert names[-1].startswith("uniform-") and "-a" in names[-1]


def test_a_peak_leaves_options_out_and_states_what_that_may_give_away() -> None:
    """At "two" both values are in memory, and one of them has to have 4 bits: b's is the dearer one for each bit."""
    plan, table = with_inputs()
    memory = Memory((Moment("one", 80, {"v": 100}), Moment("two", 0, {"v": 100, "w": 100})), {"v": ("b",), "w": ("c",)})
    options = Options(activation_mb=1200 / 8e6, activation_bits=(4, 8), average_bits=8)
    record = run(options, plan=plan, table=table, memory=memory).record
    first = record["candidates"][0]
    assert first["activation_bits"] == {"b": 8, "c": 4} and first["activation_mb"] == 1200 / 8e6
    assert record["optimum"]["lower_bound"] == pytest.approx(0.1 + 0.05 + 0.01 + 0.02)
    assert record["optimum"]["gap"] == pytest.approx(0.02) and record["over"] == "weight_bits"
    with pytest.raises(SizeError, match="^A peak of .* cannot be kept, the least is 0.0001 MB: ask for"):
        run(Options(activation_mb=799 / 8e6, activation_bits=(4, 8)), plan=plan, table=table, memory=memory)


TICKS = Latencies({"a": {8: 50}, "b": {4: 43, 8: 40}, "c": {4: 37, 8: 30}}, -20)  # at the widest 100, 110 at most


def timed() -> tuple[LayerPlan, SensitivityTable]:
    plan, table = with_inputs()
    return replace(plan, latency=TICKS), table


def test_a_latency_beside_bit_operations_is_kept_and_the_gap_is_that_of_brute_force() -> None:
    """Few bits of an input save operations and cost time."""
    plan, table = timed()
    gaps = set()
    for limit, ticks in itertools.product(range(9600, 32000, 1600), range(100, 111)):
        every = {
            (own, other): table.of("a", a) + table.of("b", b) + INPUTS.of("b", own) + INPUTS.of("c", other)
            for a, b, own, other in sorted(
                itertools.product(OPEN, OPEN, (4, 8), (4, 8)),
                key=lambda bits: -table.of("a", bits[0]) - table.of("b", bits[1]),
            )
            if 100 * bits_of_a(a) + 300 * b * own + 100 * 8 * other <= limit
            and -20 + 50 + TICKS.of("b", own) + TICKS.of("c", other) <= ticks
        }
        options = Options(bit_operations=limit / 1e9, latency_ms=ticks / 10_000, activation_bits=(4, 8))
        if not every:
            with pytest.raises(SizeError, match="cannot be kept with --bit-operations .*, the least measured"):
                run(options, plan=plan, table=table)
            continue
        record = run(options, plan=plan, table=table).record
        for candidate in record["candidates"]:
            assert candidate["bit_operations"] <= limit / 1e9 and candidate["latency_ms"] <= ticks / 10_000
        optimum = record["optimum"]
        assert optimum["sensitivity"] >= min(every.values()) - 1e-12 >= optimum["lower_bound"] - 2e-12
        gaps.add(optimum["gap"] > 1e-12)
        assert record["over"] == "bit_operations" and len(record["points"]) > 1
    assert False in gaps


def bits_of_a(weight: int) -> int:
    """Bit operations of each weight of a, whose input has 8 bits."""
    return 8 * weight


def test_a_latency_alone_is_exact_and_beside_a_size_both_are_kept() -> None:
    plan, table = timed()
    odd = replace(table, inputs=replace(INPUTS, values=((0.2, 0.01), (0.02, 0.04))))  # c fares better with 4 bits
    for ticks, own in [(106, 8), (107, 4)]:
        options = Options(latency_ms=ticks / 10_000, activation_bits=(4, 8), average_bits=8)
        record = run(options, plan=plan, table=odd).record
        first = record["candidates"][0]
        assert first["activation_bits"] == {"b": 8, "c": own} and first["latency_ms"] == (100 + 7 * (own == 4)) / 1e4
        assert record["optimum"]["lower_bound"] <= first["sensitivity"] and record["over"] == "weight_bits"
        fixed = replace(plan, widths=dict.fromkeys("abc", (8,)))
        alone = Options(latency_ms=ticks / 10_000, activation_bits=(4, 8))
        inputs = SensitivityTable("kl", (), (), (), odd.inputs)
        record = run(alone, plan=fixed, table=inputs).record
        assert record["candidates"][0]["activation_bits"] == {"b": 8, "c": own} and record["optimum"]["gap"] == 0


def test_a_latency_that_hangs_on_no_choice_is_a_check() -> None:
    plan = replace(PLAN, latency=TICKS)
    asked, beside = (run(Options(average_bits=5, latency_ms=ms), plan=plan).record for ms in (0.01, 5))
    assert asked["candidates"] == beside["candidates"] and asked["chosen"]["latency_ms"] == 0.01
    assert asked["limit"] == {"average_bits": 5, "latency_ms": 0.01}
    with pytest.raises(SizeError, match="^0.0099 ms for one image cannot be kept, the least measured .* is 0.01 ms"):
        run(Options(average_bits=5, latency_ms=0.0099), plan=plan)


def test_a_peak_is_kept_by_what_takes_the_least_time_where_the_least_harmful_takes_too_long() -> None:
    """As above, one of two inputs has to have 4 bits: c's is the less harmful one, b's the faster one."""
    plan, table = timed()
    memory = Memory((Moment("one", 80, {"v": 100}), Moment("two", 0, {"v": 100, "w": 100})), {"v": ("b",), "w": ("c",)})
    asked = {"activation_mb": 1200 / 8e6, "activation_bits": (4, 8), "average_bits": 8}
    for ticks, inputs in [(107, {"b": 8, "c": 4}), (106, {"b": 4, "c": 8}), (103, {"b": 4, "c": 8})]:
        record = run(Options.of(latency_ms=ticks / 1e4, **asked), plan=plan, table=table, memory=memory).record
        assert record["candidates"][0]["activation_bits"] == inputs
        assert record["optimum"]["gap"] == pytest.approx(0.02 if ticks == 107 else 0.19)
    with pytest.raises(SizeError, match="cannot be kept with --activation-mb 0.00015, the least .* is 0.0103 ms"):
        run(Options.of(latency_ms=0.0102, **asked), plan=plan, table=table, memory=memory)


def test_without_a_choice_nothing_is_measured() -> None:
    plan = plan_of({"a": 100, "b": 300}, {"a": (4,), "b": (8,)})

    def never(setting: BitSetting) -> float:
        raise AssertionError

    options = Options(weight_bits=(4,))
    record = select(plan, None, options, 0, never, lambda done, total: None, left_over={}, memory=UNLIMITED)
    assert record["limit"] == {} and record["points"] == []
    assert record["candidates"] == [record["chosen"]] and record["chosen"]["name"] == "uniform-4"
    assert record["chosen"]["bits"] == {"a": 4, "b": 8} and record["chosen"]["divergence"] is None


def test_a_target_is_refused_where_no_layer_has_a_choice() -> None:
    plan = plan_of({"a": 100}, {"a": (8,)})
    with pytest.raises(SizeError, match="the smallest setting has 8"):
        options = Options(average_bits=4, weight_bits=(8,))
        select(plan, None, options, 0, lambda _: 0.0, lambda done, total: None, left_over={}, memory=UNLIMITED)


def test_a_long_frontier_is_thinned_and_keeps_its_ends() -> None:
    points = [(size, 1.0 / (size + 1)) for size in range(4567)]
    kept = thinned(points)
    assert 1000 < len(kept) <= 2001 and (kept[0], kept[-1]) == (points[0], points[-1])
    assert thinned(points[:3]) == points[:3] and thinned([]) == []


def test_an_input_that_stays_at_eight_bits_does_not_narrow_a_uniform_setting() -> None:
    record = run(Options(average_bits=5.6, activation_bits=6)).record
    (uniform,) = (each for each in record["candidates"] if each["name"] == "uniform-4")
    assert uniform["bits"] == {"a": 4, "b": 4, "c": 8}

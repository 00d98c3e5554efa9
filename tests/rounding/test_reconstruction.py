"""Blocks learn integers, biases and steps; kept is only what helps on images that are held out."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.networks import NETWORKS, example_of
from tests.quantized import Stages
from tests.quantized import quantize as quantized
from zeroq.graph import replay
from zeroq.graph.blocks import Block
from zeroq.graph.live import Room
from zeroq.numbers.grid import Grid
from zeroq.numbers.values import ActivationRange, IntegerWeight, Ranges
from zeroq.ranks import Ranks
from zeroq.rounding.learned import LearnedStep
from zeroq.rounding.reconstruction import Pace, blocks_between, reconstruct
from zeroq.rounding.simulation import Simulation, simulation_of
from zeroq.rounding.task import numbers_in
from zeroq.simulate.quantized_network import MOST_BIAS, value_of

FITTING, HELD_OUT = 40, 16
PACE = Pace(40, integers=0.01)


@dataclass(frozen=True)
class Case:
    """A tiny network with integers, and images."""

    stages: Stages
    bits: dict[str, int]  # of layers' inputs
    fitting: Tensor
    held_out: Tensor

    def learned(self, pace: Pace = PACE, **how: Any) -> tuple[dict[str, IntegerWeight], Ranges]:
        """Reconstructed."""
        stages = self.stages
        return reconstruct(
            stages.folded, stages.placement, stages.ranges, self.bits, stages.weights, self.fitting, self.held_out,
            pace, **how,
        )  # fmt: skip

    def simulation(self) -> Simulation:
        """At the start."""
        stages = self.stages
        return simulation_of(stages.folded, stages.placement, stages.ranges, self.bits, stages.weights)

    def blocks(self, simulation: Simulation) -> tuple[Block, ...]:
        """Of the simulation's graph."""
        return blocks_between(self.stages.folded, simulation.graph, simulation.layers)

    def error(self, simulation: Simulation, tensors: dict[str, Tensor], end: str | None) -> float:
        """Of a block's end on held-out images, over the variance on all of them; computed from the network's input."""
        folded = self.stages.folded
        name, exact = ("output", "output") if end is None else (end, value_of(end))
        with torch.inference_mode():
            feed = {folded.inputs[0]: torch.cat([self.fitting, self.held_out])}
            wanted = numbers_in(replay(folded.graph, folded.tensors, feed, until=exact)[exact])
            given = numbers_in(replay(simulation.graph, tensors, {folded.inputs[0]: self.held_out}, until=name)[name])
        errors = [
            float((found - full[FITTING:]).square().mean() / full.var(correction=0))
            for found, full in zip(given, wanted, strict=True)
        ]
        return sum(errors) / len(errors)


@cache
def case(name: str, weight_bits: int = 3, activation_bits: int = 4) -> Case:
    """One of the tiny networks, rounded to nearest, which leaves much to be learned."""
    images = example_of(name, FITTING + HELD_OUT, seed=5)
    stages = quantized(NETWORKS[name](), images[:FITTING], weight_bits, activation_bits, method="nearest")
    bits = {
        layer.name: 8 if layer.sites[0] in first_sites(stages) else activation_bits for layer in stages.folded.layers
    }
    return Case(stages, bits, images[:FITTING], images[FITTING:])


def first_sites(stages: Stages) -> set[str]:
    """Sites that read the network's input."""
    return {user.name for node in stages.folded.graph.nodes if node.op == "placeholder" for user in node.users}


def same(one: IntegerWeight, other: IntegerWeight) -> bool:
    biases = [each.bias for each in (one, other) if each.bias is not None]
    return torch.equal(one.integers, other.integers) and (len(biases) < 2 or torch.equal(*biases))


@pytest.mark.parametrize("name", ["plain", "residual", "depthwise", "concatenate_and_shuffle", "tokens"])
def test_no_block_is_worse_on_held_out_images_and_some_are_better(name: str) -> None:
    this = case(name)
    weights, ranges = this.learned()
    simulation = this.simulation()
    changed = {key: each for key, each in ranges.by_name.items() if each != this.stages.ranges[key]}
    tensors, better = dict(simulation.tensors), 0
    for block in this.blocks(simulation):
        before = this.error(simulation, tensors, block.end)
        own = {each.name: weights[each.name] for each in block.layers if weights[each.name].bias is not None}
        inside = set(simulation.within(block))
        tensors |= simulation.changed(own, {key: each for key, each in changed.items() if key in inside})
        after = this.error(simulation, tensors, block.end)
        assert after <= before * (1 + 1e-5)
        better += after < 0.999 * before
    assert better > 0


@pytest.mark.parametrize("name", ["residual", "tokens"])
def test_scales_stay_and_integers_within_their_grid(name: str) -> None:
    this = case(name)
    weights, ranges = this.learned(Pace(40, integers=0.05))
    assert any(not same(weights[layer], each) for layer, each in this.stages.weights.items())
    for layer, before in this.stages.weights.items():
        after, grid = weights[layer], Grid(before.bits, signed=True)
        assert torch.equal(after.scale, before.scale) and after.bits == before.bits
        assert grid.low <= int(after.integers.min()) and int(after.integers.max()) <= grid.high
        assert after.rounding in (before.rounding, f"{before.rounding}, reconstructed")
        assert (after.rounding == before.rounding) == (after is before)
    for name_, range_ in this.stages.ranges.by_name.items():
        assert (ranges[name_].bits, ranges[name_].zero_point) == (range_.bits, range_.zero_point)
        assert range_.bits < 8 or ranges[name_] == range_


def test_the_same_seed_learns_the_same() -> None:
    this = case("residual")
    (one, ranges), (other, same_ranges) = this.learned(seed=3), this.learned(seed=3)
    assert all(same(one[name], other[name]) for name in one) and ranges == same_ranges
    third, _ = this.learned(seed=4)
    assert any(not same(one[name], third[name]) for name in one)


def test_processes_that_share_the_images_of_a_step_learn_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is handed what the others have found of the parts that are not its own, and comes to the same network."""
    this = case("residual")
    alone, alone_ranges = this.learned(Pace(6, integers=0.05), room=Room(chunk=4))
    asked: list[list[int]] = []

    def mapped(self: Ranks, function: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
        owners = [index % self.size for index in range(len(items))]
        asked.append(owners)
        computed = {rank: [function(item) for item in items[rank :: self.size]] for rank in reversed(range(self.size))}
        return [computed[owner][index // self.size] for index, owner in enumerate(owners)]

    monkeypatch.setattr(Ranks, "mapped", mapped)
    shared, shared_ranges = this.learned(Pace(6, integers=0.05), room=Room(chunk=4), ranks=Ranks(0, 3))
    assert any(len(owners) == 8 for owners in asked)
    assert all(same(alone[name], shared[name]) for name in alone) and alone_ranges == shared_ranges


def test_values_on_disk_are_the_same(tmp_path: Path) -> None:
    this = case("residual")
    kept, _ = this.learned(room=Room(chunk=4))
    stored, _ = this.learned(room=Room(chunk=4, kept=1, folder=tmp_path))
    assert all(same(kept[name], stored[name]) for name in kept)


@pytest.mark.parametrize("drop", [0.0, 1.0])
def test_nothing_or_all_may_be_dropped(drop: float) -> None:
    this = case("residual")
    weights, _ = this.learned(replace(PACE, drop=drop))
    assert any(not same(weights[name], each) for name, each in this.stages.weights.items())


def test_a_network_of_8_bits_is_returned_unchanged() -> None:
    this = case("residual", 8, 8)
    weights, ranges = this.learned()
    assert all(weights[name] is each for name, each in this.stages.weights.items())
    assert ranges == this.stages.ranges


@pytest.mark.parametrize(("name", "others"), [("shared_head", []), ("reused_module", ["last.0"])])
def test_a_layer_of_several_sites_is_left_alone(name: str, others: list[str]) -> None:
    this = case(name)
    weights, _ = this.learned()
    shared = [layer.name for layer in this.stages.folded.layers if len(layer.sites) > 1]
    assert shared and all(weights[each] is this.stages.weights[each] for each in shared)
    assert all(weights[each] is not this.stages.weights[each] for each in others)


def test_progress_is_that_of_all_blocks() -> None:
    steps: list[tuple[int, int]] = []
    this = case("residual")
    this.learned(Pace(5), on_step=lambda done, total: steps.append((done, total)))
    assert steps == [(done, 15) for done in range(1, 16)]


def test_several_inputs() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.third = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(3))

        def forward(self, images: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
            joined = torch.relu(self.first(images)) + self.second(others)
            return self.third(torch.relu(joined)), joined

    torch.manual_seed(0)
    count = FITTING + HELD_OUT
    images = tuple(torch.randn(count, 1, 8, 8) + 0.1 * torch.randn(count, 3, 8, 8) for _ in range(2))
    stages = quantized(Two().eval(), images, 3, 4, method="nearest")
    parts = [tuple(each[rows] for each in images) for rows in (slice(FITTING), slice(FITTING, None))]
    bits = {"first": 8, "second": 8, "third": 4}
    found = reconstruct(stages.folded, stages.placement, stages.ranges, bits, stages.weights, *parts, PACE)[0]
    assert any(found[name] is not each for name, each in stages.weights.items())


def linear_case(first: Tensor, *, hidden: bool) -> tuple[Case, Tensor]:
    """A linear layer (behind another that passes everything, where `hidden`) whose inputs are all but equal.

    Its weights are rounded to nearest at 2 bits, which is bad, as errors of equal inputs add up.
    """
    torch.manual_seed(0)
    columns = first.numel()
    layers = [nn.Linear(columns, columns, bias=False), nn.Linear(columns, 1, bias=False)][0 if hidden else 1 :]
    with torch.no_grad():
        layers[0].weight.copy_(torch.eye(columns)) if hidden else None
        layers[-1].weight.copy_(first[None])
    images = torch.randn(64, 1) + 0.05 * torch.randn(64, columns)
    stages = quantized(nn.Sequential(*layers).eval(), images, 8, 8)
    weights = dict(stages.weights)
    name = stages.folded.layers[-1].name
    integers = first.round().clamp(-2, 1).to(torch.int8)[None]
    weights[name] = IntegerWeight(integers, torch.ones(1), 2, "nearest")
    bits = {layer.name: 8 for layer in stages.folded.layers}
    return Case(replace(stages, weights=weights), bits, images[:48], images[48:]), first


@pytest.mark.parametrize("hidden", [False, True])
def test_weights_of_correlated_inputs_are_rounded_together(hidden: bool) -> None:
    """Every rounding up or down is tried: the best error is reached, or but a little more, if not by every seed."""
    this, exact = linear_case(torch.tensor([0.45, 0.4, 0.35, -0.8, 0.42, 0.2]), hidden=hidden)
    name = this.stages.folded.layers[-1].name
    inputs = this.held_out

    def error(integers: Tensor) -> float:
        return float((inputs @ (integers.float() - exact)).square().mean())

    nearest = error(this.stages.weights[name].integers[0])
    best = min(error(exact.floor() + torch.tensor(up)) for up in itertools.product([0, 1], repeat=len(exact)))
    learned = [this.learned(Pace(200, integers=0.01), seed=seed)[0][name] for seed in range(3)]
    found = sorted(error(weight.integers[0]) for weight in learned)[1]
    assert nearest > 20 * best
    assert found < 0.05 * nearest


def test_a_step_at_4_bits_is_learned() -> None:
    """Ranges of twice the width: their quantizers lose a bit, which the steps alone can win back."""
    plain = case("plain", 8, 4)
    wide = {
        name: replace(each, low=2 * each.low, high=2 * each.high) if each.bits < 8 else each
        for name, each in plain.stages.ranges.by_name.items()
    }
    this = replace(plain, stages=replace(plain.stages, ranges=Ranges(wide)))
    weights, ranges = this.learned(Pace(60, ranges=0.02, drop=0.0))
    assert all(weights[name] is each for name, each in this.stages.weights.items())
    learned = [name for name, each in wide.items() if ranges[name] != each]
    assert learned and all(ranges[name].scale < 0.9 * wide[name].scale for name in learned)
    simulation = this.simulation()
    changed = simulation.tensors | simulation.changed({}, {name: ranges[name] for name in learned})
    assert this.error(simulation, changed, None) < 0.7 * this.error(simulation, simulation.tensors, None)


def test_a_step_stays_below_the_ceiling_of_its_rectifier() -> None:
    range_ = ActivationRange(0.0, 5.5, 4, "distilled")
    step = LearnedStep(range_, 6.0, torch.device("cpu"), "step")
    with torch.no_grad():
        step.logarithm += 1.0
    assert step.learned().high == pytest.approx(6.0)
    free = LearnedStep(range_, None, torch.device("cpu"), "step")
    with torch.no_grad():
        free.logarithm -= 0.1
    assert free.learned().scale == pytest.approx(range_.scale * 0.9048, rel=1e-3)


def test_steps_for_which_a_bias_is_too_large_are_seen() -> None:
    this = case("plain")
    simulation = this.simulation()
    assert simulation.holds_biases(this.stages.weights, simulation.tensors)
    layer = simulation.layers[1]
    scale = this.stages.weights[layer.name].scale
    tensors = simulation.tensors | {simulation.biases[layer.name]: 100.0 * MOST_BIAS * scale}
    assert not simulation.holds_biases(this.stages.weights, tensors)

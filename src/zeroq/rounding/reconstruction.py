"""Block reconstruction: the integers of a block's layers learned together, by the error of what the block gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx

from zeroq.graph import Inputs, Layer, Network, as_inputs, as_tuple, count_images, replay
from zeroq.graph.blocks import Block, blocks_of
from zeroq.graph.live import IN_MEMORY, Room
from zeroq.graph.walk import Walk
from zeroq.numbers.grid import MOST_BITS
from zeroq.numbers.operators import QUANTIZE_DEQUANTIZE
from zeroq.numbers.values import IntegerWeight, Ranges
from zeroq.rounding.dropping import Dropping, with_gradients
from zeroq.rounding.learned import Learned, LearnedStep, LearnedWeight
from zeroq.rounding.simulation import Simulation, simulation_of
from zeroq.rounding.task import Task, task_of
from zeroq.simulate import Placement
from zeroq.simulate.quantized_network import value_of

BATCH = 32  # images of a step
OnStep = Callable[[int, int], None]  # done, total


@dataclass(frozen=True)
class Pace:
    """How much is learned, by Adam, whose rates fall along half a cosine."""

    steps: int  # of each block
    integers: float = 0.005  # in steps of a weight's grid
    biases: float = 1e-4  # in lengths of a filter
    ranges: float = 1e-3  # of the logarithm of an activation's step
    drop: float = 0.5  # share of activations that a pass does not round, and of what a block is given without errors


def reconstruct(
    network: Network,
    placement: Placement,
    ranges: Ranges,
    input_bits: Mapping[str, int],
    weights: Mapping[str, IntegerWeight],
    fitting: Inputs,
    held_out: Inputs,
    pace: Pace,
    *,
    seed: int = 0,
    room: Room = IN_MEMORY,
    on_step: OnStep | None = None,
) -> tuple[dict[str, IntegerWeight], Ranges]:
    """Integers, biases and activation steps that bring each block nearer to what it gives in floating point.

    Block by block in order (BRECQ, arXiv:2102.05426), each on what those before it give by now: integers of layers
    below 8 bits, from where they are; the biases of these layers; steps of quantizers below 8 bits that no other block
    has. Minimised is the squared error of the block's output over its variance, while the rounding of activations, and
    the errors of what the block is given, are dropped at random (QDrop, arXiv:2203.05740). A block is kept only where
    its error on held-out images falls. Scales of weights, and layers of 8 bits, stay as they are.

    network: folded.  placement, ranges, input_bits, weights: as in quantize_network.
    fitting, held_out: images [N, C, H, W] (of several inputs a tuple).  room: for their values at a block's borders.
    on_step: called with steps done and steps in all.
    Differs from the papers: gradients pass the rounding straight through, blocks are found in the graph.
    """
    simulation = simulation_of(network, placement, ranges, input_bits, weights)
    images = as_inputs([torch.cat(pair) for pair in zip(as_tuple(fitting), as_tuple(held_out), strict=True)])
    quantized = Walk.over(simulation.graph, simulation.tensors, images, room)
    floating = Walk.over(network.graph, network.tensors, images, room)
    generator = torch.Generator(as_tuple(images)[0].device).manual_seed(seed)
    training = with_gradients(simulation.graph, simulation.tensors, Dropping(pace.drop, generator))
    blocks = blocks_between(network, simulation.graph, simulation.layers)
    settled, by_name = dict(weights), dict(ranges.by_name)
    for index, block in enumerate(blocks):
        learned = learned_in(block, simulation, network, settled, replace(ranges, by_name=by_name))
        task = task_of(block, quantized, floating, count_images(fitting))
        if learned:

            def report(done: int, first: int = index * pace.steps) -> None:
                if on_step is not None:
                    on_step(first + done, len(blocks) * pace.steps)

            learn(task, training, quantized.tensors, learned, pace, generator, report)
            found_weights, found_ranges = learned.found()
            tensors = {**quantized.tensors, **simulation.changed(found_weights, found_ranges)}
            before, after = (task.error(simulation.graph, each) for each in (quantized.tensors, tensors))
            if after < before and simulation.holds_biases(settled | found_weights, tensors):
                quantized.tensors = tensors
                settled |= found_weights
                by_name |= found_ranges
        if block.end is not None:
            quantized.to(block.end)
    return settled, replace(ranges, by_name=by_name)


def blocks_between(network: Network, graph: fx.Graph, layers: Sequence[Layer]) -> tuple[Block, ...]:
    """Blocks of the quantized graph between quantizers of values that have an image in each place of their first axis.

    network: folded, of which graph is the one with activation quantizers.
    """
    images = len(network.example[0])
    by_image = set()

    def note(node: fx.Node, value: Any) -> None:
        if isinstance(value, Tensor) and value.dim() and len(value) == images:
            by_image.add(node.name)

    with torch.inference_mode():
        replay(network.graph, network.tensors, network.feed(network.example), visit=note)
    return blocks_of(graph, layers, lambda node: node.target == QUANTIZE_DEQUANTIZE and value_of(node.name) in by_image)


def learned_in(
    block: Block, simulation: Simulation, network: Network, weights: Mapping[str, IntegerWeight], ranges: Ranges
) -> Learned:
    """Where a block's learning starts: layers of one site below 8 bits, quantizers below 8 bits that are its own."""
    learned = Learned()
    for layer in block.layers:
        weight, bias = weights[layer.name], simulation.bias(layer)
        if weight.bits < MOST_BITS and bias is not None:
            names = layer.weight, simulation.biases[layer.name]
            learned.weights[layer.name] = LearnedWeight(weight, network.tensors[layer.weight], bias, names)
    for name in simulation.within(block):
        if ranges[name].bits < MOST_BITS:
            key = simulation.scale(name)
            device = simulation.tensors[key].device
            learned.steps[name] = LearnedStep(ranges[name], simulation.ceilings[name], device, key)
    return learned


def learn(
    task: Task,
    graph: fx.Graph,
    tensors: Mapping[str, Tensor],
    learned: Learned,
    pace: Pace,
    generator: torch.Generator,
    on_step: Callable[[int], None],
) -> None:
    """The steps of one block.  graph: that lets gradients through.  tensors: of all that is not learned."""
    groups = [
        {"params": [each.steps for each in learned.weights.values()], "lr": pace.integers},
        {"params": [each.change for each in learned.weights.values()], "lr": pace.biases},
        {"params": [each.logarithm for each in learned.steps.values()], "lr": pace.ranges},
    ]
    optimiser = torch.optim.Adam([group for group in groups if group["params"]])
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, pace.steps)
    dropping = Dropping(pace.drop, generator)
    for step in range(pace.steps):
        order = torch.randperm(task.fitting, generator=generator, device=generator.device)
        drawn = order[:BATCH].sort().values.tolist()
        optimiser.zero_grad()
        for first in range(0, len(drawn), task.at_a_time):
            part = drawn[first : first + task.at_a_time]
            loss = task.loss(graph, {**tensors, **learned.tensors()}, task.mixed(part, dropping), part)
            (loss * (len(part) / len(drawn))).backward()
        optimiser.step()
        schedule.step()
        on_step(step + 1)

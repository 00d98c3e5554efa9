"""Block reconstruction: the integers of a block's layers learned together, by the error of what the block gives."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from zeroq.graph import Inputs, Layer, Network, as_inputs, as_tuple, count_images, replay
from zeroq.graph.blocks import Block, blocks_of
from zeroq.graph.live import IN_MEMORY, Room
from zeroq.graph.walk import Walk
from zeroq.numbers.grid import MOST_BITS
from zeroq.numbers.operators import QUANTIZE_DEQUANTIZE
from zeroq.numbers.values import IntegerWeight, Ranges
from zeroq.ranks import ALONE, Ranks
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
    ranks: Ranks = ALONE,
    on_step: OnStep | None = None,
) -> tuple[dict[str, IntegerWeight], Ranges]:
    """Integers, biases and activation steps that bring each block nearer to what it gives in floating point.

    Block by block in order (BRECQ, arXiv:2102.05426), each on what those before it give by now: integers of layers
    below 8 bits, from where they are; the biases of these layers; steps of quantizers below 8 bits that no other block
    has. Minimised is the squared error of the block's output over its variance, while the rounding of activations, and
    the errors of what the block is given, are dropped at random (QDrop, arXiv:2203.05740). A block is kept only where
    its error on held-out images falls. Scales of weights, and layers of 8 bits, stay as they are.

    network: folded.  placement, ranges, input_bits, weights: as in quantize_network.
    fitting, held_out: images [N, C, H, W] (of several inputs a tuple).  room: for their values at a block's borders;
    gradients are computed for as many images at a time as it has in a chunk.
    ranks: processes that share out the images of each step; every one is to ask.  on_step: (done, total), in steps.
    Differs from the papers: gradients pass the rounding straight through, blocks are found in the graph.
    """
    simulation = simulation_of(network, placement, ranges, input_bits, weights)
    images = as_inputs([torch.cat(pair) for pair in zip(as_tuple(fitting), as_tuple(held_out), strict=True)])
    quantized = Walk.over(simulation.graph, simulation.tensors, images, room)
    floating = Walk.over(network.graph, network.tensors, images, room)
    generator = torch.Generator().manual_seed(seed)
    most = min(room.chunk, BATCH) * largest_value(network)
    dropping = Dropping.of(pace.drop, most, as_tuple(images)[0].device, seed)
    training = with_gradients(simulation.graph, simulation.tensors, dropping)
    blocks = blocks_between(network, simulation.graph, simulation.layers)
    settled, by_name = dict(weights), dict(ranges.by_name)
    for index, block in enumerate(blocks):
        learned = learned_in(block, simulation, network, settled, replace(ranges, by_name=by_name))
        task = task_of(block, quantized, floating, count_images(fitting))
        if learned:

            def report(done: int, first: int = index * pace.steps) -> None:
                if on_step is not None:
                    on_step(first + done, len(blocks) * pace.steps)

            learn(task, training, quantized.tensors, learned, pace, dropping, generator, ranks, report)
            found_weights, found_ranges = learned.found()
            tensors = {**quantized.tensors, **simulation.changed(found_weights, found_ranges)}
            before, after = ranks.mapped(partial(task.error, simulation.graph), [quantized.tensors, tensors])
            if after < before and simulation.holds_biases(settled | found_weights, tensors):
                quantized.tensors = tensors
                settled |= found_weights
                by_name |= found_ranges
        del task  # and with it values of the block's start
        if block.end is not None:
            quantized.to(block.end)
    return settled, replace(ranges, by_name=by_name)


def largest_value(network: Network) -> int:
    """Numbers of one image in the largest value."""
    found = [0]

    def note(node: fx.Node, value: Any) -> None:
        found.extend(leaf.numel() for leaf in pytree.tree_leaves(value) if isinstance(leaf, Tensor))

    with torch.inference_mode():
        replay(network.graph, network.tensors, network.feed(network.example), visit=note)
    return math.ceil(max(found) / len(network.example[0]))


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
    dropping: Dropping,
    generator: torch.Generator,
    ranks: Ranks,
    on_step: Callable[[int], None],
) -> None:
    """The steps of one block; every process is to ask, with generators that are alike.

    graph: that lets gradients through, and drops as `dropping` says.  tensors: of all that is not learned.
    """
    groups = [
        {"params": [each.steps for each in learned.weights.values()], "lr": pace.integers},
        {"params": [each.change for each in learned.weights.values()], "lr": pace.biases},
        {"params": [each.logarithm for each in learned.steps.values()], "lr": pace.ranges},
    ]
    parameters = [parameter for group in groups for parameter in group["params"]]  # type: ignore[attr-defined]
    optimiser = torch.optim.Adam([group for group in groups if group["params"]])
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, pace.steps)

    def gradients(part: tuple[list[int], int]) -> tuple[Tensor, ...]:
        """Of the loss of some images, with what is dropped drawn anew from a seed."""
        images, seed = part
        dropping.generator.manual_seed(seed)
        loss = task.loss(graph, {**tensors, **learned.tensors()}, task.mixed(images, dropping), images)
        return torch.autograd.grad(loss * len(images), parameters, materialize_grads=True)

    for step in range(pace.steps):
        drawn = torch.randperm(task.fitting, generator=generator)[:BATCH].sort().values
        parts = [part.tolist() for part in drawn.split(task.given.room.chunk)]
        seeds = torch.randint(2**62, (len(parts),), generator=generator).tolist()
        found = ranks.mapped(gradients, list(zip(parts, seeds, strict=True)))
        for parameter, *shares in zip(parameters, *found, strict=True):
            parameter.grad = sum(shares) / len(drawn)
        optimiser.step()
        schedule.step()
        on_step(step + 1)

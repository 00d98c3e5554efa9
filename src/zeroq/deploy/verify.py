"""The proof that a file equals its simulation: operator by operator, and as a whole."""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import torch
from onnx import ModelProto
from onnxruntime.capi import onnxruntime_pybind11_state as onnxruntime_errors
from torch import Tensor
from torch.utils import _pytree as pytree

from zeroq.deploy.fused import FusedOperator, Integers, compare, count_nodes, feeds, fused_operators, is_fused, isolated
from zeroq.deploy.onnx_file import ADVICE
from zeroq.divergence import Comparison, Meaning
from zeroq.errors import ModelError, VerificationError
from zeroq.graph.inputs import Inputs, as_tuple
from zeroq.graph.replay import replay
from zeroq.numbers.operators import QUANTIZE_DEQUANTIZE
from zeroq.simulate.quantized_network import QuantizedNetwork

# Of a file with operators, or types of their values, that it has no kernel for, or none that fits their arguments.
REFUSALS = (
    onnxruntime_errors.NotImplemented,
    onnxruntime_errors.InvalidGraph,
    onnxruntime_errors.InvalidArgument,
    onnxruntime_errors.RuntimeException,
    onnxruntime_errors.Fail,
)
STEPS = 1  # largest difference that a fused operator may make: its rounding is its own
SCORES = Meaning("classification")
SHARE = 0.05  # of its values, at most, that differ by it


@dataclass(frozen=True)
class Verification:
    """How a file compares with its simulation on the given images."""

    compared: int  # fused operators, each fed the simulation's own integers
    largest_steps: int  # over all of them
    share_over_one_step: float  # of all compared values
    largest_share: float  # of values that differ at all, of the operator with most of them
    agreement: float  # of the file and of the simulation, by what the output means
    optimised_equals_plain: float  # likewise of the optimised and of the plain graph
    integer_nodes: Mapping[str, int]  # by operator, of the optimised graph
    float_nodes: Mapping[str, int]
    integer_weights: frozenset[str]  # tensors that integer operators hold
    integer_values: frozenset[str]  # quantizers whose values integer operators write
    load_seconds: float


def verify(
    model: ModelProto,
    network: QuantizedNetwork,
    images: Inputs,
    *,
    meaning: Meaning = SCORES,
    strict: bool = True,
    threads: int = 0,
) -> Verification:
    """Compare a file with its simulation; see Verification.

    images: [N, C, H, W], the network's input, of several inputs a tuple.  meaning: of its outputs.
    strict: a difference beyond the limits is a VerificationError that names operator and value, as it is a defect;
    otherwise it is only counted.
    """
    with torch.inference_mode():
        integers, highs, outputs = simulated(network, images)
    stored = model.SerializeToString()
    with tempfile.TemporaryDirectory() as folder:
        kept = Path(folder) / "optimised.onnx"
        open_session(stored, threads, keep=kept)
        optimised = onnx.load(kept)
    start = time.perf_counter()
    session = open_session(stored, threads)
    load_seconds = time.perf_counter() - start
    operators = fused_operators(optimised, network.graph)
    steps = operator_steps(optimised, operators, integers, highs, threads)
    if strict:
        refuse_differences(steps)
    form = pytree.tree_structure(outputs)
    results, plain = (
        pytree.tree_unflatten(run(each, images), form)
        for each in (session, open_session(stored, threads, optimised=False))
    )
    integer_nodes, float_nodes = count_nodes(optimised)
    return Verification(
        compared=len(operators),
        largest_steps=max((int(difference.max()) for _, difference in steps), default=0),
        share_over_one_step=sum(int((d > STEPS).sum()) for _, d in steps) / max(sum(d.size for _, d in steps), 1),
        largest_share=max((float((difference > 0).mean()) for _, difference in steps), default=0.0),
        agreement=agreement_of(meaning, outputs, results),
        optimised_equals_plain=agreement_of(meaning, plain, results),
        integer_nodes=integer_nodes,
        float_nodes=float_nodes,
        integer_weights=frozenset(name for node in optimised.graph.node if is_fused(node) for name in node.input),
        integer_values=frozenset(operator.writes for operator in operators if operator.writes is not None),
        load_seconds=load_seconds,
    )


def simulated(network: QuantizedNetwork, images: Inputs) -> tuple[dict[str, Integers], dict[str, int], Any]:
    """Integers behind every quantizer and its highest integer, by node, and the network's outputs."""
    tensors = network.tensors()
    integers: dict[str, Integers] = {}
    highs: dict[str, int] = {}

    quantizers = {node.name: node for node in network.graph.nodes if node.target == QUANTIZE_DEQUANTIZE}

    def note(node: torch.fx.Node, value: Any) -> None:
        if node.name in quantizers:
            _, *stored, high = quantizers[node.name].args
            scale, zero_point = (tensors[str(argument.target)] for argument in stored)
            integers[node.name] = (value / scale).round_().add_(zero_point).to(torch.uint8).numpy()
            highs[node.name] = int(high)

    names = [node.name for node in network.graph.nodes if node.op == "placeholder"]
    inputs = dict(zip(names, as_tuple(images), strict=True))
    output = replay(network.arithmetic, tensors, inputs, visit=note)["output"]
    return integers, highs, output


def operator_steps(
    optimised: ModelProto,
    operators: list[FusedOperator],
    integers: Mapping[str, Integers],
    highs: Mapping[str, int],
    threads: int,
) -> list[tuple[str, Integers]]:
    """Every fused operator run by itself on the simulation's integers: its title and the differences in steps."""
    if not operators:
        return []
    alone = open_session(isolated(optimised, operators), threads, optimised=False)
    results = alone.run([str(index) for index in range(len(operators))], feeds(operators, integers))
    return [(operator.title, difference) for operator, difference in compare(operators, iter(results), integers, highs)]


def refuse_differences(steps: list[tuple[str, Integers]]) -> None:
    """Raise for the first operator beyond the limits."""
    for title, difference in steps:
        share = float((difference > 0).mean())
        if difference.max() > STEPS or share > SHARE:
            raise VerificationError(
                f"{title} of the file differs from its simulation by up to {int(difference.max())} steps, on "
                f"{share:.1%} of the values; one step on {SHARE:.0%} is allowed."
            )


def open_session(
    model: ModelProto | bytes, threads: int, *, optimised: bool = True, keep: Path | None = None, spinning: bool = True
) -> Any:
    """An onnxruntime session on the CPU, of a model or of a file's bytes; `keep` takes the graph that it makes of it.

    spinning: its threads wait busily, which is fast alone and slows what runs beside it.
    Raises ModelError where onnxruntime has no kernel for an operator or a type.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # what goes wrong is raised
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimised else levels.ORT_DISABLE_ALL
    if not spinning:
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    unwanted = []
    if keep is not None:
        options.optimized_model_filepath = str(keep)
        unwanted = ["ConstantSharing"]  # would give equal scales one name; nothing else changes with it
    stored = model if isinstance(model, bytes) else model.SerializeToString()
    with refusals():
        return onnxruntime.InferenceSession(
            stored, options, providers=["CPUExecutionProvider"], disabled_optimizers=unwanted
        )


def run(session: Any, images: Inputs) -> list[Tensor]:
    """Outputs of a session, whose inputs have the order of the network's. Raises ModelError where a kernel fails."""
    names = [each.name for each in session.get_inputs()]
    values = dict(zip(names, (value.numpy() for value in as_tuple(images)), strict=True))
    with refusals():
        return [torch.from_numpy(value) for value in session.run(None, values)]


@contextmanager
def refusals() -> Iterator[None]:
    """What onnxruntime refuses becomes a ModelError."""
    try:
        yield
    except REFUSALS as error:
        reason = re.split(" : |Status Message: ", str(error))[-1].splitlines()[0].rstrip(". ")
        raise ModelError(
            f"onnxruntime {onnxruntime.__version__} cannot run the network's file ({reason}): {ADVICE}."
        ) from error


def agreement_of(meaning: Meaning, reference: Any, outputs: Any) -> float:
    """How often two outputs say the same, by what they mean."""
    comparison = Comparison(meaning)
    comparison.add(reference, outputs)
    return comparison.agreement

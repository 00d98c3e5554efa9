"""result.json: what a run has come to, in figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import zeroq.devices as devices
import zeroq.resident as resident
from zeroq.allocate import GIGA, MEGABYTE, MILLISECOND
from zeroq.deploy import Verification
from zeroq.fastest import reason_of
from zeroq.forecast import forecast
from zeroq.graph.frozen import thaw
from zeroq.graph.network import LINEAR
from zeroq.numbers.grid import shifts_of
from zeroq.numbers.packing import packed_bytes
from zeroq.numbers.values import BitSetting, SensitivityTable
from zeroq.options import BOUNDS, FLOAT_BITS
from zeroq.preparation import Prepared
from zeroq.report.words import TASKS
from zeroq.setting import LayerPlan
from zeroq.simulate import Placement, QuantizedNetwork, float_operators
from zeroq.simulate.outputs import output_quantizers, without
from zeroq.simulate.peak import memory_of
from zeroq.version import __version__

FINER = "rounding its output to 8 bits did most of the harm: it leaves in floating point, without an integer kernel"
OUTPUT = "the network's output leaves its integer kernel in floating point, which costs nothing"
MOST_IN_FLOAT = 0.1  # of the parameters; more is a warning
WORTH_A_WARNING = 1e6  # bytes of a network, whose file should be smaller; of a tiny one the graph is most
AGREEMENT_EXPECTED = 0.99  # of the file and its simulation; less is a warning


@dataclass(frozen=True)
class Outcome:
    """All that result.json is made from."""

    prepared: Prepared
    setting: BitSetting
    table: SensitivityTable | None
    rounding: Mapping[str, str]  # by layer
    quantized: QuantizedNetwork
    onnx_bytes: int
    divergence: Mapping[str, Any]
    verification: Verification
    precision: str
    finer_outputs: tuple[str, ...] = ()  # layers
    fastest: Mapping[str, Any] | None = None  # what was measured and decided under --fastest
    predicted_memory_mb: float | None = None  # of the whole run, where a limit was asked for
    latency_ms: float | None = None  # of one image in the file, where it is bounded
    device: str = "cpu"  # that computed

    @property
    def plan(self) -> LayerPlan:
        return self.prepared.plan

    def to_json(self, seconds: Mapping[str, float | None]) -> dict[str, Any]:
        """The dictionary of result.json; the README says how to read it."""
        parameters, meaning = self.plan.parameters, self.prepared.meaning
        average = self.setting.average(parameters)
        return {
            "version": __version__,
            "model": self.prepared.model.source,
            "task": meaning.task,
            "seed": self.prepared.options.seed,
            "effort": self.prepared.options.effort,
            "device": self.device,
            "cpu": devices.processor(),
            "precision": self.precision,
            "float_bytes": self.float_bytes(),
            "weight_bytes": self.weight_bytes(),
            "other_bytes": self.other_bytes(),
            "onnx_bytes": self.onnx_bytes,
            "average_bits": average,
            "compression": 32 / average,
            "bounds": self.bounds(),
            "layers": [self.layer(layer) for layer in self.plan.layers],
            "not_quantized": [{"name": name, "reason": reason} for name, reason in self.not_quantized()],
            "divergence": dict(self.divergence),
            "forecast": None if meaning.divergence is not None else forecast(meaning.task, self.divergence),
            "verification": {
                "compared": self.verification.compared,
                "largest_steps": self.verification.largest_steps,
                "share_over_one_step": self.verification.share_over_one_step,
                "agreement": self.verification.agreement,
                "optimised_equals_plain": self.verification.optimised_equals_plain,
            },
            "integer_nodes": dict(self.verification.integer_nodes),
            "float_nodes": dict(self.verification.float_nodes),
            "integer_share": self.integer_share(),
            "seconds": dict(seconds),
            "peak_memory_mb": round(resident.peak() / 1e6, 1),
            "predicted_memory_mb": self.predicted_memory_mb,
            "warnings": [*self.prepared.warnings, *self.own_warnings()],
            **({} if self.fastest is None else {"fastest": dict(self.fastest)}),
        }

    def bounds(self) -> dict[str, dict[str, float]]:
        """What was asked beside a size, and what of it the network takes; of a latency also what its layers predict."""
        memory = memory_of(self.prepared.folded, self.placement(), self.plan.input_bits)
        reached = {
            "bit_operations": self.plan.operations_of(self.setting.bits) / GIGA,
            "activation_mb": memory.peak(self.plan.input_bits) / MEGABYTE,
        }
        if self.latency_ms is not None:
            reached["latency_ms"] = round(self.latency_ms, 4)
        asked = {name: getattr(self.prepared.options, name) for name in BOUNDS}
        found = {name: {"asked": asked[name], "reached": reached[name]} for name in BOUNDS if asked[name] is not None}
        if self.plan.latency is not None:
            found["latency_ms"]["predicted"] = self.plan.latency.total(self.plan.input_bits) / MILLISECOND
        return found

    def placement(self) -> Placement:
        """The quantizers that the network has."""
        prepared = self.prepared
        quantizers = output_quantizers(prepared.folded, prepared.placement, self.plan.floating)
        return without(prepared.placement, [quantizers[name] for name in self.finer_outputs])

    def layer(self, layer: Any) -> dict[str, Any]:
        """One entry of "layers"."""
        inputs = self.table.inputs if self.table is not None else None
        return {
            "name": layer.name,
            "operator": layer.operator,
            "parameters": layer.parameters,
            "multiply_accumulates": layer.multiply_accumulates,
            "weight_bits": self.setting[layer.name],
            "activation_bits": FLOAT_BITS if layer.name in self.weight_only() else self.plan.input_bits[layer.name],
            "sensitivity": sensitivities(self.table, layer.name),
            **({} if inputs is None else {"activation_sensitivity": sensitivities(inputs, layer.name)}),
            "rounding": self.rounding[layer.name],
        }

    def float_bytes(self) -> int:
        """Bytes of all parameters in floating point."""
        return 4 * sum(tensor.numel() for tensor in thaw(self.prepared.model.module).parameters())

    def weight_bytes(self) -> int:
        """Bytes of all quantized weights at their true width."""
        return sum(packed_bytes(layer.parameters, self.setting[layer.name]) for layer in self.plan.layers)

    def other_bytes(self) -> int:
        """Bytes of scales, zero points, shifts of weights' grids, biases and what stays in floating point; scales of
        biases are not stored.
        """
        tensors: dict[str, Tensor] = self.quantized.tensors()
        left_out = {f"{layer.weight}_integers" for layer in self.plan.layers}
        left_out |= {f"{name.removesuffix('_integers')}_scale" for name, t in tensors.items() if t.dtype == torch.int32}
        weights = {layer.name: tensors[f"{layer.weight}_integers"] for layer in self.plan.layers}
        shifts = [shifts_of(weight, self.setting[name]) for name, weight in weights.items()]
        kept = [tensor for name, tensor in tensors.items() if name not in left_out]
        return sum(each.numel() * each.element_size() for each in [*kept, *(each for each in shifts if each.any())])

    def not_quantized(self) -> list[tuple[str, str]]:
        """What stays in floating point, each with its reason."""
        found = list(self.prepared.folded.not_quantized)
        found += [(name, "kept in floating point as asked") for name in self.plan.floating]
        found += [(name, OUTPUT) for name in self.float_outputs()]
        found += [(name, FINER) for name in self.finer_outputs]
        found += [(name, reason_of(layer, self.setting[name])) for name, layer in self.weight_only().items()]
        found += [(name, "onnxruntime has no integer kernel for it on this machine") for name in self.left_float()]
        named = {name for name, _ in found}
        listed = (*self.finer_outputs, *self.weight_only(), *self.float_outputs())
        named |= {site for name in listed for site in self.prepared.folded.layer(name).sites}
        others = float_operators(self.quantized.graph, self.prepared.folded, self.rectifiers_of_weight_only())
        return found + [(name, reason) for name, reason in others if name not in named]

    def float_outputs(self) -> list[str]:
        """Linear layers whose value is the network's output, unquantized."""
        output = next(node for node in self.quantized.graph.nodes if node.op == "output")
        given = {node.name for node in output.all_input_nodes if node.target == LINEAR}
        return [layer.name for layer in self.plan.layers if given.intersection(layer.sites)]

    def left_float(self) -> list[str]:
        """Quantized layers that onnxruntime did not fuse, though their outputs are quantized."""
        meant = {*self.finer_outputs, *self.weight_only()}
        return [name for name in self.in_floating_point() if name not in meant]

    def rectifiers_of_weight_only(self) -> set[str]:
        """Those behind such layers that no range takes in, as nothing quantizes them: onnxruntime fuses them."""
        folded = self.prepared.folded
        sites = {site for name in self.weight_only() for site in folded.layer(name).sites}
        return {name for name in self.prepared.placement.absorbed if folded.node(name).all_input_nodes[0].name in sites}

    def weight_only(self) -> dict[str, Mapping[str, Any]]:
        """Layers that stay in floating point under --fastest, with their times."""
        return {} if self.fastest is None else {layer["name"]: layer for layer in self.fastest["layers"]}

    def in_floating_point(self) -> list[str]:
        """Quantized layers that run in floating point."""
        held = self.verification.integer_weights
        return [layer.name for layer in self.plan.layers if f"{layer.weight}_integers" not in held]

    def share_in_floating_point(self) -> float:
        """Of the numbers in matrices and kernels, those that are no layer's weights."""
        folded = self.prepared.folded
        weights = {layer.weight for layer in folded.layers}
        learned = weights | {name for name, _ in self.prepared.model.module.named_parameters()}
        matrices = {
            name: tensor.numel() for name, tensor in folded.tensors.items()
            if name in learned and tensor.dim() > 1 and tensor.is_floating_point()
        }  # fmt: skip
        return sum(count for name, count in matrices.items() if name not in weights) / max(sum(matrices.values()), 1)

    def integer_share(self) -> float:
        """Of all multiply-accumulates of convolutions, linear layers and products of two computed values."""
        missed, network = set(self.in_floating_point()), self.prepared.folded
        written = self.verification.integer_values
        integer = sum(layer.multiply_accumulates for layer in self.plan.layers if layer.name not in missed)
        integer += sum(count for name, count in network.products.items() if f"{name}_quantized" in written)
        every = sum(layer.multiply_accumulates for layer in network.layers) + sum(network.products.values())
        return integer / max(every, 1)

    def own_warnings(self) -> list[str]:
        """What the figures themselves warn of."""
        found = []
        if self.left_float():
            found.append(f"{len(self.left_float())} layers run in floating point in onnxruntime: see not_quantized.")
        if (share := self.share_in_floating_point()) > MOST_IN_FLOAT:
            found.append(
                f"{share:.0%} of the parameters are of no convolution or linear layer and stay 32-bit floats, as those "
                "of LSTMs, GRUs and embeddings: average_bits and integer_share leave them out."
            )
        for name, share in (
            ("the file agrees with its simulation", self.verification.agreement),
            ("the optimised file agrees with the plain one", self.verification.optimised_equals_plain),
        ):
            if share < AGREEMENT_EXPECTED:
                of = TASKS[self.prepared.meaning.task].agreed
                found.append(f"On {share:.1%} {of} only, on held-out images, {name}.")
        if self.onnx_bytes > (in_float := self.float_bytes()) > WORTH_A_WARNING:
            found.append(
                f"model.onnx has {self.onnx_bytes / 1e6:.1f} MB, more than the {in_float / 1e6:.1f} MB of the "
                "network in floating point: what stays there is most of it, and the file's graph adds to that."
            )
        asked = self.prepared.options.size_mb
        if asked is not None and self.onnx_bytes > asked * 1e6:
            found.append(f"model.onnx has {self.onnx_bytes / 1e6:.4f} MB, more than --size-mb {asked:g}: ask for less.")
        if self.prepared.meaning.task == "regression" and self.divergence["agreement"] == 0:
            found.append(
                "The outputs miss those in floating point by more than these vary over the held-out images: the "
                "network is of no use so, or the images hardly move it. Those of integers are drawn from the "
                "example's own entries: give one with many."
            )
        limit = self.prepared.options.memory_limit
        if limit is not None and (taken := resident.peak() / 1e9) > limit:
            found.append(f"The run took {taken:.2f} GB of memory, more than --memory-limit {limit:g}: give more room.")
        if (bound := self.bounds().get("latency_ms")) is not None and bound["reached"] > bound["asked"]:
            found.append(
                f"The file takes {bound['reached']:.4g} ms for one image, more than --latency-ms {bound['asked']:g}, "
                f"where {bound['predicted']:.4g} ms were predicted from times of its layers: time it again on an idle "
                "machine (zeroq benchmark RUN --batch 1), or allow more."
            )
        return found


def sensitivities(table: SensitivityTable | None, layer: str) -> dict[str, float]:
    """Of a layer by width; nothing of one that had no choice."""
    if table is None or layer not in table.layers:
        return {}
    return {str(width): table.of(layer, width) for width in table.widths}

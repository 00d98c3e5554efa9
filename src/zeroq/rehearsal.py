"""A file before there are numbers for it: to be timed, and to find out what can be neither written, run nor kept small.

Which operators a file has, and of which types, hangs on no range, weight or image. So what ONNX or onnxruntime does not
know is refused before anything takes long, and not when everything else is done, and so is a size that no file has.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from onnx import ModelProto

from zeroq.bounds import limits_of
from zeroq.deploy import export_onnx
from zeroq.deploy.program import PLAIN
from zeroq.deploy.unpack import SHIFTING, tables_bytes
from zeroq.deploy.verify import open_session, run
from zeroq.fastest import weights_to_time
from zeroq.graph import Network
from zeroq.numbers.grid import MOST_BITS, SHIFTED_BITS
from zeroq.numbers.packing import planes_of
from zeroq.numbers.values import BitSetting
from zeroq.preparation import Prepared, any_ranges, metadata_of
from zeroq.setting import weight_widths
from zeroq.simulate import quantize_network
from zeroq.simulate.placement import busiest

aten = torch.ops.aten
ZERO_POINT = 24  # bytes of one in a file, at most, its name among them

USUAL = {  # operators that can be written and run whatever their arguments, on 32-bit floats
    *PLAIN,
    aten.abs.default, aten.avg_pool1d.default, aten.avg_pool3d.default, aten.batch_norm.default,
    aten.channel_shuffle.default, aten.clamp.default, aten.div.Tensor, aten.elu.default, aten.exp.default,
    aten.expand.default, aten.gelu.default, aten.glu.default, aten.group_norm.default, aten.hardsigmoid.default,
    aten.hardswish.default, aten.instance_norm.default, aten.layer_norm.default, aten.leaky_relu.default,
    aten.matmul.default, aten.max_pool1d.default, aten.max_pool3d.default, aten.mean.dim, aten.mish.default,
    aten.mul.Tensor, aten.pixel_shuffle.default, aten.prelu.default, aten.roll.default, aten.sigmoid.default,
    aten.silu.default, aten.softmax.int, aten.softplus.default, aten.sqrt.default, aten.sub.Tensor, aten.tanh.default,
    aten.upsample_bilinear2d.vec,
}  # fmt: skip


def rehearse(prepared: Prepared) -> None:
    """Write and run the file of a network that has more than the usual operators, and count one of a size.

    Raises ModelError, with the line of the user's code where it is known, and SizeError.
    """
    if not is_usual(prepared.folded):
        run(open_session(file_without_numbers(prepared), prepared.options.threads or 0), prepared.folded.example)
    refuse_size(prepared)


def is_usual(network: Network) -> bool:
    """Whether a network is known to have a file that runs."""
    targets = {node.target for node in network.graph.nodes if node.op == "call_function"}
    return targets <= USUAL and not any(tensor.dtype == torch.float64 for tensor in network.tensors.values())


def refuse_size(prepared: Prepared) -> None:
    """Raise SizeError where no setting makes a file as small as was asked."""
    if prepared.options.size_mb is not None:
        limits_of(prepared.plan, prepared.options, bytes_beside_weights(prepared), prepared.memory)


def bytes_beside_weights(prepared: Prepared) -> int:
    """What a file holds beside its weights' bits, at most, whatever the setting and the numbers."""
    plan, inputs = prepared.plan, [dict[str, int]()]
    bits = {name: costliest(widths) for name, widths in plan.widths.items()}
    lacking = tables_bytes(set().union(*plan.widths.values())) - tables_bytes(bits.values())
    unshifted = [layer for layer in plan.layers if min(plan.widths[layer.name]) <= SHIFTED_BITS < bits[layer.name]]
    lacking += sum(SHIFTING + len(prepared.folded.tensors[layer.weight]) for layer in unshifted)
    if plan.input_widths:
        narrowest = {name: own[0] for name, own in plan.input_widths.items()}
        inputs = [narrowest, busiest(prepared.folded, prepared.placement, plan.input_widths)]

    def beside(setting: BitSetting) -> int:
        own = prepared.at(setting)
        file = file_without_numbers(own, setting)
        zero_points = ZERO_POINT * len(any_ranges(own).by_name)  # in a run's file each may have another
        return file.ByteSize() - setting.weight_bits(plan.parameters) // 8 + zero_points

    return max(beside(BitSetting(bits, own)) for own in inputs) + lacking


def costliest(widths: Sequence[int]) -> int:
    """Of a weight's widths the one that takes most beside its bits, but for shifts.

    More planes are more nodes to put them together; fewer bits more often leave a byte that is not full, which takes
    nodes as well. 8 bits take none.
    """
    return max(widths, key=lambda bits: (bits < MOST_BITS, len(planes_of(bits)), -bits))


def file_without_numbers(prepared: Prepared, setting: BitSetting | None = None) -> ModelProto:
    """The file of the network with any numbers, its inputs at their widest; by default its weights as well."""
    plan = prepared.plan
    setting = setting or BitSetting({name: widths[-1] for name, widths in plan.widths.items()})
    weights = weights_to_time(prepared, setting)
    network = quantize_network(prepared.folded, prepared.placement, any_ranges(prepared), weights, plan.input_bits)
    says = metadata_of(prepared, setting)
    return export_onnx(network, prepared.folded.example, weight_widths(plan, setting), says)

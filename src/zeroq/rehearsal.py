"""A file before there are numbers for it: to be timed, and to find out what can be neither written nor run.

Which operators a file has, and of which types, hangs on no range, weight or image. So what ONNX or onnxruntime does not
know is refused before anything takes long, and not when everything else is done.
"""

from __future__ import annotations

import torch
from onnx import ModelProto

from zeroq.deploy import export_onnx
from zeroq.deploy.program import PLAIN
from zeroq.deploy.verify import open_session, run
from zeroq.fastest import weights_to_time
from zeroq.graph import Network
from zeroq.numbers.values import BitSetting
from zeroq.preparation import Prepared, any_ranges
from zeroq.setting import weight_widths
from zeroq.simulate import quantize_network

aten = torch.ops.aten

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
    """Write and run the file of a network that has more than the usual operators.

    Raises ModelError, with the line of the user's code where it is known.
    """
    if not is_usual(prepared.folded):
        run(open_session(file_without_numbers(prepared), prepared.options.threads or 0), prepared.folded.example)


def is_usual(network: Network) -> bool:
    """Whether a network is known to have a file that runs."""
    targets = {node.target for node in network.graph.nodes if node.op == "call_function"}
    return targets <= USUAL and not any(tensor.dtype == torch.float64 for tensor in network.tensors.values())


def file_without_numbers(prepared: Prepared) -> ModelProto:
    """The file of the network with weights and inputs at their widest, and with any numbers."""
    plan = prepared.plan
    setting = BitSetting({name: widths[-1] for name, widths in plan.widths.items()})
    weights = weights_to_time(prepared, setting)
    network = quantize_network(prepared.folded, prepared.placement, any_ranges(prepared), weights, plan.input_bits)
    return export_onnx(network, prepared.folded.example, weight_widths(plan, setting), {})

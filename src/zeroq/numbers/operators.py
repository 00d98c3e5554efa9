"""The operators that make a quantized network an ordinary graph: it runs in PyTorch and is exported as it stands.

They are registered with torch.library under the name `zeroq`; deploy/translate.py says what they become in ONNX.
"""

from __future__ import annotations

import torch
from torch import Tensor


@torch.library.custom_op("zeroq::quantize_dequantize", mutates_args=())
def quantize_dequantize(values: Tensor, scale: Tensor, zero_point: Tensor, high: int) -> Tensor:
    """Values -> nearest of the integers 0..high -> values.

    scale: float32 [].  zero_point: uint8 [], the integer that stands for 0.  The formula is that of grid.quantize and
    grid.dequantize (a test compares), written in place on one copy, as activations are large.
    """
    zero = float(zero_point)
    return (values / scale).round_().clamp_(-zero, high - zero).mul_(scale)


@quantize_dequantize.register_fake
def _(values: Tensor, scale: Tensor, zero_point: Tensor, high: int) -> Tensor:
    return torch.empty_like(values)


@torch.library.custom_op("zeroq::dequantize", mutates_args=())
def dequantize(integers: Tensor, scale: Tensor) -> Tensor:
    """Integers of a weight or bias -> values, one scale per output channel.

    integers: int8 [channels, ...] or int32 [channels].  scale: float32 [channels].
    """
    return integers.to(torch.float32) * scale.reshape(-1, *[1] * (integers.dim() - 1))


@dequantize.register_fake
def _(integers: Tensor, scale: Tensor) -> Tensor:
    return torch.empty(integers.shape, dtype=torch.float32, device=integers.device)


@torch.library.custom_op("zeroq::weight_only", mutates_args=())
def weight_only(integers: Tensor, scale: Tensor) -> Tensor:
    """The same of a weight that is used in floating point: integers are how it is stored, and no kernel reads them."""
    return integers.to(torch.float32) * scale.reshape(-1, *[1] * (integers.dim() - 1))


@weight_only.register_fake
def _(integers: Tensor, scale: Tensor) -> Tensor:
    return torch.empty(integers.shape, dtype=torch.float32, device=integers.device)


QUANTIZE_DEQUANTIZE = torch.ops.zeroq.quantize_dequantize.default
DEQUANTIZE = torch.ops.zeroq.dequantize.default
WEIGHT_ONLY = torch.ops.zeroq.weight_only.default

"""Biases that take back what rounding adds to a layer's output on average."""

from __future__ import annotations

import torch
from torch import Tensor

from zeroq.errors import NumericalError


def corrected_bias(bias: Tensor | None, float_mean: Tensor, quantized_mean: Tensor) -> Tensor:
    """b' = b + E[float output] - E[quantized output] per channel (DFQ, arXiv:1906.04721, here from images).

    bias: [channels], or None for zeros.  float_mean, quantized_mean: [channels], over the same images and positions,
    of the layer's output in front of its activation. Helps one network and harms another (W4: MobileNetV2 from 66 to
    73 %, ResNet18 from 73 to 48 %), so keep it only where the divergence on held-out images is less with it.
    Raises NumericalError where a mean is NaN or infinite.
    """
    if not (torch.isfinite(float_mean).all() and torch.isfinite(quantized_mean).all()):
        raise NumericalError("A layer's mean output is NaN or infinite: quantize a network that computes.")
    if float_mean.shape != quantized_mean.shape or (bias is not None and bias.shape != float_mean.shape):
        raise ValueError("bias and both means must be per channel")
    shift = float_mean.double() - quantized_mean.double()
    return (shift if bias is None else bias.double() + shift).float()

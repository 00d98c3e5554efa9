"""The quantized network in PyTorch: where quantizers stand, and the module that behaves as the file will."""

from zeroq.simulate.floating import float_operators
from zeroq.simulate.placement import Placement, Quantizer, place
from zeroq.simulate.quantized_network import QuantizedNetwork, quantize_activations, quantize_network

__all__ = [
    "Placement",
    "QuantizedNetwork",
    "Quantizer",
    "float_operators",
    "place",
    "quantize_activations",
    "quantize_network",
]

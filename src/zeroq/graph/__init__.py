"""The network as a graph of ATen operators: capture, folding, partial execution."""

from zeroq.graph.capture import capture
from zeroq.graph.fold import fold
from zeroq.graph.inputs import Inputs, as_inputs, as_tuple, chunks, count_images, slice_images
from zeroq.graph.network import Layer, Network, Norm
from zeroq.graph.replay import replay

__all__ = [
    "Inputs", "Layer", "Network", "Norm", "as_inputs", "as_tuple", "capture", "chunks", "count_images", "fold",
    "replay", "slice_images",
]  # fmt: skip

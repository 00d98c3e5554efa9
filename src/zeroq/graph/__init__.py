"""The network as a graph of ATen operators: capture, folding, partial execution."""

from zeroq.graph.capture import capture
from zeroq.graph.fold import fold
from zeroq.graph.network import Layer, Network, Norm
from zeroq.graph.replay import replay

__all__ = ["Layer", "Network", "Norm", "capture", "fold", "replay"]

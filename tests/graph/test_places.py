"""Graphs whose operators make tensors of their own, on any device."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tests.emulated import ELSEWHERE, Distant, emulated
from tests.networks import NETWORKS, example_of
from zeroq.graph import capture
from zeroq.graph.places import on_device

CPU = torch.device("cpu")


class WithRows(nn.Module):
    """Adds as many numbers as there are images, which it makes itself."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, values: Tensor) -> Any:
        return self.layer(values) + torch.ones(values.shape[0], 1)


def test_a_graph_that_names_no_device_stays_itself() -> None:
    graph = capture(NETWORKS["residual"](), example_of("residual")).graph
    assert on_device(graph, ELSEWHERE) is graph


def test_operators_make_tensors_where_the_network_is() -> None:
    network = capture(WithRows(), torch.randn(2, 3))
    assert network.to(CPU) is network
    values = torch.randn(5, 3)
    with emulated(), torch.no_grad():
        moved = network.to(ELSEWHERE)
        found = moved.run(values.to(ELSEWHERE))
        assert isinstance(found, Distant) and torch.equal(found.here, network.run(values))
    assert on_device(moved.graph, CPU) is not moved.graph
    devices = [node.kwargs.get("device") for node in network.graph.nodes if "device" in node.kwargs]
    assert devices and set(devices) == {CPU}

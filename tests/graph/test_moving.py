"""Steps that only move values are written in few words, and what they give stays the same."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from tests.quantized import quantize
from zeroq.deploy import verify
from zeroq.graph import capture
from zeroq.simulate.kernels import PASSING

IMAGES = torch.randn(8, 3, 6, 8, generator=torch.Generator().manual_seed(0))


class Moved(nn.Module):
    """A sum of two layers' values, moved, then read by a third."""

    def __init__(self, step: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 2, 1)
        self.step = step

    def forward(self, images: Tensor) -> Tensor:
        one = self.first(images)
        return self.last(self.step(one + self.second(one), one))


MOVES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "view_as": lambda x, like: x.view_as(like),
    "reshape_as": lambda x, like: x.reshape_as(like),
    "swapaxes": lambda x, like: x.swapaxes(2, 3),
    "swapdims": lambda x, like: x.swapdims(-1, -2),
    "movedim": lambda x, like: x.movedim(-1, 2),
    "movedim_two": lambda x, like: x.movedim((2, 3), (-1, -2)),
    "moveaxis": lambda x, like: x.moveaxis(2, 3),
    "mT": lambda x, like: x.mT,
    "adjoint": lambda x, like: x.adjoint(),
    "narrow": lambda x, like: x.narrow(2, 1, 4),
    "narrow_from_behind": lambda x, like: x.narrow(-1, -3, 2),
    "positive": lambda x, like: +x,
    "times_one": lambda x, like: x * 1.0,
    "by_one": lambda x, like: x / 1,
    "and_nothing": lambda x, like: x + 0.0 - 0,
}


@pytest.mark.parametrize("name", MOVES)
def test_what_moves_is_known_to(name: str) -> None:
    module = Moved(MOVES[name])
    network = capture(module, IMAGES)
    with torch.inference_mode():
        torch.testing.assert_close(network.run(IMAGES), module(IMAGES))
    steps = [node.target for node in network.graph.nodes if node.op == "call_function"]
    assert steps.count(torch.ops.aten.add.Tensor) == 1 and steps.count(torch.ops.aten.conv2d.default) == 3
    assert len(steps) <= 5 and set(steps) <= {torch.ops.aten.add.Tensor, torch.ops.aten.conv2d.default} | PASSING


@pytest.mark.parametrize("name", ["view_as", "movedim_two", "narrow"])
def test_the_sum_before_it_runs_in_integers(name: str) -> None:
    stages = quantize(Moved(MOVES[name]), IMAGES)
    assert verify(stages.export(), stages.quantized, IMAGES).integer_nodes["QLinearAdd"] == 1


STAYS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "twice": lambda x, like: x * 2,
    "one more": lambda x, like: x + 1,
    "one by it": lambda x, like: 1 / x,
    "one less": lambda x, like: 1 - x,
}


@pytest.mark.parametrize("name", STAYS)
def test_arithmetic_that_changes_something_stays(name: str) -> None:
    module = Moved(STAYS[name])
    with torch.inference_mode():
        torch.testing.assert_close(capture(module, IMAGES).run(IMAGES), module(IMAGES))

"""Programs within a program: those without effect take their place in it, others are refused."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
import torch
from torch import Tensor, fx, nn

from zeroq.errors import CaptureError
from zeroq.graph import capture
from zeroq.graph.nested import refusal

IMAGES = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))


class Wrapped(nn.Module):
    """Steps of which two results are read later, within what a context makes of them; another context within it."""

    def __init__(self, outer: Callable[[], AbstractContextManager[object]], inner: Callable[[], object]) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1), nn.Linear(4, 2)
        self.outer, self.inner = outer, inner

    def forward(self, images: Tensor) -> Tensor:
        with self.outer():
            one = self.first(images)
            with self.inner():  # type: ignore[attr-defined]
                other = self.second(one.relu())
            two = other + one
        return self.head((two * other).mean((2, 3)))


CONTEXTS = {
    "no grad": torch.no_grad,
    "grad": torch.enable_grad,
    "cpu off": lambda: torch.autocast("cpu", enabled=False),
    "cuda on": lambda: torch.autocast("cuda", dtype=torch.float16),
}


@pytest.mark.filterwarnings("ignore:.*autocast", "ignore:.*CUDA")
@pytest.mark.parametrize("outer", CONTEXTS)
@pytest.mark.parametrize("inner", CONTEXTS)
def test_what_changes_nothing_is_put_in_place(outer: str, inner: str) -> None:
    module = Wrapped(CONTEXTS[outer], CONTEXTS[inner])
    network = capture(module, IMAGES)
    with torch.inference_mode():
        torch.testing.assert_close(network.run(IMAGES), module(IMAGES))
    assert [layer.name for layer in network.layers] == ["first", "second", "head"]


@pytest.mark.filterwarnings("ignore:.*autocast")
@pytest.mark.parametrize("outer", ["grad", "cpu off"])
def test_other_precision_is_refused_wherever_it_stands(outer: str) -> None:
    module = Wrapped(CONTEXTS[outer], lambda: torch.autocast("cpu", dtype=torch.bfloat16))
    said = f"^The network's forward pass chooses its own precision by torch.autocast at {__file__}:"
    with pytest.raises(CaptureError, match=said):
        capture(module, IMAGES)


def test_other_programs_are_refused_by_name() -> None:
    graph = fx.Graph()
    graph.call_function(torch.ops.higher_order.cond, (graph.get_attr("true_graph"),))
    assert refusal(next(iter(graph.nodes))).startswith("The network holds a nested program (true_graph), which cannot")

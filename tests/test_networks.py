"""The tiny networks themselves: same weights every time, sensible outputs, and capture takes each of them."""

from __future__ import annotations

import pytest
import torch

from tests.networks import NETWORKS, example_of
from zeroq.graph import capture, fold


@pytest.mark.parametrize("name", NETWORKS)
def test_each_is_the_same_every_time_and_is_captured_and_folded(name: str) -> None:
    network, again, images = NETWORKS[name](), NETWORKS[name](), example_of(name, 3)
    assert all(
        torch.equal(one, other)
        for one, other in zip(network.state_dict().values(), again.state_dict().values(), strict=True)
    )
    with torch.inference_mode():
        expected, actual = network(images), fold(capture(network, images)).run(images)
    for one, other in zip(
        torch.utils._pytree.tree_leaves(expected), torch.utils._pytree.tree_leaves(actual), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)

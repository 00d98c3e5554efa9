"""Where recorded operators are counted: hand-made records, and a step of a tiny network."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks.step_counts import ACTIVATIONS, CONVOLUTIONS, DEPTHWISE, KINDS, OPTIMISER, REST, STATISTICS
from benchmarks.step_shares import BACKWARD, FORWARD, shares, shares_of_step
from tests.benchmarks.subjects import tiny
from zeroq.distillation.images import prepare
from zeroq.distillation.starts import natural_noise
from zeroq.precision import Precision

GROUPED = [[2, 6, 4, 4], [6, 1, 3, 3]]  # shapes of input and weight


def event(name: str, start: float, own: float, *children: Any, shapes: Any = ()) -> Any:
    return SimpleNamespace(
        name=name, self_cpu_time_total=own, cpu_children=list(children), time_range=SimpleNamespace(start=start),
        input_shapes=shapes,
    )  # fmt: skip


def test_operators_go_to_their_kinds_and_time_between_them_to_the_rest() -> None:
    forward = event(
        FORWARD, 100, 5,
        event("aten::conv2d", 101, 1, event("aten::convolution", 102, 20), shapes=[[2, 1, 4, 4], [6, 1, 3, 3]]),
        event("aten::conv2d", 115, 1, event("aten::convolution", 116, 10), shapes=GROUPED),
        event("NormaliseAndMeasure", 120, 4, event("aten::addcmul", 121, 6)),
        event("aten::relu", 130, 3), event("aten::add", 135, 2),
    )  # fmt: skip
    backward = event(
        f"{BACKWARD}ConvolutionBackward0", 150, 1,
        event("ConvolutionBackward0", 151, 2, event("aten::convolution_backward", 152, 30, shapes=[[], *GROUPED])),
        event("aten::add_", 160, 7),
    )  # fmt: skip
    roots = [
        event(FORWARD, 0, 99), event("aten::lerp", 50, 99), forward, backward, event("aten::lerp", 190, 8),
        event("aten::clamp", 195, 2), event(FORWARD, 300, 99),
    ]  # fmt: skip
    found = shares(reversed(roots))
    assert found[CONVOLUTIONS] == pytest.approx(21 / 200), "a single channel has a single group"
    assert found[DEPTHWISE] == pytest.approx((11 + 2 + 30) / 200)
    assert found[STATISTICS] == pytest.approx(10 / 200) and found[ACTIVATIONS] == pytest.approx(3 / 200)
    assert found[OPTIMISER] == pytest.approx(10 / 200), "the clamp is no activation there"
    assert sum(found.values()) == pytest.approx(1)


def test_a_step_has_every_kind() -> None:
    subject = tiny()
    images = natural_noise((4, 3, 8, 8), subject.statistic, torch.Generator().manual_seed(0))
    found = shares_of_step(images, prepare(subject.network, subject.statistic, Precision()))
    assert list(found) == list(KINDS) and sum(found.values()) == pytest.approx(1)
    assert [kind for kind, share in found.items() if share == 0] == [DEPTHWISE] and found[REST] < 1

"""Which statistics are matched, and how far images are from them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.networks import NETWORKS, example_of
from zeroq.distillation import InputStatistic, examine
from zeroq.distillation.images import prepare
from zeroq.distillation.targets import Targets, make_targets, weights_of
from zeroq.errors import NumericalError
from zeroq.graph import capture
from zeroq.precision import Precision

STATISTIC = InputStatistic((0.0,) * 3, (1.0,) * 3, (-2.0,) * 3, (2.0,) * 3)


def made_targets(module: nn.Module, name: str) -> Targets:
    network = capture(module, example_of(name))
    return make_targets(network, STATISTIC, examine(network, STATISTIC))


def targets(**changed: object) -> Targets:
    """One BatchNorm of two channels on maps of one pixel."""
    values = {
        "names": ("norm",),
        "sites": ((0,),),
        "positions": (1,),
        "mean": torch.tensor([1.0, -1.0]),
        "deviation": torch.tensor([2.0, 3.0]),
        "epsilon": torch.zeros(2),
        "weight": torch.ones(2),
    }
    return Targets(**{**values, **changed})  # type: ignore[arg-type]


def test_the_loss_is_the_squared_distance_of_means_and_deviations() -> None:
    found = [(torch.tensor([2.0, -1.0]), torch.tensor([4.0, 25.0]))]
    assert targets().loss(found, images=2).item() == pytest.approx(1 + 0 + 0 + 4)
    assert targets(weight=torch.tensor([1.0, 0.0])).loss(found, images=2).item() == pytest.approx(1)


def test_a_single_value_has_no_deviation_to_match() -> None:
    found = [(torch.tensor([2.0, -1.0]), torch.zeros(2))]
    assert targets().loss(found, images=1).item() == pytest.approx(1)
    assert targets(positions=(4,)).loss(found, images=1).item() == pytest.approx(1 + 4 + 9)


def test_constant_images_and_left_out_channels_have_finite_gradients() -> None:
    network = capture(NETWORKS["dead_channels"](), example_of("dead_channels"))
    images = torch.full((2, 3, 8, 8), 0.5, requires_grad=True)
    matching = prepare(network, STATISTIC, Precision())
    (gradient,) = torch.autograd.grad(matching.loss(images), images)
    assert gradient.isfinite().all() and gradient.abs().max() > 0
    wild = torch.tensor([float("nan"), 1.0], requires_grad=True)
    loss = targets(weight=torch.tensor([0.0, 1.0])).loss([(wild, wild)], images=2)
    assert torch.autograd.grad(loss, wild)[0].tolist() == pytest.approx([0, 2 * (1 + 1) + 2 * (1 - 3) / 2])


def test_the_sites_of_one_norm_are_matched_together() -> None:
    found = [
        (torch.tensor([0.0, -3.0]), torch.tensor([3.0, 9.0])),
        (torch.tensor([2.0, 1.0]), torch.tensor([5.0, 9.0])),
    ]
    assert targets(sites=((0, 1),)).loss(found, images=2).item() == pytest.approx(0)


def test_a_head_on_two_maps_is_one_entry() -> None:
    made = made_targets(NETWORKS["shared_head"](), "shared_head")
    assert made.names == ("stem.1", "head.1", "the network")
    assert made.sites == ((0,), (1, 2), (3,)) and len(made.mean) == 8 + 4 + 3


def test_every_norm_weighs_the_same_and_what_is_not_believed_nothing() -> None:
    variance = torch.tensor([1.0, 3.0, float("inf")])
    assert weights_of(variance, torch.tensor([True, True, False])).tolist() == [0.25, 0.25, 0]
    assert weights_of(variance, torch.zeros(3, dtype=torch.bool)).tolist() == [0, 0, 0]


def test_statistics_that_are_no_numbers_are_named() -> None:
    network = capture(NETWORKS["plain"](), example_of("plain"))
    found = [
        (torch.zeros(8), torch.ones(8)),
        (torch.full((8,), float("inf")), torch.ones(8)),
        (torch.zeros(3), torch.ones(3)),
    ]
    with pytest.raises(NumericalError, match=r"The input of 1\.1 is NaN or infinite on distilled images: check"):
        make_targets(network, STATISTIC, examine(network, STATISTIC)).check(found)


def test_a_network_with_broken_statistics_has_finite_targets() -> None:
    module = NETWORKS["dead_channels"]()
    norm = next(part for part in module.modules() if isinstance(part, nn.BatchNorm2d))
    norm.running_var[3], norm.running_mean[4] = float("inf"), -1e30  # type: ignore[index]
    made = made_targets(module, "dead_channels")
    assert torch.isfinite(made.deviation).all() and torch.isfinite(made.weight).all()
    assert made.weight[:8].gt(0).tolist() == [False, False, True, False, False, True, True, True]

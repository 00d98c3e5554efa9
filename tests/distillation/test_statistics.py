"""Which statistics are matched, and how far images are from them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.networks import NETWORKS, example_of
from zeroq.devices import Precision
from zeroq.distillation.images import prepare
from zeroq.distillation.statistics import InputStatistic, Targets, make_targets, natural_statistic, weights_of
from zeroq.errors import NumericalError, OptionError
from zeroq.graph import capture
from zeroq.preprocessing import Preprocessing

STATISTIC = InputStatistic((0.0,) * 3, (1.0,) * 3, (-2.0,) * 3, (2.0,) * 3)


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


def test_natural_pictures_are_carried_through_the_normalisation() -> None:
    usual = Preprocessing((8, 8), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "RGB")
    statistic = natural_statistic(usual)
    assert statistic.mean == pytest.approx((0, 0, 0), abs=1e-9) and statistic.deviation == pytest.approx((1, 1, 1))
    assert statistic.low == pytest.approx((-2.1179, -2.0357, -1.8044), abs=1e-3)
    bytes_around_zero = natural_statistic(Preprocessing((8, 8), (128 / 255,) * 3, (1 / 255,) * 3, "BGR"))
    assert bytes_around_zero.mean == pytest.approx((-24.47, -11.72, -4.325))
    assert (bytes_around_zero.low[0], bytes_around_zero.high[0]) == pytest.approx((-128, 127))


def test_one_channel_has_the_luminance_of_natural_pictures_and_five_the_same() -> None:
    assert natural_statistic(Preprocessing((8, 8), (0.0,), (1.0,), "L")).mean == (0.459,)
    assert natural_statistic(Preprocessing((8, 8), (0.0,) * 5, (1.0,) * 5)).deviation == (0.226,) * 5


def test_pixels_of_another_domain_take_the_place_of_natural_ones() -> None:
    statistic = natural_statistic(Preprocessing((8, 8), (0.5,), (0.5,), "L"), (0.25,), (0.1,))
    assert (statistic.mean, statistic.deviation) == ((-0.5,), (0.2,))


@pytest.mark.parametrize(
    ("mean", "deviation", "sentence"),
    [
        ((0.5,), None, "--input-mean has 1 values, the network's input 3 channels: give one value per channel."),
        (None, (0.5, 0.5), "--input-std has 2 values, the network's input 3 channels: give one value per channel."),
        (None, (0.5, 0.5, 0.0), "--input-std holds 0: deviations of pixels in 0..1 are positive."),
    ],
)
def test_a_domain_that_does_not_fit_is_refused(mean: tuple[float], deviation: tuple[float], sentence: str) -> None:
    with pytest.raises(OptionError, match=sentence.replace(".", r"\.")):
        natural_statistic(Preprocessing((8, 8), (0.5,) * 3, (0.5,) * 3, "RGB"), mean, deviation)


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
    made = make_targets(capture(NETWORKS["shared_head"](), example_of("shared_head")), STATISTIC)
    assert made.names == ("stem.1", "head.1", "the network")
    assert made.sites == ((0,), (1, 2), (3,)) and len(made.mean) == 8 + 4 + 3


def test_every_norm_weighs_the_same_and_broken_or_dead_channels_nothing() -> None:
    mean = torch.tensor([0.0, 1.0, float("nan"), 0.0, 0.0, 1e20])
    variance = torch.tensor([1.0, 3.0, 1.0, 1e-45, float("inf"), 1.0])
    assert weights_of(mean, variance, torch.full((6,), 1e-5)).tolist() == [0.25, 0.25, 0, 0, 0, 0]
    assert weights_of(mean, torch.full((6,), float("nan")), torch.zeros(6)).tolist() == [0] * 6


def test_statistics_that_are_no_numbers_are_named() -> None:
    network = capture(NETWORKS["plain"](), example_of("plain"))
    found = [
        (torch.zeros(8), torch.ones(8)),
        (torch.full((8,), float("inf")), torch.ones(8)),
        (torch.zeros(3), torch.ones(3)),
    ]
    with pytest.raises(NumericalError, match=r"The input of 1\.1 is NaN or infinite on distilled images: check"):
        make_targets(network, STATISTIC).check(found)


def test_a_network_with_broken_statistics_has_finite_targets() -> None:
    module = NETWORKS["dead_channels"]()
    norm = next(part for part in module.modules() if isinstance(part, nn.BatchNorm2d))
    norm.running_var[3], norm.running_mean[4] = float("inf"), -1e30  # type: ignore[index]
    made = make_targets(capture(module, example_of("dead_channels")), STATISTIC)
    assert torch.isfinite(made.deviation).all() and torch.isfinite(made.weight).all()
    assert made.weight[:8].gt(0).tolist() == [False, False, True, False, False, True, True, True]

"""Distilled images: their statistics, their bounds, and what cannot be distilled."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from tests.networks import NETWORKS, example_of
from zeroq.distillation import InputStatistic, distill, guide_of
from zeroq.distillation.images import batch_size, prepare
from zeroq.distillation.starts import natural_noise
from zeroq.errors import NumericalError, OptionError
from zeroq.graph import Network, capture
from zeroq.precision import Precision


def statistic(channels: int) -> InputStatistic:
    return InputStatistic((0.1,) * channels, (0.9,) * channels, (-2.0,) * channels, (2.0,) * channels)


def captured(name: str) -> Network:
    return capture(NETWORKS[name](), example_of(name))


def loss_of(network: Network, images: torch.Tensor) -> float:
    return prepare(network, statistic(images.shape[1]), Precision()).loss(images).item()


@pytest.mark.parametrize(
    "name", ["residual", "shared_head", "norm_after_relu", "one_channel", "five_channels", "wide_input"]
)
def test_the_statistics_come_nearer(name: str) -> None:
    network = captured(name)
    values = statistic(network.example[0].shape[1])
    start, end = (distill(network, values, count=8, iterations=count) for count in (0, 30))
    assert end.shape == (8, *network.example[0].shape[1:]) and end.dtype == torch.float32
    assert loss_of(network, end) < loss_of(network, start) / 4
    assert end.min() >= -2 and end.max() <= 2


@pytest.mark.parametrize("name", ["one_pixel_maps", "linear_only", "dead_channels"])
@pytest.mark.parametrize("count", [1, 2])
def test_one_image_one_pixel_and_dead_channels_give_numbers(name: str, count: int) -> None:
    images = distill(captured(name), statistic(3), count=count, iterations=3)
    assert torch.isfinite(images).all() and len(images) == count


def test_a_seed_gives_the_same_images_again_and_another_others() -> None:
    network = captured("plain")
    first, again, other = (distill(network, statistic(3), count=4, iterations=3, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.allclose(first, other)


def test_half_precision_and_the_other_layout_come_near_as_well() -> None:
    network = captured("residual")
    for precision in (Precision(torch.bfloat16), Precision(channels_last=False)):
        images = distill(network, statistic(3), count=8, iterations=30, precision=precision)
        assert images.dtype == torch.float32
        assert loss_of(network, images) < loss_of(network, distill(network, statistic(3), count=8, iterations=0)) / 4


def test_every_step_is_reported() -> None:
    seen: list[tuple[int, int]] = []
    distill(
        captured("plain"), statistic(3), count=2, iterations=3, on_step=lambda done, total: seen.append((done, total))
    )
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_without_batch_norm_images_stay_what_they_start_as() -> None:
    network = captured("no_norm")
    assert guide_of(network) == "nothing" and guide_of(captured("plain")) == "batchnorm"
    expected = natural_noise((4, 3, 8, 8), statistic(3), torch.Generator().manual_seed(0))
    assert torch.equal(distill(network, statistic(3), count=4, iterations=5), expected)


def test_large_sets_are_split_into_even_batches() -> None:
    network = captured("plain")
    assert batch_size(network, 10, Precision()) == 10
    values = sum(torch.Size(shape).numel() for shape in network.shapes.values())
    bound = 4 * values * 4
    assert batch_size(network, 10, Precision(), bound) == 4
    assert batch_size(network, 9, Precision(), bound) == 3
    steps: list[tuple[int, int]] = []
    images = distill(
        network, statistic(3), count=9, iterations=1, batch_bytes=bound, on_step=lambda *step: steps.append(step)
    )
    assert len(images) == 9 and steps[-1] == (3, 3)


def test_values_that_overflow_are_named() -> None:
    module = NETWORKS["plain"]()
    with torch.no_grad():
        next(part for part in module.modules() if isinstance(part, nn.Conv2d)).weight.fill_(1e30)
    network = capture(NETWORKS["plain"](), example_of("plain")).with_tensors(
        {"0.0.weight": torch.full((8, 3, 3, 3), 1e38)}
    )
    with pytest.raises(NumericalError, match=r"The input of 0\.1 is NaN or infinite on distilled images"):
        distill(network, statistic(3), count=2, iterations=1)


def test_what_cannot_be_distilled_is_refused() -> None:
    network = captured("plain")
    with pytest.raises(OptionError, match="0 images and 5 iterations: give at least 1 image and 0 iterations"):
        distill(network, statistic(3), count=0, iterations=5)
    with pytest.raises(OptionError, match="The network's input has 3 channels, the input statistic 1: give one value"):
        distill(network, statistic(1), count=2, iterations=1)
    two = dataclasses.replace(network, example=network.example * 2)
    with pytest.raises(OptionError, match="The network has 2 inputs: distill_several takes one statistic for each"):
        distill(two, statistic(3), count=2, iterations=1)

"""In which units an input comes, from the BatchNorm behind the first layer, as training leaves it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import zeroq
from zeroq.distillation import InputStatistic, starts, units_of
from zeroq.distillation.neutral import neutral_statistic
from zeroq.graph import capture
from zeroq.models import load_model
from zeroq.models.resolve import from_module
from zeroq.options import Options
from zeroq.preparation import prepare

SIDE = 16


def statistic(channels: int, mean: float, deviation: float, picture: bool = True) -> InputStatistic:
    low, high = mean - 4 * deviation, mean + 4 * deviation
    rows = ((value,) * channels for value in (mean, deviation, low, high))
    return InputStatistic(*rows, picture)  # type: ignore[arg-type]


def inputs_of(shape: tuple[int, ...], mean: float, deviation: float, count: int = 256) -> Tensor:
    """Of natural spectrum, as pictures are."""
    return starts([torch.zeros(2, *shape)], [statistic(shape[0], mean, deviation)], count, seed=5)[0]


def trained(first: nn.Module, norm: nn.Module, inputs: Tensor, *behind: nn.Module) -> nn.Module:
    """A network whose BatchNorm has seen these inputs."""
    torch.manual_seed(0)
    network = nn.Sequential(first, norm, nn.ReLU(), *behind)
    norm.momentum = None
    with torch.no_grad():
        for part in inputs.split(64):
            network.train()(part)
    return network.eval()


@pytest.mark.parametrize(("mean", "deviation"), [(0.0, 1.0), (110.0, 60.0), (-0.2, 0.05), (0.0, 400.0), (0.5, 0.4)])
@pytest.mark.parametrize("padding", [0, 1])
def test_mean_and_deviation_are_found_behind_a_convolution(mean: float, deviation: float, padding: int) -> None:
    shape = (3, SIDE, SIDE)
    network = trained(nn.Conv2d(3, 16, 3, padding=padding), nn.BatchNorm2d(16), inputs_of(shape, mean, deviation))
    units = units_of(capture(network, torch.zeros(2, *shape)), 0, statistic(3, 0.0, 1.0))
    assert units is not None
    assert units.times == pytest.approx(deviation, rel=0.25)
    assert units.statistic.mean == pytest.approx((mean,) * 3, abs=0.6 * deviation + 0.15 * padding * abs(mean))
    assert units.other == (deviation not in (0.4, 1.0))


def test_a_linear_layer_tells_as_well() -> None:
    values = torch.randn(512, 6, generator=torch.Generator().manual_seed(1)) * 50 + 20
    network = trained(nn.Linear(6, 12), nn.BatchNorm1d(12), values, nn.Linear(12, 3))
    units = units_of(capture(network, torch.zeros(2, 6)), 0, statistic(6, 0.0, 1.0, picture=False))
    assert units is not None and units.other
    assert units.times == pytest.approx(50, rel=0.1) and units.statistic.mean == pytest.approx((20.0,) * 6, abs=10)


def test_statistics_that_were_never_measured_tell_nothing() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)).eval()
    assert units_of(capture(network, torch.zeros(2, 3, 8, 8)), 0, statistic(3, 0.0, 1.0)) is None


def test_without_batch_norms_a_float_example_tells() -> None:
    network = capture(nn.Sequential(nn.Conv1d(2, 4, 3), nn.ReLU()).eval(), 300 * torch.randn(2, 2, 64) + 10)
    units = units_of(network, 0, statistic(2, 0.0, 1.0, picture=False))
    assert units is not None and units.other and units.times == pytest.approx(300, rel=0.3)
    assert units_of(network, 0, statistic(2, 0.0, 1.0)) is None  # pictures' example is their shape
    constant = capture(nn.Sequential(nn.Conv1d(2, 4, 3), nn.ReLU()).eval(), torch.zeros(2, 2, 64))
    assert units_of(constant, 0, statistic(2, 0.0, 1.0, picture=False)) is None


def raw_pixels() -> tuple[nn.Module, Tensor]:
    shape = (3, SIDE, SIDE)
    inputs = inputs_of(shape, 115.0, 60.0)
    behind = (nn.Conv2d(16, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
    return trained(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), inputs, *behind), inputs


def test_images_have_the_units_that_nobody_says(tmp_path: object) -> None:
    module, inputs = raw_pixels()
    run = zeroq.quantize(module, torch.zeros(1, 3, SIDE, SIDE), out=f"{tmp_path}/run", effort="fast", threads=1)
    assert any("By the BatchNorm 1 the input's deviation is about" in each for each in run.result["warnings"])
    with torch.inference_mode():
        expected, found = module(inputs), run.model(inputs)
    assert (found - expected).square().mean() < 0.01 * expected.var()


def test_what_is_said_of_pictures_stays_and_is_doubted() -> None:
    module, _ = raw_pixels()
    said = {"size": (SIDE, SIDE), "mean": (0.5,) * 3, "std": (0.5,) * 3, "channels": "RGB"}
    prepared = prepare(from_module(module, torch.zeros(1, 3, SIDE, SIDE), preprocess=said), Options.of())
    assert prepared.statistics[0].deviation[0] < 1
    assert any("times the deviation that its preprocessing gives: see whether" in each for each in prepared.warnings)


@pytest.mark.parametrize("name", ["mobilenet_v2", "nanodet_m", "resnet20_cifar100", "squeezenext_cifar10"])
def test_trained_networks_know_what_their_preprocessing_says(name: str, shared_data: Path) -> None:
    prepared = prepare(load_model(f"{shared_data}/networks/{name}.py:{name}"), Options.of())
    units = units_of(prepared.network, 0, prepared.statistics[0])
    assert units is not None and not units.other and 0.7 < units.times < 1.5
    rows = zip(units.statistic.mean, prepared.statistics[0].mean, units.statistic.deviation, strict=True)
    assert all(abs(own - said) < 1.5 * deviation for own, said, deviation in rows)


@pytest.mark.parametrize(("mean", "variance"), [(1e7, 1.0), (-1e30, 1.0), (0.0, 1e30), (float("inf"), 1.0)])
def test_a_broken_channel_says_nothing(mean: float, variance: float) -> None:
    shape = (3, SIDE, SIDE)
    network = trained(nn.Conv2d(3, 16, 3), norm := nn.BatchNorm2d(16), inputs_of(shape, 110.0, 60.0))
    whole = units_of(capture(network, torch.zeros(2, *shape)), 0, statistic(3, 0.0, 1.0))
    norm.running_mean[3], norm.running_var[3] = mean, variance  # type: ignore[index]
    units = units_of(capture(network, torch.zeros(2, *shape)), 0, statistic(3, 0.0, 1.0))
    assert whole is not None and units is not None
    assert units.times == pytest.approx(whole.times, rel=0.1)
    assert units.statistic.mean == pytest.approx(whole.statistic.mean, rel=0.3)


def test_an_input_whose_own_batch_norm_is_broken_in_a_channel_is_neutral_there() -> None:
    norm = nn.BatchNorm2d(3)
    norm.running_mean[0], norm.running_mean[1] = -1e30, 5.0  # type: ignore[index]
    network = capture(nn.Sequential(norm, nn.Conv2d(3, 4, 1)).eval(), torch.zeros(2, 3, 4, 4))
    assert neutral_statistic(network, network.inputs[0], 3).mean == (0.0, 5.0, 0.0)

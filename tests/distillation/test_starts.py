"""Noise of natural spectrum."""

from __future__ import annotations

import sys

import pytest
import torch

from zeroq.distillation.starts import natural_noise, pink, shape_spectrum, starts
from zeroq.distillation.statistics import InputStatistic


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_the_amplitude_falls_with_the_frequency() -> None:
    amplitude = torch.fft.fft2(pink((64, 1, 32, 32), generator())).abs().square().mean((0, 1)).sqrt()
    assert (amplitude[0, 2] / amplitude[0, 8]).item() == pytest.approx(4, rel=0.3)
    assert (amplitude[2, 0] / amplitude[8, 0]).item() == pytest.approx(4, rel=0.3)


@pytest.mark.parametrize("shape", [(64, 2, 9, 9), (64, 2, 16, 6), (64, 2, 31), (256, 2, 1, 1), (256, 4)])
@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0])
def test_shaping_white_noise_keeps_its_deviation(shape: tuple[int, ...], exponent: float) -> None:
    shaped = shape_spectrum(torch.randn(shape, generator=generator()), exponent)
    assert shaped.shape == shape and shaped.std().item() == pytest.approx(1, rel=0.15)


def test_shaping_is_its_own_adjoint() -> None:
    one, other = torch.randn(2, 1, 1, 7, 10, generator=generator())
    left, right = (shape_spectrum(one, 1.0) * other).sum(), (one * shape_spectrum(other, 1.0)).sum()
    assert left.item() == pytest.approx(right.item(), rel=1e-4)


def test_images_filtered_some_at_a_time_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    values = torch.randn(5, 3, 12, 8, generator=generator()).contiguous(memory_format=torch.channels_last)
    whole = shape_spectrum(values, 1.0)
    for piece in (1, 2 * 3 * 12 * 8):
        monkeypatch.setattr(sys.modules[shape_spectrum.__module__], "PIECE", piece)
        torch.testing.assert_close(shape_spectrum(values, 1.0), whole)


def test_images_have_the_inputs_statistic_and_stay_within_bounds() -> None:
    statistic = InputStatistic((0.5, -1.0, 0.0), (0.1, 0.2, 0.3), (0.0, -2.0, -0.2), (1.0, 0.0, 1.0))
    images = natural_noise((256, 3, 16, 16), statistic, generator())
    assert images.mean((0, 2, 3)).tolist()[:2] == pytest.approx([0.5, -1.0], abs=0.05)
    assert images.std((0, 2, 3)).tolist()[:2] == pytest.approx([0.1, 0.2], rel=0.1)
    assert images[:, 2].min() == pytest.approx(-0.2)
    grey = torch.corrcoef(images[:, :2].transpose(0, 1).flatten(1))[0, 1]
    assert grey.item() == pytest.approx(0.9, abs=0.05)


def test_several_inputs_start_one_after_another_from_one_seed() -> None:
    statistic = InputStatistic((0.1, 0.2, 0.3), (1.0, 1.0, 1.0), (-2.0,) * 3, (2.0,) * 3)
    picture, numbers = torch.zeros(2, 3, 8, 8), torch.tensor([[3, 5], [5, 7]])
    found = starts((picture, numbers), (statistic, statistic), 6, seed=4)
    expected = natural_noise((6, 3, 8, 8), statistic, torch.Generator().manual_seed(4))
    assert torch.equal(found[0], expected) and found[1].shape == (6, 2)
    assert set(found[1].flatten().tolist()) <= {3, 5, 7}

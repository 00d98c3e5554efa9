"""Images made from distilled ones."""

from __future__ import annotations

import pytest
import torch

from zeroq.distillation import InputStatistic, starts, variants
from zeroq.distillation.variants import NOISE

GREY = InputStatistic(mean=(0.0,), deviation=(1.0,), low=(-2.0,), high=(2.0,))
SIGNAL = InputStatistic(mean=(0.0,), deviation=(1.0,), low=(-2.0,), high=(2.0,), picture=False)


@pytest.mark.parametrize("statistic", [GREY, SIGNAL])
def test_a_variant_is_the_mirror_image_of_a_picture_blended_with_noise(statistic: InputStatistic) -> None:
    images = torch.randn(5, 1, 6, 6)
    (found,) = variants([images], [statistic], seed=3)
    (noise,) = starts([images], [statistic], 5, seed=3)
    turned = images.flip(-1) if statistic.picture else images
    torch.testing.assert_close(found, (1 - NOISE) * turned + NOISE * noise)


def test_inputs_belong_together_and_whole_numbers_stay() -> None:
    images, tokens = torch.randn(4, 1, 6, 6), torch.arange(12).reshape(4, 3)
    one, other = variants([images, tokens], [GREY, SIGNAL], seed=0)
    assert one.shape == images.shape and other is tokens
    again, _ = variants([images, tokens], [GREY, SIGNAL], seed=0)
    assert torch.equal(one, again)

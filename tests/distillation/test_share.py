"""Parts of one batch against the whole of it; the processes are threads."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, cast

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some
from torch import Tensor, nn

from tests import threads
from tests.networks import NETWORKS, example_of
from zeroq.distillation import natural_statistic
from zeroq.distillation.images import prepare
from zeroq.distillation.measuring import Moments, MomentsOfAll, moments
from zeroq.distillation.share import Share, even
from zeroq.distillation.starts import natural_noise
from zeroq.distillation.steps import value_and_gradient
from zeroq.graph import capture
from zeroq.precision import Precision
from zeroq.preprocessing import imagenet
from zeroq.ranks import ALONE, Ranks


def together(size: int, count: int, function: Callable[[Share], Any]) -> list[Any]:
    """A function of each process's share of so many images."""
    return threads.together(size, lambda thread: function(Share.of(count, cast(Ranks, thread))))


@given(some.integers(0, 50), some.integers(1, 9))
def test_even_parts_differ_by_one_at_most(count: int, parts: int) -> None:
    found = even(count, parts)
    assert sum(found) == count and len(found) == parts and max(found) - min(found) <= 1


def test_too_few_images_are_not_shared_out() -> None:
    assert Share.of(2, Ranks(1, 3)).ranks is ALONE and Share.of(3, Ranks(1, 3)).parts == [1, 1, 1]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("channels", "sides"), [(1, (5, 4)), (24, (5, 4)), (33, (5, 4)), (100, (3, 3)), (70, (1, 1))])
@pytest.mark.parametrize("size", [2, 3])
def test_moments_of_parts_are_those_of_the_whole_to_the_bit(
    size: int, channels: int, sides: tuple[int, int], dtype: torch.dtype, layout: torch.memory_format
) -> None:
    values = [torch.randn(7, count, *sides).to(dtype).contiguous(memory_format=layout) for count in (channels, 3)]
    expected = [moments(value) for value in values]

    def of(share: Share) -> list[Moments]:
        moments_of = MomentsOfAll(share)
        found = [moments_of(share.own(value)) for value in values]
        moments_of.find()
        assert not moments_of.asked
        return found

    for found in together(size, 7, of):
        for pair, whole in zip(found, expected, strict=True):
            assert all(torch.equal(one, other) for one, other in zip(pair, whole, strict=True))


def test_the_whole_is_put_together_and_its_gradient_taken_apart() -> None:
    batch, slope = torch.randn(5, 3), torch.randn(15, 2)

    def of(share: Share) -> tuple[Tensor, Tensor]:
        own = share.own(batch).clone().requires_grad_()
        rows = torch.stack([own[:, :2], own[:, :2] * 2, own[:, 1:]], 1).flatten(0, 1)  # three of each image
        whole = share.whole(rows)
        (gradient,) = torch.autograd.grad((whole * slope).sum(), own)
        return whole.detach(), gradient

    expected = of(Share())
    found = together(2, 5, of)
    assert all(torch.equal(whole, expected[0]) for whole, _ in found)
    assert torch.equal(torch.cat([gradient for _, gradient in found]), expected[1])


def test_what_holds_must_hold_everywhere() -> None:
    assert together(2, 4, lambda share: share.all(True)) == [True, True]
    assert together(2, 4, lambda share: share.all(share.ranks.rank == 0)) == [False, False]


@pytest.mark.parametrize(("most", "meetings"), [(1 << 27, 2), (2 * 5 * 6 * 9 * 4, 6), (1, 10)])
def test_processes_meet_for_as_many_values_as_are_kept(
    most: int, meetings: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice for all of them, though one has three images and the other two."""
    monkeypatch.setattr("zeroq.distillation.measuring.TOGETHER", most)
    values = [torch.randn(5, 6, 3, 3) for _ in range(5)]

    def of(share: Share) -> int:
        thread = cast(threads.Thread, share.ranks)
        moments_of = MomentsOfAll(share)
        found = [moments_of(share.own(value)) for value in values]
        moments_of.find()
        assert all(torch.equal(mean, moments(value)[0]) for (mean, _), value in zip(found, values, strict=True))
        return len(thread.met)

    assert together(2, 5, of) == [meetings] * 2


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(
    ("name", "size", "dtype"),
    [
        *itertools.product(["residual"], [2, 3], [torch.float32, torch.bfloat16]),
        *itertools.product(["shared_norm"], [2], [torch.float32, torch.bfloat16]),
        ("linear_only", 2, torch.bfloat16),
    ],
)
def test_loss_and_gradient_of_parts_are_those_of_the_whole_to_the_bit(
    name: str, size: int, dtype: torch.dtype, channels_last: bool
) -> None:
    (loss, gradient), found = whole_and_parts(name, size, Precision(dtype, channels_last))
    assert [each[0] for each in found] == [loss] * size
    assert torch.equal(torch.cat([each[1] for each in found]), gradient)


@pytest.mark.parametrize("channels_last", [False, True])
def test_linear_layers_of_parts_give_the_whole_within_rounding(channels_last: bool) -> None:
    """On some CPUs (AVX2 alone) the order of a matrix product's sums hangs on its number of rows."""
    (loss, gradient), found = whole_and_parts("linear_only", 2, Precision(channels_last=channels_last))
    assert [each[0] for each in found] == pytest.approx([loss] * 2, rel=1e-5)
    torch.testing.assert_close(torch.cat([each[1] for each in found]), gradient, rtol=1e-3, atol=1e-6)


def whole_and_parts(
    name: str, size: int, precision: Precision
) -> tuple[tuple[float, Tensor], list[tuple[float, Tensor]]]:
    """Loss and gradient of seven images, by one process and by each of several."""
    network = capture(cast(nn.Module, NETWORKS[name]()).eval(), example_of(name))
    statistic = natural_statistic(imagenet(tuple(network.example[0].shape[2:])))  # type: ignore[arg-type]
    images = natural_noise((7, *network.example[0].shape[1:]), statistic, torch.Generator().manual_seed(0))

    def of(share: Share) -> tuple[float, Tensor]:
        return value_and_gradient(prepare(network, statistic, precision, share=share), share.own(images))

    return of(Share()), together(size, 7, of)

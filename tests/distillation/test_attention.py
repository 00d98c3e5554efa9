"""What images are optimised for where there is attention: the parts of the loss by their definitions, and the whole."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from tests.networks import NETWORKS, example_of
from zeroq.distillation import InputStatistic, distill, find_attention, guide_of
from zeroq.distillation.attention import (
    POINTS,
    WIDTH,
    Attending,
    distance,
    input_distance,
    patches_of,
    prepare_attention,
    received,
    total_variation,
    unevenness,
)
from zeroq.distillation.starts import natural_noise
from zeroq.errors import NumericalError
from zeroq.graph import Network, capture
from zeroq.precision import Precision

STATISTIC = InputStatistic((0.1,) * 3, (0.9,) * 3, (-2.0,) * 3, (2.0,) * 3)


def captured(name: str = "attention") -> Network:
    return capture(NETWORKS[name](), example_of(name))


def objective(network: Network, images: Tensor) -> Attending:
    return prepare_attention(network, STATISTIC, Precision(), images, torch.Generator().manual_seed(0))


def noise(count: int) -> Tensor:
    return natural_noise((count, 3, 8, 8), STATISTIC, torch.Generator().manual_seed(0))


def test_attention_is_a_product_with_a_softmax_over_its_last_axis() -> None:
    class Two(nn.Module):
        """A gate by softmax over channels, which is none; attention written by hand, one product of unlike things."""

        def forward(self, tokens: Tensor) -> Tensor:
            gated = tokens @ tokens.transpose(1, 2).softmax(1)
            return (gated @ tokens.mT).softmax(-1).expand(-1, -1, -1) @ tokens

    network = capture(Two(), torch.randn(2, 5, 5))
    (site,) = find_attention(network)
    assert network.node(site.mixed).target == torch.ops.aten.matmul.default
    assert network.shapes[site.shares] == (5, 5)
    assert len(find_attention(captured())) == 1
    assert find_attention(captured("plain")) == find_attention(captured("squeeze_excite")) == ()


def test_unevenness_is_what_the_kernel_density_lacks_of_an_even_one() -> None:
    patches = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64).float()
    found = []
    for image in patches:
        density = [0.0] * POINTS
        for first in range(5):
            for second in range(first + 1, 5):
                one, other = image[first], image[second]
                cosine = float(one @ other / one.norm() / other.norm())
                for index in range(POINTS):
                    point = -1 + 2 * index / (POINTS - 1)
                    density[index] += math.exp(-((cosine - point) ** 2) / (2 * WIDTH**2))
        shares = [each / sum(density) for each in density]
        found.append(math.log(POINTS) + sum(each * math.log(each) for each in shares if each > 0))
    assert unevenness(patches).item() == pytest.approx(sum(found) / 2, rel=1e-4)


def test_patches_that_are_all_alike_are_the_least_diverse() -> None:
    alike, unlike = torch.ones(1, 16, 4), torch.randn(1, 16, 4, generator=torch.Generator().manual_seed(0))
    assert unevenness(alike) > 2 * unevenness(unlike) > 0


def test_heads_stand_side_by_side_and_large_maps_are_thinned() -> None:
    mixed = torch.arange(2.0 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    found = patches_of(mixed)
    assert found.shape == (2, 4, 15)
    assert torch.equal(found[1, 2], mixed[1, :, 2].flatten())
    assert patches_of(torch.zeros(2, 197, 8)).shape == (2, 50, 8)
    assert patches_of(torch.zeros(32 * 64, 3, 49, 8)).shape == (256, 49, 24)  # windows of 32 images


def test_attention_that_is_as_wanted_has_no_distance() -> None:
    wanted = torch.tensor([[0.1, 0.2, 0.3, 0.4]])
    assert distance(wanted, wanted).item() == pytest.approx(0)
    assert distance(wanted.flip(1), wanted).item() == pytest.approx(
        sum(w * math.log(w / f) for w, f in zip((0.1, 0.2, 0.3, 0.4), (0.4, 0.3, 0.2, 0.1), strict=True)), rel=1e-4
    )
    shares = torch.tensor([[[0.5, 0.1, 0.4, 0, 0], [0.1, 0.3, 0.2, 0.2, 0.2]]])  # a class token and four patches
    assert torch.allclose(received(shares), torch.tensor([[0.4, 0.6, 0.2, 0.2]]) / 1.4, atol=1e-5)


def test_variation_and_input_distance_by_their_definitions() -> None:
    images = torch.zeros(1, 3, 2, 3)
    images[0, 0] = torch.tensor([[0.0, 0.9, 0.9], [0.9, 0.9, 0.0]])
    assert total_variation(images, STATISTIC).item() == pytest.approx((2 / 4 + 2 / 3) / 3)
    exact = 0.1 + 0.9 * torch.tensor([1.0, -1.0]).reshape(2, 1, 1, 1).expand(2, 3, 4, 4)
    assert input_distance(exact, STATISTIC).item() == pytest.approx(0, abs=1e-9)
    assert input_distance(exact + 0.9, STATISTIC).item() == pytest.approx(1, rel=1e-5)


def test_the_gradient_is_that_of_the_loss() -> None:
    network, images = captured(), noise(3)
    loss = objective(network, images).loss
    images.requires_grad_()
    (gradient,) = torch.autograd.grad(loss(images), images)
    direction = gradient / gradient.norm()
    with torch.no_grad():
        slope = (loss(images + 1e-2 * direction) - loss(images - 1e-2 * direction)) / 2e-2
    assert bool(gradient.isfinite().all())
    assert slope.item() == pytest.approx(gradient.norm().item(), rel=0.03)


def test_every_second_image_is_optimised_and_the_others_stay_noise() -> None:
    network = captured()
    assert guide_of(network) == "attention"
    images, start = (distill(network, STATISTIC, count=6, iterations=steps) for steps in (20, 0))
    assert torch.equal(images[1::2], start[1::2]) and not torch.allclose(images[::2], start[::2])
    assert torch.equal(start, noise(6))
    loss = objective(network, start[::2]).loss
    assert loss(images[::2]) < 0.9 * loss(start[::2])
    assert images.min() >= -2 and images.max() <= 2
    again = distill(network, STATISTIC, count=6, iterations=20)
    assert torch.equal(images, again)


@pytest.mark.parametrize("count", [1, 2])
def test_few_images_and_half_precision_give_numbers(count: int) -> None:
    images = distill(captured(), STATISTIC, count=count, iterations=3, precision=Precision(torch.bfloat16))
    assert images.isfinite().all() and images.dtype == torch.float32 and len(images) == count


def test_batch_norms_come_before_attention() -> None:
    module = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), NETWORKS["attention"]()).eval()
    network = capture(module, example_of("attention"))
    assert find_attention(network) and guide_of(network) == "batchnorm"
    images, start = (distill(network, STATISTIC, count=4, iterations=steps) for steps in (5, 0))
    assert not any(torch.allclose(one, other) for one, other in zip(images, start, strict=True))


def test_attention_that_gives_no_numbers_is_named() -> None:
    network = captured()
    broken = network.with_tensors({"qkv.weight": torch.full_like(network.tensors["qkv.weight"], 1e30)})
    with pytest.raises(NumericalError, match="The attention 'matmul.*' is NaN or infinite on distilled images"):
        objective(broken, noise(2)).refuse(noise(2))


def test_a_softmax_over_classes_that_weighs_numbers_is_no_attention() -> None:
    class Expected(nn.Module):
        """An expectation over bins, and a mixture of experts by a gate."""

        def __init__(self) -> None:
            super().__init__()
            self.gate, self.experts, self.bins = nn.Linear(6, 5), nn.Linear(6, 20), nn.Parameter(torch.arange(5.0))

        def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            shares = self.gate(images).softmax(1)
            experts = self.experts(images).reshape(-1, 5, 4)
            return shares @ self.bins, torch.bmm(shares[:, None], experts), shares @ self.bins[:, None]

    assert find_attention(capture(Expected(), torch.randn(2, 6))) == ()

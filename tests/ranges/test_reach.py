"""What a layer could reach, by its definition: patch after patch and filter after filter."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn

from tests.networks import NETWORKS, example_of
from zeroq.graph import capture, fold
from zeroq.ranges import Histogram, knowledge_of, observe
from zeroq.ranges.histogram import stretched
from zeroq.ranges.reach import LEAST_SHARE, reach
from zeroq.ranges.search import range_of
from zeroq.simulate import place


def by_definition(layer: nn.Conv2d, images: Tensor) -> float:
    """The largest product of norms over images, positions and filters."""
    padded = nn.functional.pad(images, [layer.padding[1]] * 2 + [layer.padding[0]] * 2)  # type: ignore[arg-type]
    height, width = layer.kernel_size
    largest = 0.0
    for row, column in itertools.product(range(0, padded.shape[2] - height + 1, layer.stride[0]), repeat=2):
        patch = padded[:, :, row : row + height, column : column + width]
        for index, kernel in enumerate(layer.weight):
            first = index // (layer.out_channels // layer.groups) * kernel.shape[0]
            seen = patch[:, first : first + kernel.shape[0]]
            largest = max(largest, float(kernel.norm() * seen.flatten(1).norm(dim=1).max()))
    return largest


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 6, 3, padding=1), nn.Conv2d(4, 6, 3, stride=2), nn.Conv2d(4, 8, 1, groups=2),
        nn.Conv2d(4, 4, 3, padding=1, groups=4),
    ],
    ids=["padded", "strided", "grouped", "depthwise"],
)  # fmt: skip
def test_a_convolution_reaches_what_its_patches_and_filters_allow(layer: nn.Conv2d) -> None:
    images = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    network = capture(layer, images)
    site, weight = network.node(network.layers[0].sites[0]), network.tensors[network.layers[0].weight]
    found = reach(site, weight, images)
    with torch.no_grad():
        assert found == pytest.approx(by_definition(layer, images), rel=1e-5)
        assert found >= (layer(images) - layer.bias[:, None, None]).abs().max()  # type: ignore[index]


def test_a_linear_layer_reaches_its_norm_times_the_longest_input() -> None:
    layer, tokens = nn.Linear(5, 7), torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0))
    network = capture(layer, tokens)
    found = reach(network.node(network.layers[0].sites[0]), layer.weight, tokens)
    assert found == pytest.approx(float(layer.weight.detach().norm(dim=1).max() * tokens.norm(dim=2).max()), rel=1e-5)


@pytest.mark.parametrize(("bits", "unsigned"), [(8, True), (4, True), (8, False), (3, False)])
def test_a_stretched_histogram_has_a_stretched_range(bits: int, unsigned: bool) -> None:
    values = torch.randn(4, 1000, generator=torch.Generator().manual_seed(0))
    plain, wide = Histogram(), Histogram()
    plain.update(values.relu() if unsigned else values)
    wide.update(1.75 * (values.relu() if unsigned else values))
    one = range_of(stretched(plain, 1.75), bits, "neither", unsigned=unsigned)
    other = range_of(wide, bits, "neither", unsigned=unsigned)
    assert (one.low, one.high) == pytest.approx((other.low, other.high), rel=0.03)


def test_outputs_that_no_statistic_knows_reach_at_least_their_share() -> None:
    """Filters of equal magnitude and mixed signs: they answer noise far below what their norms allow."""
    layer = nn.Linear(4096, 4, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(4, 4096, generator=torch.Generator().manual_seed(0)).sign() / 64)
    module = nn.Sequential(layer, nn.ReLU(), nn.Linear(4, 2)).eval()
    images = torch.rand(8, 4096, generator=torch.Generator().manual_seed(1))
    images = images - (images @ layer.weight.T) @ layer.weight / 1.2  # nearly orthogonal to the filters
    network = fold(capture(module, images))
    placement, bits = place(network), dict.fromkeys(("0", "2"), 8)
    plain = observe(network, placement, images, bits, source="neither")
    floored = observe(network, placement, images, bits, source="neither", knowledge=knowledge_of(network))
    least = LEAST_SHARE * float(layer.weight.detach().norm(dim=1).max() * images.norm(dim=1).max())
    assert plain["relu"].high < 0.9 * least
    assert floored["relu"].high == pytest.approx(least, rel=0.1)
    assert floored["relu"].source == "neither"


@pytest.mark.parametrize("name", ["no_norm", "attention"])
def test_a_range_is_never_narrower_for_what_norms_say(name: str) -> None:
    network = fold(capture(NETWORKS[name](), example_of(name)))
    placement, bits = place(network), {layer.name: 8 for layer in network.layers}
    plain = observe(network, placement, example_of(name, 8), bits)
    floored = observe(network, placement, example_of(name, 8), bits, knowledge=knowledge_of(network))
    for key, before in plain.by_name.items():
        after = floored[key]
        assert after.high - after.low >= 0.999 * (before.high - before.low)

"""Transposed convolutions in phases give what PyTorch's give, with whatever stands behind them."""

from __future__ import annotations

import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.quantized import quantize
from zeroq.deploy import verify
from zeroq.graph import capture, fold

KINDS = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}


@given(
    st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.integers(0, 3), st.integers(0, 2), st.integers(1, 2),
    st.sampled_from([1, 2]), st.booleans(),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_phases_are_the_transposed_convolution(
    axes: int, kernel: int, stride: int, padding: int, output_padding: int, dilation: int, groups: int, bias: bool
) -> None:
    output_padding = min(output_padding, max(stride, dilation) - 1)
    module = KINDS[axes](
        4, 6, kernel, stride, padding, output_padding, groups=groups, dilation=dilation, bias=bias
    ).eval()  # fmt: skip
    images = torch.randn(3, 4, *(5, 4, 3)[:axes])
    least = min(images.shape[2:])
    assume((least - 1) * stride - 2 * padding + dilation * (kernel - 1) + output_padding >= 0)  # something is left
    network = fold(capture(module, images))
    assert not any("transpose" in str(node.target) for node in network.graph.nodes)
    torch.testing.assert_close(network.run(images), module(images), rtol=1e-4, atol=1e-5)


def test_strides_and_paddings_of_their_own_for_each_axis() -> None:
    module = nn.ConvTranspose2d(3, 2, (3, 2), (1, 3), (2, 0), (0, 1)).eval()
    images = torch.randn(2, 3, 6, 4)
    torch.testing.assert_close(fold(capture(module, images)).run(images), module(images), rtol=1e-4, atol=1e-5)


def test_one_that_reads_another() -> None:
    module = nn.Sequential(
        nn.ConvTranspose2d(3, 4, 2, 2), nn.ConvTranspose2d(4, 4, 3, 1), nn.ConvTranspose2d(4, 2, 2, 2)
    )
    images = torch.randn(2, 3, 4, 5)
    torch.testing.assert_close(fold(capture(module.eval(), images)).run(images), module(images), rtol=1e-4, atol=1e-5)


class OneWeight(nn.Module):
    """A weight that transposed convolutions of several strides and dilations read."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 2, 2, 2))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        settings = [{"stride": (2, 1)}, {"stride": (1, 2)}, {"stride": 3}, {"stride": 3, "dilation": 2}]
        return tuple(nn.functional.conv_transpose2d(images, self.weight, **each) for each in settings)  # type: ignore[arg-type]


def test_a_weight_has_a_new_form_for_each_stride_and_dilation() -> None:
    module, images = OneWeight(), torch.randn(2, 3, 4, 5)
    with torch.inference_mode():
        for found, expected in zip(fold(capture(module, images)).run(images), module(images), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


class Decoder(nn.Module):
    """Grows maps by transposed convolutions, one of them used twice, with BatchNorm and ReLU behind them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.again = nn.Conv2d(3, 8, 3, 2, 1), nn.ConvTranspose2d(8, 8, 4, 2, 1)
        self.grow = nn.Sequential(nn.ConvTranspose2d(8, 4, 2, 2, groups=2, bias=False), nn.BatchNorm2d(4), nn.ReLU())
        self.odd = nn.Sequential(nn.ConvTranspose2d(4, 4, 3, 2, 1, 1), nn.ReLU(), nn.BatchNorm2d(4))
        self.last = nn.Conv2d(4, 2, 3, padding=1)
        for norm in (self.grow[1], self.odd[2]):
            nn.init.uniform_(norm.weight, 0.5, 2), nn.init.uniform_(norm.bias, -1, 1)
            nn.init.uniform_(norm.running_mean, -1, 1), nn.init.uniform_(norm.running_var, 0.5, 2)

    def forward(self, images: Tensor) -> Tensor:
        small = self.stem(images)
        return self.last(self.odd(self.grow(self.again(small) + self.again(small.flip(3)))))


def test_what_stands_behind_is_folded_and_all_runs_in_integers() -> None:
    torch.manual_seed(0)
    module = Decoder().eval()
    images = torch.randn(8, 3, 8, 8)
    captured = capture(module, images)
    assert [layer.operator for layer in captured.layers] == ["conv2d", *["conv_transpose2d"] * 3, "conv2d"]
    assert [layer.multiply_accumulates for layer in captured.layers][1:3] == [2 * 16 * 8 * 8 * 16, 64 * 8 * 2 * 4]
    network = fold(captured)
    assert not network.norms and [layer.name for layer in network.layers] == [
        "stem", "again", "grow.0", "odd.0", "last"
    ]  # fmt: skip
    assert network.layer("again").shape == (32, 8, 2, 2) and len(network.layer("again").sites) == 2
    with torch.inference_mode():
        torch.testing.assert_close(network.run(images), module(images), rtol=1e-4, atol=1e-5)
    stages = quantize(module, images)
    found = verify(stages.export(task="segmentation"), stages.quantized, images, threads=1)
    assert found.integer_nodes["QLinearConv"] == 6 and not {"Conv", "ConvTranspose"} & set(found.float_nodes)

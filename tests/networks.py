"""Tiny networks with one difficulty each, shared by all tests. All take 3 channels of 8 x 8 unless they say otherwise.

network = NETWORKS["residual"]()               # seeded weights, statistics as if it had been trained, eval mode
example = example_of("residual")               # [2, C, H, W]
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

SHAPES = {"one_channel": (1, 8, 8), "one_pixel_maps": (3, 2, 2), "wide_input": (3, 8, 12), "five_channels": (5, 8, 8)}


class Residual(nn.Module):
    """A sum of two branches, each a convolution with BatchNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = block(3, 8)
        self.body = nn.Sequential(block(8, 8), nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8))
        self.head = nn.Linear(8, 4)

    def forward(self, images: Tensor) -> Tensor:
        stem = self.stem(images)
        return self.head(torch.relu(stem + self.body(stem)).mean((2, 3)))


class ConcatenateAndShuffle(nn.Module):
    """Two branches concatenated, channels shuffled by view and transpose, then a grouped convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = block(3, 4), block(3, 4)
        self.last = block(8, 8, groups=2)
        self.head = nn.Linear(8, 4)

    def forward(self, images: Tensor) -> Tensor:
        joined = torch.cat([self.first(images), self.second(images)], 1)
        batch, channels, height, width = joined.shape
        shuffled = (
            joined.view(batch, 2, channels // 2, height, width).transpose(1, 2).reshape(batch, channels, height, width)
        )
        return self.head(self.last(shuffled).mean((2, 3)))


class SharedHead(nn.Module):
    """One convolution with its BatchNorm runs on maps of two sizes: one layer, two sites; a list as output."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = block(3, 8), block(8, 4)
        self.pool = nn.MaxPool2d(2)

    def forward(self, images: Tensor) -> list[Tensor]:
        fine = self.stem(images)
        return [self.head(fine), self.head(self.pool(fine))]


class PreActivation(nn.Module):
    """BatchNorm and ReLU before each convolution: a BatchNorm that follows a sum."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.body = nn.Sequential(nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1, bias=False))
        self.last = nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 4)

    def forward(self, images: Tensor) -> Tensor:
        stem = self.stem(images)
        return self.head(torch.relu(self.last(stem + self.body(stem))).mean((2, 3)))


class Forked(nn.Module):
    """Makes values that several operators read, in the way that `forward` says."""

    def __init__(self, joined: int = 8) -> None:
        super().__init__()
        self.stem, self.left, self.right = block(3, 8), nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 1)
        self.last, self.head = block(joined, 8), nn.Linear(8, 4)

    def end(self, joined: Tensor) -> Tensor:
        """Scores of the joined branches."""
        return self.head(self.last(joined).mean((2, 3)))


class InPlaceOnShared(Forked):
    """Operators in place on values that others read, before and after."""

    def forward(self, images: Tensor) -> Tensor:
        stem = self.stem(images)
        left = self.left(stem)
        right = self.right(left)  # reads it before the change
        functional.relu_(left)
        left += stem
        right.add_(left).mul_(left)  # reads it after both changes
        return self.end(right)


class RectifiedOnce(Forked):
    """A layer's output that a ReLU reads, and others without it."""

    def forward(self, images: Tensor) -> Tensor:
        left = self.left(self.stem(images))
        return self.end(functional.relu(left) + self.right(left) + left)


class SharedConcatenation(Forked):
    """A value concatenated twice and read by a layer and by a sum as well."""

    def __init__(self) -> None:
        super().__init__(24)

    def forward(self, images: Tensor) -> Tensor:
        stem = self.stem(images)
        left = self.left(stem)
        return self.end(torch.cat([stem, self.right(stem) + left, stem], 1))


class RectifiedConcatenation(Forked):
    """ReLU behind a concatenation, as in DenseNet; one part also goes elsewhere."""

    def __init__(self) -> None:
        super().__init__(16)

    def forward(self, images: Tensor) -> Tensor:
        stem = self.stem(images)
        left, right = self.left(stem), self.right(stem)
        return self.end(functional.relu(torch.cat([left, right], 1))) + self.head(left.mean((2, 3)))


class UnlikeParts(Forked):
    """Concatenations of rectified parts and others: one range cannot both hold the others and cut the rectified off."""

    def __init__(self) -> None:
        super().__init__(40)

    def forward(self, images: Tensor) -> Tensor:
        stem = self.stem(images)
        left, right = self.left(stem), self.right(stem)
        signed = torch.cat([functional.relu(right), left], 1)
        clipped = torch.cat([functional.relu(3 * left), functional.hardtanh(right, 0, 0.5)], 1)
        return self.end(torch.cat([signed, clipped, functional.max_pool2d(functional.relu6(left), 3, 1, 1)], 1))


class RectifiedLate(Forked):
    """ReLU behind max-pooling and behind a slice; ReLU6 of a ReLU, ReLU of a ReLU6 and of a clamp to [-1, 1]."""

    def forward(self, images: Tensor) -> Tensor:
        stem = functional.relu(functional.max_pool2d(self.left(self.stem(images)), 2))
        right = functional.relu6(functional.relu(self.right(stem)))
        clamped = functional.relu(functional.relu6(self.left(right))) + functional.relu(self.right(right).clamp(-1, 1))
        return self.end(functional.relu(clamped[:, :, 1:]))


class EqualSums(Forked):
    """Two sums of the same values, one of them behind a ReLU, and one sum of a value with itself."""

    def forward(self, images: Tensor) -> Tensor:
        stem = self.stem(images)
        left, right = self.left(stem), self.right(stem)
        first, second = left + right, functional.relu(left + right)
        return self.end(first + first) + self.head((second + stem).mean((2, 3)))


class IdenticalLayers(Forked):
    """Two layers of equal weights that read one value, and two that read another."""

    def forward(self, images: Tensor) -> Tensor:
        stem = self.stem(images)
        return self.end(self.left(stem) + self.right(stem) * self.last(stem))


class ReusedModule(Forked):
    """One convolution that runs twice, on its own rectified output the second time: one layer, two sites."""

    def forward(self, images: Tensor) -> Tensor:
        return self.end(functional.relu(self.left(functional.relu(self.left(self.stem(images))))))


class SharedNorm(Forked):
    """One BatchNorm behind two convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(8)

    def forward(self, images: Tensor) -> Tensor:
        stem = self.stem(images)
        return self.end(functional.relu(self.norm(self.left(stem))) + self.norm(self.right(stem)))


class Moved(Forked):
    """Chains of what only moves values: max-pooling, slices, zero padding, reshape, nearest upsampling."""

    def forward(self, images: Tensor) -> Tensor:
        stem = self.stem(images)
        small = functional.max_pool2d(stem, 3, 2, 1)[:, :, 1:, :3]
        padded = functional.pad(small.flatten(2).unflatten(2, (3, 3)), (0, 1, 1, 0))
        grown = functional.interpolate(padded, scale_factor=2.0, mode="nearest")
        return self.end(self.left(grown) + stem) + self.head(padded.flatten(2)[..., 0])


class Split(Forked):
    """Channels split in halves, of which one is passed on as it is, then shuffled: ShuffleNet V2."""

    def forward(self, images: Tensor) -> Tensor:
        kept, used = self.stem(images).chunk(2, 1)
        mixed = self.left(torch.cat([kept, used * 1.0], 1))
        return self.end(functional.channel_shuffle(torch.cat([kept, mixed[:, 4:]], 1), 2))


class SqueezeExcite(Forked):
    """Channels weighted by a gate of their own means, with hard-swish, as in MobileNetV3."""

    def __init__(self) -> None:
        super().__init__()
        self.squeeze, self.excite = nn.Conv2d(8, 2, 1), nn.Conv2d(2, 8, 1)

    def forward(self, images: Tensor) -> Tensor:
        stem = functional.hardswish(self.left(self.stem(images)))
        gate = functional.relu(self.squeeze(functional.adaptive_avg_pool2d(stem, 1)))
        return self.end(stem * torch.sigmoid(self.excite(gate)))


class Gated(Forked):
    """LeakyReLU, SiLU, PReLU, a difference and a scalar between layers: functions that stay in floating point."""

    def __init__(self) -> None:
        super().__init__()
        self.slopes = nn.PReLU(8, 0.2)

    def forward(self, images: Tensor) -> Tensor:
        stem = self.stem(images)
        left = functional.leaky_relu(self.left(stem), 0.1)
        return self.end(self.slopes(self.last(functional.silu(left) * 2) - functional.silu(self.right(stem))) + left)


class Recurrent(nn.Module):
    """An LSTM reads the columns of a map: its first state is made of zeros, one for each image."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.memory, self.head = block(3, 8), nn.LSTM(8, 6, batch_first=True), nn.Linear(6, 4)

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = self.head(self.memory(self.stem(images).mean(2).transpose(1, 2))[0][:, -1])
        return found


class Largest(nn.Module):
    """The best scores and their classes: an operator of several outputs, integers among them."""

    def __init__(self) -> None:
        super().__init__()
        self.network = classifier(block(3, 8), block(8, 8))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        scores, classes = self.network(images).topk(2)
        return scores, classes


class Tokens(nn.Module):
    """Pictures as sequences: linear layers on [N, T, C], a position table, a 1-d convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.position = nn.Linear(3, 8), nn.Parameter(torch.randn(64, 8))
        self.mix = nn.Sequential(nn.Conv1d(8, 8, 3, padding=1), nn.BatchNorm1d(8), nn.ReLU())
        self.head = nn.Linear(8, 4, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.embed(images.flatten(2).transpose(1, 2)) + self.position
        return self.head(self.mix(tokens.transpose(1, 2)).mean(2))


class Attention(nn.Module):
    """A transformer's block: LayerNorm, attention of two heads, GELU, residual sums; no BatchNorm anywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.position = nn.Conv2d(3, 8, 2, 2), nn.Parameter(torch.randn(16, 8))
        self.norm1, self.norm2 = nn.LayerNorm(8), nn.LayerNorm(8)
        self.qkv, self.mix = nn.Linear(8, 24), nn.Linear(8, 8)
        self.mlp = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8))
        self.head = nn.Linear(8, 4)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.patches(images).flatten(2).transpose(1, 2) + self.position
        query, key, value = self.qkv(self.norm1(tokens)).unflatten(2, (3, 2, 4)).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = functional.scaled_dot_product_attention(query, key, value)
        tokens = tokens + self.mix(mixed.transpose(1, 2).flatten(2))
        return self.head((tokens + self.mlp(self.norm2(tokens))).mean(1))


class Standardised(nn.Conv2d):
    """A convolution whose filters are standardised in every pass (arXiv:2101.08692), with a gain for each."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__(inputs, outputs, kernel, padding=kernel // 2)
        self.gain = nn.Parameter(torch.ones(outputs, 1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        variance, mean = torch.var_mean(self.weight, (1, 2, 3), keepdim=True)
        weight = self.gain * (self.weight - mean) * torch.rsqrt(variance * self.weight[0].numel() + 1e-4)
        return functional.conv2d(images, weight, self.bias, padding=self.padding)


class NormFree(nn.Module):
    """A residual network without any normalisation: standardised filters, scaled branches, a scalar at their end."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.one, self.other = Standardised(3, 8, 3), Standardised(8, 8, 3), Standardised(8, 8, 1)
        self.last, self.strength = nn.Linear(8, 4), nn.Parameter(torch.tensor(0.5))

    def forward(self, images: Tensor) -> Tensor:
        stem = self.stem(images)
        branch = self.other(1.7 * torch.relu(self.one(1.7 * torch.relu(stem / 0.9))))
        return self.last(torch.relu(stem + 0.2 * self.strength * branch).mean((2, 3)))


class OneConvolution(nn.Module):
    """A single layer: it is the first and the last at once."""

    def __init__(self) -> None:
        super().__init__()
        self.only = nn.Conv2d(3, 4, 8)

    def forward(self, images: Tensor) -> Tensor:
        return self.only(images).flatten(1)


def block(inputs: int, outputs: int, kernel: int = 3, groups: int = 1, stride: int = 1) -> nn.Sequential:
    """Convolution, BatchNorm, ReLU."""
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


def classifier(*layers: nn.Module, channels: int = 8) -> nn.Sequential:
    """Layers, then the spatial mean and a linear layer to 4 classes."""
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 4))


def relu6() -> nn.Module:
    """Inverted residual's parts: expansion, depthwise, linear bottleneck, with ReLU6."""
    clipped = [nn.Sequential(*part[:2], nn.ReLU6(inplace=True)) for part in (block(3, 12, 1), block(12, 12, groups=12))]
    return classifier(*clipped, nn.Conv2d(12, 8, 1, bias=False), nn.BatchNorm2d(8))


def norm_after_relu() -> nn.Module:
    """Convolution, ReLU, BatchNorm: folded, the ReLU becomes a limit for each channel."""
    return classifier(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.BatchNorm2d(8)
    )


def asymmetric_padding() -> nn.Module:
    """Zeros on two sides only before strided convolutions, as TensorFlow's "same" has them; one padded twice."""
    return classifier(
        nn.ZeroPad2d((0, 1, 0, 1)), block(3, 8, stride=2), nn.ZeroPad2d((0, 1, 2, 0)),
        nn.Conv2d(8, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU6(),
    )  # fmt: skip


def same_padding() -> nn.Module:
    """padding="same" with odd, even and dilated kernels."""
    kernels = ((3, 1), (2, 1), (4, 1), ((5, 2), 1), (2, 3))
    made = [nn.Conv2d(8, 8, kernel, padding="same", dilation=dilation) for kernel, dilation in kernels]
    return classifier(block(3, 8), *(part for layer in made for part in (layer, nn.ReLU())))


def pooling() -> nn.Module:
    """Average pooling with padding counted and not, windows beyond the edge, and adaptive pooling to several sizes."""
    return classifier(
        block(3, 8), nn.AvgPool2d(3, 2, 1), nn.Conv2d(8, 8, 1), nn.AvgPool2d(3, 1, 1, count_include_pad=False),
        nn.Conv2d(8, 8, 1), nn.AvgPool2d(3, 2, ceil_mode=True), block(8, 8), nn.AdaptiveAvgPool2d(2), block(8, 8, 1),
        nn.AdaptiveAvgPool2d((1, 1)), block(8, 8, 1),
    )  # fmt: skip


def weight_norm() -> nn.Module:
    """Weights computed from a direction and a length, in both of PyTorch's ways."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        old = nn.utils.weight_norm(nn.Conv2d(3, 8, 3))
    return classifier(old, nn.ReLU(), nn.utils.parametrizations.weight_norm(nn.Conv2d(8, 8, 3)), nn.ReLU())


def tiny_weights() -> nn.Module:
    """Channels whose weights are 1e-9 beside a bias of 5, and a linear layer that has one as well."""
    network = classifier(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU())
    with torch.no_grad():
        for layer in (network[0], network[2], network[-1]):
            layer.weight[1] *= 1e-9
            layer.bias[1] = 5.0
    return network


def identical_layers() -> nn.Module:
    """Two 1x1 convolutions with the same numbers."""
    network = IdenticalLayers()
    network.left = nn.Conv2d(8, 8, 1)
    network.left.load_state_dict(network.right.state_dict())
    return network


def dead_channels() -> nn.Module:
    """Two channels of the first BatchNorm never saw anything: zero weights, variance near 0 and 0."""
    network = classifier(block(3, 8), block(8, 8))
    convolution, norm = network[0][0], network[0][1]
    with torch.no_grad():
        convolution.weight[:2] = 0
        norm.running_mean[:2] = 0
        norm.running_var[:2] = torch.tensor([1e-45, 0.0])
    return network


NETWORKS: dict[str, Callable[[], nn.Module]] = {}
MAKERS: dict[str, Callable[[], nn.Module]] = {
    "plain": lambda: classifier(block(3, 8), block(8, 8, stride=2)),
    "residual": Residual,
    "concatenate_and_shuffle": ConcatenateAndShuffle,
    "depthwise": lambda: classifier(block(3, 8), block(8, 8, groups=8), block(8, 8, 1)),
    "linear_depthwise": lambda: classifier(
        block(3, 8), nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False), nn.BatchNorm2d(8), block(8, 8, 1)
    ),
    "grouped": lambda: classifier(block(3, 8), block(8, 8, groups=4)),
    "relu6": relu6,
    "shared_head": SharedHead,
    "norm_after_relu": norm_after_relu,
    "pre_activation": PreActivation,
    "no_norm": lambda: classifier(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU()),
    "one_convolution": OneConvolution,
    "attention": Attention,
    "norm_free": NormFree,
    "long_kernels": lambda: classifier(
        block(3, 8), nn.Conv2d(8, 8, (1, 3), padding="same"), nn.ReLU(), nn.Conv2d(8, 8, (3, 1))
    ),
    "linear_only": lambda: nn.Sequential(
        nn.Flatten(), nn.Linear(192, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 4)
    ),
    "max_pool": lambda: classifier(block(3, 8), nn.MaxPool2d(2), block(8, 8), nn.AvgPool2d(2)),
    "dead_channels": dead_channels,
    "one_channel": lambda: classifier(block(1, 8), block(8, 8)),
    "five_channels": lambda: classifier(block(5, 8), block(8, 8)),
    "one_pixel_maps": lambda: classifier(block(3, 8, stride=2), block(8, 8)),
    "wide_input": lambda: classifier(block(3, 8), block(8, 8)),
    "in_place_on_shared": InPlaceOnShared,
    "rectified_once": RectifiedOnce,
    "shared_concatenation": SharedConcatenation,
    "rectified_concatenation": RectifiedConcatenation,
    "unlike_parts": UnlikeParts,
    "rectified_late": RectifiedLate,
    "equal_sums": EqualSums,
    "identical_layers": identical_layers,
    "reused_module": ReusedModule,
    "shared_norm": SharedNorm,
    "moved": Moved,
    "split": Split,
    "squeeze_excite": SqueezeExcite,
    "gated": Gated,
    "recurrent": Recurrent,
    "largest": Largest,
    "tokens": Tokens,
    "asymmetric_padding": asymmetric_padding,
    "same_padding": same_padding,
    "pooling": pooling,
    "weight_norm": weight_norm,
    "tiny_weights": tiny_weights,
    "norm_first": lambda: classifier(nn.BatchNorm2d(3), block(3, 8), nn.BatchNorm2d(8), block(8, 8)),
    "multiplied_depth": lambda: classifier(
        block(3, 6, groups=3), nn.Conv2d(6, 12, 3, groups=6), nn.ReLU(), block(12, 8, 1)
    ),
    "dropout": lambda: nn.Sequential(
        classifier(block(3, 8), nn.Dropout2d(), block(8, 8), nn.Dropout())[:-1], nn.Dropout(), nn.Linear(8, 4)
    ),
    "pooled_by_size": lambda: nn.Sequential(block(3, 8), block(8, 8), nn.AvgPool2d(8), nn.Flatten(), nn.Linear(8, 4)),
    "convolution_as_head": lambda: nn.Sequential(
        block(3, 8), nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 4, 1), nn.Flatten()
    ),
}  # fmt: skip


def made(name: str) -> Callable[[], nn.Module]:
    """A function that makes the network, always with the same weights, whatever the generator's state."""

    def make() -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(7)
            return settle(MAKERS[name](), (64, *shape_of(name)))

    return make


def settle(network: nn.Module, *shapes: tuple[int, ...]) -> nn.Module:
    """Running statistics those of random images, gains and shifts of BatchNorms unlike 1 and 0; eval mode."""
    norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    kept = [(norm, norm.running_mean.clone(), norm.running_var.clone()) for norm in norms]  # type: ignore[union-attr]
    for norm in norms:
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.uniform_(norm.bias, -0.3, 0.3)
        norm.momentum = None  # the mean over all batches
    with torch.no_grad():
        network.train()(*(torch.randn(shape) for shape in shapes))
    for norm, mean, variance in kept:
        norm.momentum = 0.1
        dead = variance < 1e-6
        norm.running_mean[dead], norm.running_var[dead] = mean[dead], variance[dead]  # type: ignore[index]
    return network.eval()


def shape_of(name: str) -> tuple[int, int, int]:
    """Channels, height and width of a network's input."""
    return SHAPES.get(name, (3, 8, 8))


def example_of(name: str, images: int = 2, seed: int = 0) -> Tensor:
    """Random inputs [images, C, H, W]."""
    return torch.randn(images, *shape_of(name), generator=torch.Generator().manual_seed(seed))


NETWORKS |= {name: made(name) for name in MAKERS}

"""Tiny networks with one operator each that users' networks have: every one must go the whole way.

network = OPERATORS["prelu"].make()            # seeded weights, statistics as if it had been trained, eval mode
examples = OPERATORS["prelu"].inputs(4)        # a tuple of inputs, the batch first
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.networks import block, classifier, settle

PICTURE = (3, 8, 8)
LEAST = 1e-3  # of the whole output's variance: a constant channel is not divided by nothing


@dataclass(frozen=True)
class Case:
    """A network: how to make it, and the shapes of its inputs.

    noise: how much of the output's variance may be error at 8 bits.
    """

    maker: Callable[[], nn.Module]
    shapes: tuple[tuple[int, ...], ...] = (PICTURE,)
    noise: float = 0.01

    def make(self) -> nn.Module:
        """Always the same weights, whatever the generator's state."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(7)
            return settle(self.maker(), *((64, *shape) for shape in self.shapes))

    def inputs(self, images: int, seed: int = 0) -> tuple[Tensor, ...]:
        """Random inputs, each [images, ...]."""
        generator = torch.Generator().manual_seed(seed)
        return tuple(torch.randn(images, *shape, generator=generator) for shape in self.shapes)


class Applied(nn.Module):
    """A function behind a convolution and before another; then scores."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.last, self.head = nn.Conv2d(3, 8, 3, padding=1), block(8, 8), nn.Linear(8, 4)
        self.function = function

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.last(self.function(self.first(images))).mean((2, 3)))


class TiedLayers(nn.Module):
    """Two linear layers, and a convolution beside another, that hold one weight parameter, each with its own bias."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = block(3, 8)
        self.left, self.right = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.right.weight = self.left.weight
        self.first, self.second, self.head = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 4)
        self.second.weight = self.first.weight
        with torch.no_grad():
            for weight in (self.left.weight, self.first.weight):
                weight *= 4  # so that the output varies

    def forward(self, images: Tensor) -> Tensor:
        stem = self.stem(images)
        mean = functional.relu(self.right(functional.relu(self.left(stem)))).mean((2, 3))
        return self.head(functional.relu(self.second(functional.relu(self.first(mean)))))


class ClassToken(nn.Module):
    """A token of its own before those of an image; its scores follow from that one."""

    def __init__(self) -> None:
        super().__init__()
        self.token, self.mix = nn.Parameter(torch.randn(1, 1, 8)), nn.Linear(7, 7)
        self.embed, self.head = nn.Linear(4, 8), nn.Linear(8, 4)

    def forward(self, values: Tensor) -> Tensor:
        tokens = torch.cat([self.token.expand(values.shape[0], -1, -1), self.embed(values)], 1)
        return self.head(self.mix(tokens.transpose(1, 2)).relu()[:, :, 0])


class ByEquations(nn.Module):
    """Attention of two heads in einsums, weights and products alike."""

    def __init__(self) -> None:
        super().__init__()
        self.to_all, self.back = nn.Parameter(torch.randn(3, 8, 2, 4) / 2), nn.Parameter(torch.randn(2, 4, 8) / 2)
        self.embed, self.head = nn.Linear(4, 8), nn.Linear(8, 4)

    def forward(self, values: Tensor) -> Tensor:
        tokens = self.embed(values)
        query, key, value = (torch.einsum("bnd,dhk->bhnk", tokens, weight) for weight in self.to_all)
        shares = torch.softmax(torch.einsum("bhik,bhjk->bhij", query, key), -1)
        mixed = torch.einsum("bhnk,hkd->bnd", torch.einsum("bhij,bhjk->bhik", shares, value), self.back)
        return self.head(mixed[:, 0])


class Windows(nn.Module):
    """Parts of a picture, each mixed by itself; how many pictures there are is counted back from their number."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.mix, self.last, self.head = block(3, 8), nn.Linear(8, 8), block(8, 8), nn.Linear(8, 4)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.stem(images)
        count, channels, height, width = len(maps), *maps.shape[1:]
        parts = maps.view(count, channels, height // 4, 4, width // 4, 4).permute(0, 2, 4, 3, 5, 1)
        parts = functional.relu(self.mix(parts.reshape(-1, 16, channels)))
        count = int(parts.shape[0] / (height * width / 4 / 4))
        maps = parts.view(count, height // 4, width // 4, 4, 4, -1).permute(0, 5, 1, 3, 2, 4)
        return self.head(self.last(maps.reshape(count, channels, height, width)).mean((2, 3)))


class AutoEncoder(nn.Module):
    """A linear layer and its transpose."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Linear(12, 6)

    def forward(self, values: Tensor) -> Tensor:
        return functional.linear(torch.relu(self.encode(values)), self.encode.weight.t())


class SeveralOutputs(nn.Module):
    """Scores and a map."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.map, self.head = block(3, 8), nn.Conv2d(8, 2, 1), nn.Linear(8, 4)

    def both(self, images: Tensor) -> tuple[Tensor, Tensor]:
        stem = self.stem(images)
        return self.head(stem.mean((2, 3))), self.map(stem)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return self.both(images)


class DictionaryOutput(SeveralOutputs):
    def forward(self, images: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        scores, places = self.both(images)
        return {"scores": scores, "map": places}


class NestedOutput(SeveralOutputs):
    def forward(self, images: Tensor) -> dict[str, object]:  # type: ignore[override]
        scores, places = self.both(images)
        return {"heads": {"scores": scores, "maps": [places, functional.relu(places)]}, "image": images}


class AffineNorms(nn.Module):
    """BatchNorms that no layer takes in: before the first convolution, behind a sum, before a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.stem, self.between = nn.BatchNorm2d(3), block(3, 8), nn.BatchNorm2d(8)
        self.body, self.behind, self.head = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Linear(8, 4)

    def forward(self, images: Tensor) -> Tensor:
        stem = self.stem(self.first(images))
        return self.head(torch.relu(self.behind(stem + self.body(self.between(stem)))).mean((2, 3)))


class TwoPictures(nn.Module):
    """Two pictures of unlike sizes and channels, each through its own stem."""

    def __init__(self) -> None:
        super().__init__()
        self.colour, self.grey = block(3, 8, stride=2), block(1, 8)
        self.joined, self.head = block(16, 8), nn.Linear(8, 4)

    def forward(self, colour: Tensor, grey: Tensor) -> Tensor:
        return self.head(self.joined(torch.cat([self.colour(colour), self.grey(grey)], 1)).mean((2, 3)))


class PictureAndVector(nn.Module):
    """A picture, and a vector that no BatchNorm sees."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.vector, self.head = block(3, 8), nn.Linear(5, 8), nn.Linear(8, 4)

    def forward(self, images: Tensor, vector: Tensor) -> Tensor:
        return self.head(self.stem(images).mean((2, 3)) + torch.relu(self.vector(vector)))


class Tokens(nn.Module):
    """PyTorch's own encoder layers; the batch is the tokens' first axis or their second."""

    def __init__(self, batch_first: bool) -> None:
        super().__init__()
        self.batch_first = batch_first
        self.embed, self.head = nn.Linear(4, 8), nn.Linear(8, 5)
        self.encoder = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=batch_first)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.embed(x)
        tokens = self.encoder(tokens if self.batch_first else tokens.transpose(0, 1))
        found: Tensor = self.head(tokens.mean(1 if self.batch_first else 0))
        return found


class Gru(nn.Module):
    """A gate from x and a state, as in recurrent cells written by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.new, self.head = nn.Linear(12, 6), nn.Linear(12, 6), nn.Linear(6, 4)

    def forward(self, values: Tensor, state: Tensor) -> Tensor:
        joined = torch.cat([values, state], 1)
        gate = torch.sigmoid(self.gate(joined))
        return self.head(gate * state + (1 - gate) * torch.tanh(self.new(joined)))


def noise(expected: Tensor, found: Tensor) -> float:
    """Squared error over the variance of each channel, the mean over channels: 1 is an output that says nothing."""
    axes = [axis for axis in range(expected.dim()) if axis != 1]
    error = (found - expected).square().mean(axes)
    least = LEAST * float(expected.var())
    return float((error / expected.var(axes, correction=0).clamp(min=least)).mean())


def signals(*layers: nn.Module, channels: int = 8) -> nn.Module:
    """Layers on [N, C, L], then the mean and 4 scores."""
    return nn.Sequential(*layers, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(channels, 4))


def volumes(*layers: nn.Module) -> nn.Module:
    """Layers on [N, C, D, H, W], then the mean and 4 scores."""
    return nn.Sequential(*layers, nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(8, 4))


def synchronised() -> nn.Module:
    """BatchNorms turned into SyncBatchNorm, as training on several GPUs leaves them."""
    return nn.SyncBatchNorm.convert_sync_batchnorm(classifier(block(3, 8), block(8, 8)))


def dead_channel() -> nn.Module:
    """Every kind of layer with a channel of weights 1e-9 beside a bias of 5."""
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.ReLU6(),
        nn.Conv2d(8, 8, 1), nn.Flatten(), nn.Linear(512, 8), nn.ReLU(), nn.Linear(8, 4),
    )  # fmt: skip
    with torch.no_grad():
        for layer in network:
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                layer.weight[1] = 1e-9
                layer.bias[1] = 5.0
    return network


class RowBias(nn.Module):
    """A matrix product whose bias is [1, N] (onnxruntime 24815), by addmm and by a sum."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(12, 8) / 4), nn.Parameter(torch.randn(1, 8))
        self.last, self.row = nn.Linear(8, 4, bias=False), nn.Parameter(torch.randn(1, 4))

    def forward(self, values: Tensor) -> Tensor:
        return self.last(torch.relu(torch.addmm(self.bias, values, self.weight))) + self.row


class BoxesAndScores(nn.Module):
    """A detector's end: boxes in pixels, scores in 0..1, one concatenation as the output."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.boxes, self.scores = block(3, 8), nn.Conv2d(8, 4, 1), nn.Conv2d(8, 5, 1)
        with torch.no_grad():
            self.boxes.weight *= 200
            self.boxes.bias += 320

    def forward(self, images: Tensor) -> Tensor:
        stem = self.stem(images)
        return torch.cat([self.boxes(stem).flatten(2), torch.sigmoid(self.scores(stem)).flatten(2)], 1)


def conv3d(inputs: int, outputs: int, **settings: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv3d(inputs, outputs, 3, padding=1, **settings), nn.BatchNorm3d(outputs), nn.ReLU())


def conv1d(inputs: int, outputs: int, kernel: int = 3, **settings: int) -> nn.Sequential:
    convolution = nn.Conv1d(inputs, outputs, kernel, padding=kernel // 2, **settings)
    return nn.Sequential(convolution, nn.BatchNorm1d(outputs), nn.ReLU())


class VolumeResidual(nn.Module):
    """A sum of two 3-d branches, average pooling, a mean over all three axes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body, self.pool, self.head = conv3d(2, 8), conv3d(8, 8), nn.AvgPool3d(2), nn.Linear(8, 4)

    def forward(self, volume: Tensor) -> Tensor:
        stem = self.stem(volume)
        return self.head(self.pool(torch.relu(stem + self.body(stem))).mean((2, 3, 4)))


OPERATORS: dict[str, Case] = {
    "one_channel": Case(lambda: classifier(block(1, 8), block(8, 8)), ((1, 8, 8),)),
    "five_channels": Case(lambda: classifier(block(5, 8), block(8, 8)), ((5, 8, 8),)),
    "batch_norm_1d": Case(
        lambda: nn.Sequential(nn.Linear(12, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 4)), ((12,),)
    ),
    "signal": Case(lambda: signals(conv1d(2, 8), conv1d(8, 8, stride=2), nn.MaxPool1d(2), conv1d(8, 8)), ((2, 32),)),
    "volume": Case(lambda: volumes(conv3d(2, 8), nn.MaxPool3d(2), conv3d(8, 8, groups=2)), ((2, 6, 6, 6),)),
    "volume_residual": Case(VolumeResidual, ((2, 6, 6, 6),)),
    "synchronised": Case(synchronised),
    "dilated": Case(lambda: classifier(block(3, 8), nn.Conv2d(8, 8, 3, padding=2, dilation=2), nn.ReLU())),
    "grouped": Case(lambda: classifier(block(3, 8), block(8, 8, groups=2), block(8, 8, groups=4))),
    "dilated_depthwise": Case(
        lambda: classifier(block(3, 8), nn.Conv2d(8, 8, 3, padding=(2, 4), dilation=(2, 4), groups=8), nn.ReLU())
    ),
    "dilated_signal": Case(
        lambda: signals(conv1d(2, 8), nn.ConstantPad1d((4, 0), 0.0), nn.Conv1d(8, 8, 3, dilation=2), nn.ReLU()),
        ((2, 32),),
    ),
    "same_long": Case(
        lambda: nn.Sequential(
            nn.Conv2d(1, 16, (32, 1), padding="same"), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 64, 4)
        ),
        ((1, 32, 2),),
    ),
    "same_signal": Case(
        lambda: signals(nn.Conv1d(2, 8, 4, padding="same"), nn.ReLU(), nn.Conv1d(8, 8, 5, padding="same")), ((2, 32),)
    ),
    "same_volume": Case(
        lambda: volumes(nn.Conv3d(2, 8, (2, 3, 1), padding="same"), nn.ReLU(), conv3d(8, 8)), ((2, 6, 6, 6),)
    ),
    "reflected": Case(
        lambda: classifier(nn.Conv2d(3, 8, 3, padding=1, padding_mode="reflect"), nn.ReLU(), block(8, 8))
    ),
    "circular": Case(
        lambda: classifier(nn.Conv2d(3, 8, 3, padding=1, padding_mode="circular"), nn.ReLU(), block(8, 8))
    ),
    "small_epsilon": Case(lambda: Applied(lambda x: x.relu() / (x.relu().sum(1, keepdim=True) + 1e-12)), noise=0.03),
    "expected_distance": Case(  # as YOLOv8 has it: a softmax over an axis that is then moved
        lambda: Applied(lambda x: x.flatten(2).view(len(x), 2, 4, 64).transpose(2, 1).softmax(1).view(len(x), 8, 8, 8))
    ),
    "equations": Case(ByEquations, ((5, 4),), noise=0.02),
    "windows": Case(Windows),
    "prelu": Case(lambda: Applied(nn.PReLU(8, 0.2))),
    "prelu_one": Case(lambda: Applied(nn.PReLU())),
    "silu": Case(lambda: Applied(nn.SiLU(inplace=True))),
    "gelu": Case(lambda: Applied(nn.GELU())),
    "gelu_tanh": Case(lambda: Applied(nn.GELU(approximate="tanh"))),
    "hardswish": Case(lambda: Applied(nn.Hardswish(inplace=True))),
    "hardsigmoid": Case(lambda: Applied(nn.Hardsigmoid())),
    "mish": Case(lambda: Applied(nn.Mish())),
    "elu": Case(lambda: Applied(nn.ELU())),
    "selu": Case(lambda: Applied(nn.SELU())),
    "celu": Case(lambda: Applied(nn.CELU(0.5))),
    "softplus": Case(lambda: Applied(nn.Softplus())),
    "tanh": Case(lambda: Applied(nn.Tanh())),
    "hardtanh": Case(lambda: Applied(nn.Hardtanh())),
    "leaky_relu": Case(lambda: Applied(nn.LeakyReLU(0.1, inplace=True))),
    "swish_by_hand": Case(lambda: Applied(lambda x: x * torch.sigmoid(x))),
    "hardswish_by_hand": Case(lambda: Applied(lambda x: x * functional.relu6(x + 3) / 6)),
    "clamped": Case(lambda: Applied(lambda x: x.clamp(min=-0.5).clamp(max=0.5))),
    "absolute": Case(lambda: Applied(lambda x: x.abs().sqrt() + x.pow(2) - x.exp().log1p())),
    "group_norm": Case(lambda: Applied(nn.GroupNorm(2, 8))),
    "instance_norm": Case(lambda: Applied(nn.InstanceNorm2d(8, affine=True))),
    "local_response": Case(lambda: Applied(nn.LocalResponseNorm(3))),
    "glu": Case(lambda: Applied(lambda x: functional.glu(torch.cat([x, x * 2], 1), 1))),
    "softmax": Case(lambda: Applied(lambda x: x.softmax(1))),
    "bilinear": Case(lambda: Applied(nn.Upsample(scale_factor=2, mode="bilinear"))),
    "pixel_shuffle": Case(
        lambda: Applied(nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(32, 32, 1), nn.PixelShuffle(2)))
    ),
    "split_channels": Case(lambda: Applied(lambda x: torch.cat([part * 2 for part in x.split([3, 5], 1)], 1))),
    "stacked": Case(lambda: Applied(lambda x: torch.stack([x, x + 1], 2).flatten(1, 2)[:, ::2])),
    "strided_slice": Case(lambda: Applied(lambda x: x[:, :, ::2, 1::2])),
    "rolled": Case(lambda: Applied(lambda x: x.roll((1, -2), (2, 3)))),
    "maximum": Case(lambda: Applied(lambda x: torch.maximum(x, x.mean((2, 3), keepdim=True)))),
    "topmost": Case(lambda: Applied(lambda x: x - x.amax((2, 3), keepdim=True))),
    "where": Case(lambda: Applied(lambda x: torch.where(x > 0, x, x * 0.25))),
    "einsum": Case(lambda: Applied(lambda x: torch.einsum("nchw,ndhw->ncd", x, x)[..., None] * x[:, :1, :1, :1])),
    "tied_layers": Case(TiedLayers),
    "auto_encoder": Case(AutoEncoder, ((12,),)),
    "affine_norms": Case(AffineNorms),
    "several_outputs": Case(SeveralOutputs),
    "dictionary_output": Case(DictionaryOutput),
    "nested_output": Case(NestedOutput),
    "two_pictures": Case(TwoPictures, (PICTURE, (1, 4, 4))),
    "picture_and_vector": Case(PictureAndVector, (PICTURE, (5,))),
    "class_token": Case(ClassToken, ((6, 4),)),
    "encoder": Case(lambda: Tokens(batch_first=True), ((6, 4),)),  # PyTorch's own layer
    "encoder_batch_second": Case(lambda: Tokens(batch_first=False), ((6, 4),)),
    "two_vectors": Case(Gru, ((6,), (6,))),
    "dead_channel": Case(dead_channel, noise=0.1),  # the dead channels' constants are most of its values
    "row_bias": Case(RowBias, ((12,),)),
    "boxes_and_scores": Case(BoxesAndScores),
}  # fmt: skip

ENCODER = (("encoder.norm1", "encoder.norm2"), ("LayerNormalization", "Mul", "Add", "Softmax", "ReduceMean"))

# What stays in floating point: names in not_quantized, and operators of the optimised file. Nothing else does.
IN_FLOAT: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "reflected": ((), ("Pad",)),
    "circular": ((), ("Pad",)),
    "prelu": (("function",), ("PRelu",)),
    "prelu_one": (("function",), ("PRelu",)),
    "silu": ((), ("Sigmoid", "Mul")),
    "gelu": ((), ("Div", "Erf", "Add", "Mul")),
    "gelu_tanh": ((), ("Pow", "Mul", "Add", "Tanh")),
    "hardswish": ((), ("HardSigmoid", "Mul")),
    "hardsigmoid": ((), ("HardSigmoid",)),
    "mish": ((), ("Softplus", "Tanh", "Mul")),
    "elu": ((), ("Elu",)),
    "selu": ((), ("Selu",)),
    "celu": ((), ("Celu",)),
    "softplus": ((), ("Greater", "Softplus", "Div", "Where")),
    "small_epsilon": ((), ("ReduceSum", "Add", "Div")),
    "tanh": ((), ("Tanh",)),
    "hardtanh": ((), ("Clip",)),
    "hardswish_by_hand": ((), ("Add", "Clip", "Mul", "Div")),  # nothing reads the product in integers
    "clamped": ((), ("Clip",)),
    "absolute": ((), ("Exp", "Add", "Log", "Pow", "Abs", "Sqrt", "Sub")),
    "group_norm": (("function",), ("InstanceNormalization", "Mul", "Add")),
    "instance_norm": (("function",), ("InstanceNormalization",)),
    "local_response": ((), ("Mul", "Add", "Pow", "Div")),
    "glu": ((), ("Mul", "Split", "Sigmoid")),
    "bilinear": ((), ("Resize",)),
    "split_channels": ((), ("Mul",)),
    "stacked": ((), ("Add", "Concat")),
    "rolled": ((), ("Slice", "Concat")),
    "maximum": ((), ("Max",)),
    "topmost": ((), ("ReduceMax", "Sub")),
    "where": ((), ("Mul", "Greater", "Where")),
    "affine_norms": (("first", "between", "behind"), ("BatchNormalization", "Add")),
    "class_token": (("token",), ("Expand",)),
    "encoder": ENCODER,
    "encoder_batch_second": ENCODER,
    "two_vectors": ((), ("Tanh", "Sub")),
    "boxes_and_scores": ((), ("Sigmoid", "Concat")),
}

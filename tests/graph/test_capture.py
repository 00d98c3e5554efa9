"""Capture gives what the module gives, gives the module back as it was, and refuses in one sentence."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.networks import NETWORKS, example_of
from zeroq.errors import CaptureError
from zeroq.graph import Network, capture, fold

leaves = torch.utils._pytree.tree_leaves

CLASSIFIERS = {  # of the measuring data, with how many BatchNorms stay in floating point
    "mobilenet_v2": 0, "efficientnet_lite0": 0, "mobilenet_v1_025": 0, "etinynet": 0, "resnet18_cifar10": 0,
    "resnet20_cifar10": 0, "resnet20_cifar100": 0, "shufflenet_cifar10": 0, "squeezenext_cifar10": 0,
    "vit_cifar10": 0, "vgg_cifar10": 0,
}  # fmt: skip
ZOO = {  # of pytorchcv, with the side of a small input
    "resnet18": 64, "resnet50": 64, "mobilenetv2_w1": 64, "shufflenet_g1_w1": 64, "sqnxt23_w2": 64, "inceptionv3": 107
}  # fmt: skip


def checked(module: nn.Module, images: Tensor) -> Network:
    """The folded network, after it and the captured one have answered as the module does."""
    network = capture(module, images[:1])
    folded = fold(network)
    with torch.inference_mode():
        expected = leaves(module(images))
        for outputs in (leaves(network.run(images)), leaves(folded.run(images))):
            for reference, output in zip(expected, outputs, strict=True):
                assert (reference - output).abs().max() <= 1e-4 * reference.abs().max()
    return folded


def file_module(path: Path) -> ModuleType:
    """A Python file as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_real_networks_are_captured_and_folded(name: str, shared_data: Path) -> None:
    module = file_module(shared_data / "networks" / f"{name}.py")
    size = (64, 64) if name in ("mobilenet_v2", "efficientnet_lite0", "mobilenet_v1_025") else module.PREPROCESS["size"]
    folded = checked(getattr(module, name)(), torch.randn(3, 3, *size))
    assert len(folded.norms) == CLASSIFIERS[name]


@pytest.mark.parametrize("name", ZOO)
def test_networks_of_a_zoo_are_captured_and_folded(name: str) -> None:
    provider = pytest.importorskip("pytorchcv.model_provider", reason="pytorchcv is not installed")
    module = provider.get_model(name, pretrained=False).eval()
    module.features.final_pool = nn.AdaptiveAvgPool2d(1)  # for an input of any size
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):  # unlike the identity
            nn.init.uniform_(norm.weight, 0.8, 1.2)
            nn.init.normal_(norm.running_mean, 0, 0.1)
    folded = checked(module, torch.randn(2, 3, ZOO[name], ZOO[name]))
    assert not folded.norms and not folded.not_quantized
    layers = {path for path, part in module.named_modules() if isinstance(part, (nn.Conv2d, nn.Linear))}
    assert {layer.name for layer in folded.layers} == layers


class Inspected(nn.Module):
    """Does what a test wants."""

    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.layer, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)
        self.function = function

    def forward(self, images: Tensor) -> Any:
        return self.function(self.norm(self.layer(images)))


IMAGES = torch.linspace(-1, 1, 2 * 3 * 4 * 4).reshape(2, 3, 4, 4)


def refusal(function: Callable[[Tensor], Any]) -> str:
    """What capture says of a module that does this."""
    with pytest.raises(CaptureError) as error:
        capture(Inspected(function), IMAGES)
    return str(error.value)


def test_control_flow_by_values_is_refused_with_its_place() -> None:
    sentence = refusal(lambda x: x if x.sum() > 0 else -x)
    assert sentence.startswith(f"The network cannot be captured at {__file__}:")
    assert sentence.endswith(
        " (sentence = refusal(lambda x: x if x.sum() > 0 else -x)): its forward pass asks for a value of a tensor; "
        "write it without control flow that depends on values of tensors (torch.where chooses between two), or leave "
        "that step out of the network."
    )
    assert "\n" not in sentence


def test_a_fixed_number_of_images_is_refused_with_advice() -> None:
    sentence = refusal(lambda x: x.reshape(2, 4, 16))
    assert sentence.startswith(f"The network cannot be captured at {__file__}:")
    assert sentence.endswith(
        ": its forward pass fixes the number of images; let each size that depends on it be a multiple of x.shape[0], "
        "not a number that you write, and let it go through images without a loop."
    )


@pytest.mark.parametrize(
    ("step", "shape"),
    [(lambda x: x.mean(), "[]"), (lambda x: x.mean(0), "[4, 4, 4]"), (lambda x: x.reshape(-1, 4), "[32, 4]")],
)
def test_an_output_without_an_axis_of_images_is_refused(step: Callable[[Tensor], Tensor], shape: str) -> None:
    said = f" of the network is {shape} for 2 images: let its first axis be that of the images"
    assert refusal(step) == f"Output 1 of 1{said}."
    alike = f"Output 2 of 2{said}, or leave it out if it is the same for all of them."
    assert refusal(lambda x: (x, step(x))) == alike


def test_images_along_another_axis_are_named() -> None:
    said = "[4, 2, 4, 4] for 2 images: let its first axis be that of the images, which seems to be axis 1."
    assert refusal(lambda x: x.transpose(0, 1)) == f"Output 1 of 1 of the network is {said}"


@pytest.mark.parametrize(
    ("further", "said"),
    [
        (lambda x: torch.arange(4), "is [4] for 2 images: let its first axis be that of the images, or leave it out"),
        (lambda x: 3, "is of type int: let it return tensors alone."),
        (lambda x: "boxes", "is of type str: let it return tensors alone."),
    ],
)
def test_further_outputs_that_are_no_images_are_refused(further: Callable[[Tensor], Any], said: str) -> None:
    assert refusal(lambda x: (x, further(x))).startswith(f"Output 2 of 2 of the network {said}")


def test_an_axis_that_is_as_long_as_two_images_by_chance_is_none() -> None:
    said = refusal(lambda x: x.transpose(0, 1)[:2])
    assert said.startswith("Output 1 of 1 of the network is [2, 3, 4, 4] for 3 images: let its first axis be that of")


def test_outputs_that_are_truths_or_left_out_are_captured() -> None:
    network = capture(Inspected(lambda x: (x, x > 0, None)), IMAGES)
    found, positive = (each for each in leaves(network.run(IMAGES)) if each is not None)
    assert torch.equal(positive, found > 0)


def test_an_input_that_a_network_changes_in_place_is_captured() -> None:
    class Normalising(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(3, 4, 1)

        def forward(self, images: Tensor) -> Tensor:
            images -= 0.5
            images /= 0.2
            found: Tensor = self.layer(images)
            return found

    images = IMAGES.clone()
    module = Normalising()
    network = capture(module, images)
    assert torch.equal(images, IMAGES)
    with torch.inference_mode():
        torch.testing.assert_close(network.run(IMAGES), module(IMAGES.clone()))


def test_any_number_of_arguments_is_captured() -> None:
    class Several(nn.Module):
        def forward(self, first: Tensor, *further: Tensor, **named: Any) -> Tensor:
            return sum(further, first) * 2

    for count in (1, 3):
        inputs = tuple(torch.randn(2, 3, 4, 4) for _ in range(count))
        network = capture(Several(), inputs)
        torch.testing.assert_close(network.run(*inputs), sum(inputs) * 2)


@pytest.mark.parametrize(
    "step",
    [
        nn.BatchNorm2d(4, track_running_stats=False), lambda x: x - x.mean(0), lambda x: x.softmax(0),
        lambda x: (x, x.flatten(1) @ x.flatten(1)[:2].T), lambda x: x - x[:1], lambda x: x.cumsum(0),
        lambda x: x / x.shape[0], lambda x: x.flatten(1) @ x.flatten(1).T,
    ],
)  # fmt: skip
def test_what_hangs_on_the_other_images_of_a_batch_is_refused(step: Callable[[Tensor], Tensor]) -> None:
    assert refusal(step).startswith("The network's output for an image depends on the other images of its batch: let")


def test_what_hangs_on_the_other_sequences_of_a_batch_is_refused() -> None:
    class Centred(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(10, 4)

        def forward(self, tokens: Tensor) -> Tensor:
            values = self.table(tokens)
            return values.mean(1) - values.mean((0, 1))

    with pytest.raises(CaptureError, match="depends on the other images of its batch"):
        capture(Centred(), torch.tensor([[1, 2, 3, 4, 5]]))


def test_random_numbers_are_refused() -> None:
    sentence = refusal(lambda x: x + torch.rand_like(x))
    assert sentence.startswith(f"The captured graph gives other outputs than the module at {__file__}:")
    assert sentence.endswith(
        ": its forward pass draws random numbers, keeps state between calls, or changes in place what a view shows; "
        "remove that for inference."
    )


def test_numbers_that_are_none_are_refused() -> None:
    module = Inspected(lambda x: x)
    with torch.no_grad():
        module.layer.weight[0] = torch.nan
    with pytest.raises(CaptureError) as error:
        capture(module, IMAGES)
    assert str(error.value) == (
        "The network gives NaN or infinity on a plain input, first in layer: check that its weights were loaded, and "
        "them and its BatchNorms' running statistics for NaN and negative variances."
    )


@pytest.mark.parametrize(("name", "value"), [("running_mean", float("nan")), ("running_var", -1.0)])
def test_a_norm_whose_statistics_are_no_numbers_is_named(name: str, value: float) -> None:
    module = NETWORKS["plain"]()
    getattr(module[1][1], name)[2] = value  # type: ignore[index]
    with pytest.raises(CaptureError, match=r"NaN or infinity on a plain input, first in 1\.1: check"):
        capture(module, example_of("plain"))


def test_the_module_is_given_back_as_it_was() -> None:
    module = Inspected(lambda x: x).train()
    module.norm.eval()  # frozen, as in fine-tuning
    before = {name: value.clone() for name, value in module.state_dict().items()}
    capture(module, IMAGES)
    assert (module.training, module.layer.training, module.norm.training) == (True, True, False)
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    module.function = lambda x: x if x.sum() > 0 else -x
    with pytest.raises(CaptureError):
        capture(module, IMAGES)
    assert (module.training, module.layer.training, module.norm.training) == (True, True, False)


def test_one_image_is_enough_and_any_number_runs() -> None:
    network = capture(Inspected(lambda x: x.flatten(1)).eval(), IMAGES[:1])
    assert network.run(torch.randn(7, 3, 4, 4)).shape == (7, 64)


@dataclass
class Found:
    """What a detector may give."""

    scores: Tensor
    boxes: list[Tensor]


def test_dataclasses_come_as_their_tensors() -> None:
    network = capture(Inspected(lambda x: {"found": Found(x * 2, [x + 1, x - 1])}), IMAGES)
    assert [value.shape for value in leaves(network.run(IMAGES[:1]))] == [(1, 4, 4, 4)] * 3


def test_several_inputs() -> None:
    class Two(nn.Module):
        """Adds two inputs."""

        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 2)

        def forward(self, one: Tensor, other: Tensor) -> Tensor:
            return self.layer(one + other)

    module = Two()
    network = capture(module, (torch.randn(2, 3), torch.randn(2, 3)))
    rows = torch.randn(5, 3)
    assert network.inputs == ("one", "other")
    torch.testing.assert_close(network.run(rows, rows), module(rows, rows))


def test_a_tensor_known_under_two_names_is_one_layer() -> None:
    class Tied(nn.Module):
        """Two modules with one weight."""

        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
            self.second.weight = self.first.weight

        def forward(self, rows: Tensor) -> Tensor:
            return self.second(torch.relu(self.first(rows)))

    (layer,) = capture(Tied(), torch.randn(2, 4)).layers
    assert (layer.name, len(layer.sites)) == ("first", 2)


def test_an_empty_output_is_refused() -> None:
    class Empty(nn.Module):
        def forward(self, images: Tensor) -> dict[str, Tensor]:
            return {"scores": images.mean((2, 3)), "further": images[:, :0]}

    with pytest.raises(CaptureError, match=r"^Output 2 of 2 of the network is empty \(\[2, 0, "):
        capture(Empty(), IMAGES)


def test_imitated_quantization_is_refused_by_name() -> None:
    class Aware(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return torch.fake_quantize_per_tensor_affine(images, 0.1, 128, 0, 255).mean((2, 3))

    with pytest.raises(CaptureError, match="its forward pass imitates quantization .torch.fake_quantize."):
        capture(Aware(), IMAGES)


def test_floor_division_has_a_derivative() -> None:
    class Steps(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images + (images * 8) // 1 / 8 + images // (images.abs() + 1)

    network = capture(Steps(), IMAGES)
    values = IMAGES.clone().requires_grad_()
    found = network.run(values)
    torch.testing.assert_close(found, Steps()(IMAGES))
    found.sum().backward()
    assert values.grad is not None and bool((values.grad == 1).all())


def test_an_encoder_takes_a_mask_as_it_is_given() -> None:
    class Masked(nn.Module):
        """As PyTorch's tutorial writes it."""

        def __init__(self) -> None:
            super().__init__()
            layer = nn.TransformerEncoderLayer(8, 2, 16)
            self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
            self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(5))

        def forward(self, tokens: Tensor) -> Tensor:
            return self.encoder(tokens.transpose(0, 1), self.mask).transpose(0, 1)

    module, detect = Masked().eval(), nn.modules.transformer._detect_is_causal_mask
    network = capture(module, torch.randn(2, 5, 8))
    tokens = torch.randn(3, 5, 8)
    changed = torch.cat([tokens[:, :4], torch.randn(3, 1, 8)], 1)
    with torch.inference_mode():
        found = network.run(tokens)
        torch.testing.assert_close(found, module(tokens))
        torch.testing.assert_close(found[:, :4], network.run(changed)[:, :4])  # nothing sees what comes later
    assert nn.modules.transformer._detect_is_causal_mask is detect

"""FILE.pt2, and saved files that are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from zeroq.errors import ModelError
from zeroq.graph import capture
from zeroq.models import load_model

FREE_BATCH = (
    "torch.export.export(module.eval(), (example,), dynamic_shapes=({0: torch.export.Dim('batch')},)), "
    "with an example of two or more images"
)
COME_FROM_PYTORCH = (
    "give the PyTorch network that it was made from, as FILE.py:FUNCTION (a function that returns it) or saved by "
    "torch.export.save as FILE.pt2."
)


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def network() -> nn.Module:
    layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.2), nn.AdaptiveAvgPool2d(1))
    return nn.Sequential(layers, nn.Flatten(), nn.Linear(4, 10)).eval()


def export(module: nn.Module, free: tuple[int, ...] = (0,), shape: tuple[int, ...] = (2, 3, 8, 6)) -> Path:
    dynamic = dict.fromkeys(free, torch.export.Dim.AUTO)
    program = torch.export.export(module, (torch.randn(shape),), dynamic_shapes=(dynamic,) if free else None)
    torch.export.save(program, "net.pt2")
    return Path("net.pt2")


def refusal(model: str) -> str:
    with pytest.raises(ModelError) as caught:
        load_model(model)
    return str(caught.value)


def test_a_program_is_loaded_and_can_be_captured_again() -> None:
    module = network()
    export(module)
    loaded = load_model("net.pt2")
    assert (loaded.name, loaded.input_shape) == ("net", (3, 8, 6))
    assert not loaded.module.training
    images = torch.randn(5, 3, 8, 6)
    assert torch.allclose(loaded.module(images), module(images), atol=1e-6)
    assert torch.allclose(capture(loaded.module, images).run(images), module(images), atol=1e-5)


def test_without_preprocessing_a_warning_says_what_is_taken() -> None:
    export(network())
    assert load_model("net.pt2").warnings == (
        "Nothing says how pictures become the input of net: ImageNet's mean and deviation are taken; "
        "--preprocess FILE.json says otherwise.",
    )


def test_weights_of_a_program_can_be_replaced() -> None:
    export(network())
    other = network()
    save_file(other.state_dict(), "other.safetensors")
    images = torch.randn(2, 3, 8, 6)
    loaded = load_model("net.pt2", weights=Path("other.safetensors"))
    assert torch.allclose(loaded.module(images), other(images), atol=1e-6)


def test_free_sides_need_an_input_shape() -> None:
    export(network(), free=(0, 2, 3))
    assert refusal("net.pt2") == (
        "Nothing says what the input of net is like: give --input-shape C,H,W, or PREPROCESS in the Python file."
    )
    assert load_model("net.pt2", input_shape=(3, 10, 10)).input_shape == (3, 10, 10)


def test_a_fixed_batch_is_refused_with_advice() -> None:
    export(network(), free=())
    assert refusal("net.pt2") == f"net.pt2 has a fixed batch of 2: save it with a free one, {FREE_BATCH}."


def test_training_mode_is_refused() -> None:
    export(nn.Sequential(nn.Conv2d(3, 2, 3), nn.Dropout()).train())
    assert refusal("net.pt2") == f"net.pt2 was saved in training mode: save it anew with {FREE_BATCH}."


def test_other_inputs_are_taken_with_the_shapes_that_the_program_fixes() -> None:
    export(nn.Linear(6, 2), shape=(2, 6))
    loaded = load_model("net.pt2")
    assert loaded.example is not None and loaded.example[0].shape == (1, 6)
    assert (loaded.input_shape, loaded.shapes, loaded.preprocessing) == ((6,), [6], None)


def test_other_inputs_of_free_sides_are_refused() -> None:
    export(nn.Linear(6, 2), shape=(2, 5, 6), free=(0, 1))
    assert refusal("net.pt2") == (
        "An input of net.pt2 is [free, free, 6]: save it with the batch as its only free axis."
    )


@pytest.mark.parametrize("share", [0.2, 0.9])
def test_a_truncated_program(share: float, capfd: pytest.CaptureFixture[str]) -> None:
    content = export(network()).read_bytes()
    Path("net.pt2").write_bytes(content[: int(share * len(content))])
    assert refusal("net.pt2") == ("net.pt2 is damaged or cut short, or no torch.export program: save or copy it again.")
    assert capfd.readouterr().err == ""


def test_a_corrupt_program(capfd: pytest.CaptureFixture[str]) -> None:
    content = export(network()).read_bytes()
    Path("net.pt2").write_bytes(content.replace(b'"graph_module"', b'"grph_module__"'))
    assert refusal("net.pt2").startswith("net.pt2 cannot be read as a torch.export program (RuntimeError: ")
    assert "Traceback" not in capfd.readouterr().err


def test_another_archive_as_program() -> None:
    torch.save(network().state_dict(), "net.pt2")
    assert refusal("net.pt2") == "net.pt2 holds no torch.export program: save one with torch.export.save."


def test_onnx_is_refused() -> None:
    Path("net.onnx").write_bytes(b"\x08\x0a")
    assert refusal("net.onnx") == (
        f"net.onnx is an ONNX file, from which layers and BatchNorm cannot be recovered: {COME_FROM_PYTORCH}"
    )


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
@pytest.mark.parametrize("suffix", ["pt", "pth", "ts", "torchscript"])
def test_torchscript_is_refused(suffix: str) -> None:
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), f"net.{suffix}")
    assert refusal(f"net.{suffix}") == (
        f"net.{suffix} is a TorchScript program, whose layers cannot be replaced: {COME_FROM_PYTORCH}"
    )


@pytest.mark.parametrize("suffix", ["pt", "pth", "safetensors"])
def test_weights_alone_are_refused(suffix: str) -> None:
    torch.save(network().state_dict(), f"net.{suffix}")
    assert refusal(f"net.{suffix}") == (
        f"net.{suffix} holds weights and not the network that they belong to: name the network as MODEL and give this "
        "file with --weights."
    )


@pytest.mark.parametrize("name", ["none.pt2", "none.onnx", "none.pt"])
def test_no_file(name: str) -> None:
    assert refusal(name) == f"There is no file {name}: check the path of MODEL."

"""Weights from files, and what is wrong with files."""

from __future__ import annotations

import os
import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from zeroq.errors import ModelError
from zeroq.models import from_module
from zeroq.models.weights import load_weights, read_weights, weights_sha256


def network(classes: int = 4) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, classes))


def sentence(call: Callable[..., Any], *arguments: Any) -> str:
    with pytest.raises(ModelError) as caught:
        call(*arguments)
    return str(caught.value)


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def save_as(kind: str, state: dict[str, torch.Tensor]) -> Path:
    path = Path("weights.safetensors" if kind == "safetensors" else "weights.pt")
    prefixed = {f"module.{name}": tensor for name, tensor in state.items()}
    contents: dict[str, Any] = {
        "plain": state,
        "ordered": OrderedDict(state),
        "wrapped": {"epoch": 3, "state_dict": state},
        "wrapped and parallel": {"state_dict": prefixed, "optimizer": {}},
        "parallel": prefixed,
    }
    if kind == "safetensors":
        save_file(state, path)
    else:
        torch.save(contents.get(kind, state), path, _use_new_zipfile_serialization=kind != "of old torch")
    return path


@pytest.mark.parametrize(
    "kind", ["safetensors", "plain", "ordered", "wrapped", "wrapped and parallel", "parallel", "of old torch"]
)
def test_every_form_of_file_gives_the_same_weights(kind: str) -> None:
    source, target = network(), network()
    load_weights(target, save_as(kind, source.state_dict()))
    assert weights_sha256(target) == weights_sha256(source)


def test_safetensors_are_known_by_their_content_as_well() -> None:
    save_file(network().state_dict(), "weights.bin")
    assert len(read_weights(Path("weights.bin"))) == 9


def test_half_precision_is_widened_and_counters_may_be_missing() -> None:
    source, target = network(), network()
    state = {name: tensor.half() for name, tensor in source.state_dict().items() if "num_batches" not in name}
    load_weights(target, save_as("plain", state))
    weight = target.state_dict()["0.weight"]
    assert weight.dtype == torch.float32
    assert torch.allclose(weight, source.state_dict()["0.weight"], rtol=1e-3)


def test_of_shared_tensors_one_suffices() -> None:
    shared = nn.Linear(2, 2)
    source, target = nn.Sequential(shared, shared), nn.Sequential(network()[3], nn.Linear(2, 2))
    target[0] = target[1]
    state = {name: tensor for name, tensor in source.state_dict().items() if name.startswith("1.")}
    load_weights(target, save_as("plain", state))
    assert torch.equal(target[0].weight, shared.weight)


class Noting(nn.Linear):
    """A layer with something beside its tensors."""

    noted: Any = torch.tensor(1)

    def get_extra_state(self) -> Any:
        return self.noted

    def set_extra_state(self, state: Any) -> None:
        self.noted = state


@pytest.mark.parametrize(("kind", "noted"), [("plain", {"version": 2}), ("plain", 4), ("safetensors", None)])
def test_what_modules_keep_beside_their_tensors_comes_along(kind: str, noted: Any) -> None:
    source, target = Noting(2, 2), Noting(2, 2)
    source.noted = noted if kind == "plain" else torch.tensor(3)
    load_weights(target, save_as(kind, source.state_dict()))
    assert torch.equal(target.weight, source.weight) and target.noted == source.noted
    assert from_module(target, (torch.randn(1, 2),)).weights_sha256 == weights_sha256(source)
    load_weights(nn.Linear(2, 2), save_as("plain", {"weight": source.weight, "bias": source.bias, "_extra_state": {}}))


def test_hash_depends_on_names_types_shapes_and_values() -> None:
    seen = set()
    for tensor in (torch.zeros(4), torch.zeros(2, 2), torch.zeros(4).int(), torch.ones(4), torch.tensor(0.0)):
        for name in ("a", "b"):
            module = nn.Module()
            module.register_buffer(name, tensor)
            seen.add(weights_sha256(module))
    assert len(seen) == 10


def test_missing_unexpected_and_mismatching_tensors_are_named() -> None:
    state = network(classes=5).state_dict()
    state["9.weight"] = state.pop("0.weight")
    assert sentence(load_weights, network(), save_as("plain", state)) == (
        "The weights in weights.pt do not fit the network, tensors: 1 missing (0.weight), 1 unexpected (9.weight), "
        "2 of another shape (3.weight is [5, 2] and should be [4, 2], 3.bias is [5] and should be [4]); give the file "
        "that was saved from this very network, or a FILE.py:FUNCTION that builds the one it fits."
    )


def test_of_many_tensors_the_first_three_are_named() -> None:
    message = sentence(load_weights, network(), save_as("plain", {"other": torch.zeros(1)}))
    assert "8 missing (0.weight, 0.bias, 1.weight and 5 more), 1 unexpected (other)" in message


def test_a_refused_file_changes_nothing() -> None:
    module = network()
    before = weights_sha256(module)
    sentence(load_weights, module, save_as("plain", network(classes=5).state_dict()))
    assert weights_sha256(module) == before


def test_not_a_number_is_named() -> None:
    state = network().state_dict()
    state["0.weight"][0, 0, 0, 0] = float("nan")
    assert sentence(load_weights, network(), save_as("safetensors", state)) == (
        "The weights file weights.safetensors holds NaN or infinity in 0.weight: its training went astray, or it is "
        "damaged; give another."
    )


def test_no_file() -> None:
    assert sentence(read_weights, Path("none.pt")) == "There is no weights file none.pt: check the path."
    Path("folder").mkdir()
    assert sentence(read_weights, Path("folder")) == "There is no weights file folder: check the path."


def test_an_empty_file() -> None:
    Path("empty.pt").touch()
    assert sentence(read_weights, Path("empty.pt")) == (
        "The weights file empty.pt is empty: copy or download it again."
    )


def test_a_file_of_something_else() -> None:
    Path("readme.pt").write_text("These are no weights.")
    assert sentence(read_weights, Path("readme.pt")) == (
        "The weights file readme.pt is neither safetensors nor a state_dict saved by torch: save one with "
        "safetensors.torch.save_file(module.state_dict(), FILE) or torch.save(module.state_dict(), FILE)."
    )


@pytest.mark.parametrize("kind", ["safetensors", "plain"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_truncated_file(kind: str, share: float) -> None:
    path = save_as(kind, network().state_dict())
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    message = sentence(read_weights, path)
    assert message.startswith(f"The weights file {path} is damaged or cut short (")
    assert message.endswith("): copy or download it again.")


def test_a_corrupt_file() -> None:
    path = save_as("plain", network().state_dict())
    content = bytearray(path.read_bytes())
    content[600:1200] = bytes(600)
    path.write_bytes(content)
    assert sentence(read_weights, path).startswith("The weights file weights.pt is damaged")


class Command:
    """What an attacker's pickle does."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("executed",)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_needs_code_is_refused_and_not_executed(zipped: bool) -> None:
    torch.save({"weight": Command()}, "weights.pt", _use_new_zipfile_serialization=zipped)
    assert sentence(read_weights, Path("weights.pt")) == (
        "The weights file weights.pt needs code to be loaded (posix.mkdir), which is refused, as it could do anything: "
        "save the tensors alone, with torch.save(module.state_dict(), FILE), where the network was made."
    )
    assert not Path("executed").exists()


def test_a_whole_network_is_refused() -> None:
    torch.save(network(), "weights.pt")
    assert sentence(read_weights, Path("weights.pt")).startswith(
        "The weights file weights.pt needs code to be loaded (torch.nn.modules.container.Sequential), which is refused"
    )


def test_a_pickle_of_plain_python() -> None:
    Path("weights.pt").write_bytes(pickle.dumps({"weight": Command()}))
    assert sentence(read_weights, Path("weights.pt")) == (
        "The weights file weights.pt is damaged, or a pickle that torch.save did not write: save one with "
        "torch.save(module.state_dict(), FILE)."
    )
    assert not Path("executed").exists()


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_a_torchscript_program() -> None:
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), "weights.pt")
    assert sentence(read_weights, Path("weights.pt")) == (
        "The weights file weights.pt is a TorchScript program: in Python, save its tensors alone with "
        "torch.save(torch.jit.load(FILE).state_dict(), OTHER_FILE)."
    )


@pytest.mark.parametrize(
    ("content", "held"),
    [
        ({"epoch": 1, "loss": 0.5}, "a dictionary of epoch, loss"),
        ({}, "a dict without tensors"),
        ([1, 2], "a list without tensors"),
    ],
)
def test_a_file_without_state_dict(content: Any, held: str) -> None:
    torch.save(content, "weights.pt")
    assert sentence(read_weights, Path("weights.pt")) == (
        f"The weights file weights.pt holds {held}, not a state_dict: save one with "
        "torch.save(module.state_dict(), FILE)."
    )

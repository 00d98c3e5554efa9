"""Weights from a file into a network: safetensors, or a state_dict saved by torch, neither of which runs code."""

from __future__ import annotations

import hashlib
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from zeroq.errors import ModelError
from zeroq.reason import reason

WRAPPERS = ("state_dict", "model_state_dict", "model")  # keys under which training scripts keep the state_dict
EXTRA_STATE = "_extra_state"  # last part of the key under which PyTorch keeps what `get_extra_state` gives
NAMED = 3  # tensors named in a message before it says how many more there are
LONGEST_SAFETENSORS_HEADER = 100_000_000  # bytes, the format's own limit


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """The module's state_dict without what is no tensor, as `get_extra_state` may give."""
    return tensors_among(module.state_dict())


def tensors_among(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """Of a state_dict."""
    return {name: value for name, value in state.items() if isinstance(value, Tensor)}


def weights_sha256(module: nn.Module) -> str:
    """SHA-256 over name, type, shape and bytes of every tensor of the state_dict, sorted by name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors_of(module).items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def load_weights(module: nn.Module, path: Path) -> None:
    """Copy the file's tensors into the module; raises ModelError unless they fit one to one.

    Counters of BatchNorm's training steps may be missing or too many, and of tensors that share memory one suffices.
    """
    state = read_weights(path)
    given, wanted = tensors_among(state), tensors_of(module)
    loaded_memory = {wanted[name].data_ptr() for name in given if name in wanted}
    missing = [n for n in wanted if n not in state and not _counter(n) and wanted[n].data_ptr() not in loaded_memory]
    unexpected = [name for name in given if name not in wanted and not _counter(name)]
    mismatching = [
        f"{name} is {list(given[name].shape)} and should be {list(wanted[name].shape)}"
        for name in given
        if name in wanted and given[name].shape != wanted[name].shape
    ]
    complaints = [
        f"{len(names)} {what} ({_first(names)})"
        for what, names in (("missing", missing), ("unexpected", unexpected), ("of another shape", mismatching))
        if names
    ]
    if complaints:
        raise ModelError(
            f"The weights in {path} do not fit the network, tensors: {', '.join(complaints)}; "
            "give the file that was saved from this very network, or a FILE.py:FUNCTION that builds the one it fits."
        )
    _refuse_not_finite(given, {name for name, _ in module.named_parameters()}, path)
    module.load_state_dict(state, strict=False)


def read_weights(path: Path) -> dict[str, Any]:
    """The tensors of a safetensors file or of a state_dict saved by torch, and what modules keep beside them
    (`get_extra_state`). Raises ModelError.
    """
    if not path.is_file():
        raise ModelError(f"There is no weights file {path}: check the path.")
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except OSError as error:
        raise ModelError(
            f"The weights file {path} cannot be read ({error.strerror}): check its permissions."
        ) from error
    if not start:
        raise ModelError(f"The weights file {path} is empty: copy or download it again.")
    if path.suffix == ".safetensors" or _is_safetensors(start):
        return _read_safetensors(path)
    if start.startswith((b"PK", b"\x80")):
        return _read_torch(path)
    raise ModelError(
        f"The weights file {path} is neither safetensors nor a state_dict saved by torch: "
        "save one with safetensors.torch.save_file(module.state_dict(), FILE) or torch.save(module.state_dict(), FILE)."
    )


def is_torchscript(path: Path) -> bool:
    """Whether the file is a zip archive that holds TorchScript code."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any("/code/" in name or name.endswith("constants.pkl") for name in archive.namelist())


def _is_safetensors(start: bytes) -> bool:
    """Eight bytes of the header's length, then a JSON object."""
    return start[8:] == b"{" and int.from_bytes(start[:8], "little") <= LONGEST_SAFETENSORS_HEADER


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (SafetensorError, ValueError) as error:
        raise _damaged(path, error) from error
    return _without_prefix(tensors)


def _read_torch(path: Path) -> dict[str, Any]:
    if is_torchscript(path):
        raise ModelError(
            f"The weights file {path} is a TorchScript program: in Python, save its tensors alone with "
            "torch.save(torch.jit.load(FILE).state_dict(), OTHER_FILE)."
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on pickles that torch did not write, which are refused below
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise _needs_code(path, error) from error
    except Exception as error:  # what a damaged archive makes torch raise is of many types
        raise _damaged(path, error) from error
    return _without_prefix(_unwrapped(content, path))


def _needs_code(path: Path, error: pickle.UnpicklingError) -> ModelError:
    """The sentence for a pickle that names functions or classes to be called, or that torch cannot make out."""
    forbidden = re.search(r"[Uu]nsupported (?:global: )?(?:GLOBAL|class) (\S+)", str(error))
    if forbidden is None:
        return ModelError(
            f"The weights file {path} is damaged, or a pickle that torch.save did not write: save one with "
            "torch.save(module.state_dict(), FILE)."
        )
    return ModelError(
        f"The weights file {path} needs code to be loaded ({forbidden[1]}), which is refused, as it could do anything: "
        "save the tensors alone, with torch.save(module.state_dict(), FILE), where the network was made."
    )


def _damaged(path: Path, error: Exception) -> ModelError:
    return ModelError(f"The weights file {path} is damaged or cut short ({reason(error)}): copy or download it again.")


def _unwrapped(content: Any, path: Path) -> dict[str, Any]:
    """The state_dict itself where a training script saved it inside a dictionary."""
    if isinstance(content, dict):
        inner = next((content[key] for key in WRAPPERS if isinstance(content.get(key), dict)), content)
        beside = {key for key in inner if str(key).rpartition(".")[2] == EXTRA_STATE}
        if len(inner) > len(beside) and all(
            isinstance(key, str) and (isinstance(value, Tensor) or key in beside) for key, value in inner.items()
        ):
            return dict(inner)
    held = f"a dictionary of {_first([str(key) for key in content])}" if isinstance(content, dict) and content else ""
    raise ModelError(
        f"The weights file {path} holds {held or f'a {type(content).__name__} without tensors'}, not a state_dict: "
        "save one with torch.save(module.state_dict(), FILE)."
    )


def _without_prefix(tensors: dict[str, Any]) -> dict[str, Any]:
    """Names as they were before torch.nn.DataParallel put "module." before each."""
    if all(name.startswith("module.") for name in tensors):
        return {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    return tensors


def _refuse_not_finite(tensors: dict[str, Tensor], parameters: set[str], path: Path) -> None:
    """Other buffers may hold infinity by right, an attention mask for one."""
    for name, tensor in tensors.items():
        if (name in parameters or name.endswith(("running_mean", "running_var"))) and not tensor.isfinite().all():
            raise ModelError(
                f"The weights file {path} holds NaN or infinity in {name}: its training went astray, or it is "
                "damaged; give another."
            )


def _counter(name: str) -> bool:
    return name.endswith("num_batches_tracked")


def _first(names: Iterable[str]) -> str:
    """The first few, and how many more."""
    listed = list(names)
    more = f" and {len(listed) - NAMED} more" if len(listed) > NAMED else ""
    return ", ".join(listed[:NAMED]) + more

"""Safetensors files whose bytes depend on their contents alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from zeroq.errors import RunError


def tensor_file_bytes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> bytes:
    """The file's bytes. The library writes metadata in an order that differs from process to process, so the header
    is written again with sorted names (safetensors 0.8.0)."""
    data = save(apart(tensors))
    start = 8 + int.from_bytes(data[:8], "little")
    header = {"__metadata__": dict(sorted((metadata or {}).items())), **json.loads(data[8:start])}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the tensors stay aligned
    return len(text).to_bytes(8, "little") + text + data[start:]


def apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors in order, no two of which have memory in common, which the library refuses."""
    found, seen = {}, set()
    for name, tensor in tensors.items():
        whole = tensor.contiguous()
        place = whole.untyped_storage().data_ptr()
        found[name] = whole.clone() if place in seen else whole
        seen.add(place)
    return found


def read_tensor_file(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata. Raises RunError for what is no such file."""
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise RunError(f"{path} cannot be read as safetensors ({error}): quantize again.") from error

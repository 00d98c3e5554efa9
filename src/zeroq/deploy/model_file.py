"""model.safetensors: the quantized network at its true width, and back, without pickles and without its user's code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from zeroq.errors import RunError
from zeroq.graph.text import graph_from_data, graph_to_data
from zeroq.numbers.grid import shifted, shifts_of
from zeroq.numbers.packing import Plane, pack, planes_of, unpack
from zeroq.numbers.tensor_file import read_tensor_file, tensor_file_bytes
from zeroq.simulate.quantized_network import QuantizedNetwork

FORMAT = "zeroq 2"


def serialise(network: QuantizedNetwork, weight_bits: Mapping[str, int], metadata: Mapping[str, Any]) -> bytes:
    """The file's bytes. weight_bits: width of each integer weight, by the name of its tensor."""
    stored: dict[str, Tensor] = {}
    packed: dict[str, dict[str, Any]] = {}
    for name, tensor in network.tensors().items():
        if name not in weight_bits:
            stored[name] = tensor.contiguous()
            continue
        packed[name] = {"bits": weight_bits[name], "shape": list(tensor.shape)}
        if (shifts := shifts_of(tensor, weight_bits[name])).any():
            stored[f"{name}.shifts"] = shifts
            packed[name]["shifted"] = True
        for index, plane in enumerate(pack(shifted(tensor, -shifts), weight_bits[name])):
            stored[f"{name}.{index}"] = plane.data
    description = {
        "format": FORMAT,
        "graph": json.dumps(graph_to_data(network.graph), separators=(",", ":")),
        "packed": json.dumps(packed, sort_keys=True),
        "quantizers": json.dumps(network.quantizers),
        **{
            key: value if isinstance(value, str) else json.dumps(value, sort_keys=True)
            for key, value in metadata.items()
        },
    }
    return tensor_file_bytes(stored, description)


def load_network(path: Path) -> tuple[QuantizedNetwork, dict[str, str]]:
    """The quantized network of a model.safetensors, and its metadata. Raises RunError for any other file."""
    tensors, metadata = read_tensor_file(path)
    if metadata.get("format") != FORMAT:
        raise RunError(f"{path} holds no network quantized by this version of zeroq: quantize again.")
    try:
        for name, entry in json.loads(metadata["packed"]).items():
            planes = [
                Plane(field, shift, tensors.pop(f"{name}.{index}"))
                for index, (field, shift) in enumerate(planes_of(entry["bits"]))
            ]
            tensors[name] = unpack(planes, entry["bits"], tuple(entry["shape"]))
            if entry.get("shifted"):
                tensors[name] = shifted(tensors[name], tensors.pop(f"{name}.shifts"))
        graph = graph_from_data(json.loads(metadata.pop("graph")))
        return QuantizedNetwork(graph, tensors, json.loads(metadata.pop("quantizers"))), metadata
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise RunError(f"{path} is damaged ({type(error).__name__}: {error}): quantize again.") from error

"""A network in floating point as an ONNX file, and what onnxruntime's own static quantization makes of that."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
from onnx import ModelProto
from torch import Tensor

from zeroq.deploy.onnx_file import IR_VERSION, check
from zeroq.deploy.translate import translate
from zeroq.graph import Network
from zeroq.graph.inputs import Inputs, chunks
from zeroq.simulate.quantized_network import QuantizedNetwork


def export_float(network: Network) -> ModelProto:
    """The file of a captured network, by the way that the quantized one takes; BatchNorms are left to onnxruntime."""
    model = translate(QuantizedNetwork(network.graph, network.tensors, {}), network.example)
    model.ir_version = IR_VERSION
    check(model)
    return model


def quantize_statically(file: Path, images: Inputs, out: Path, folder: Path) -> None:
    """onnxruntime's static quantization with its recommended settings: QDQ, uint8 values, int8 weights per channel.

    images: [N, C, H, W], of several inputs a tuple, for its ranges.  folder: for what it writes on the way.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    names = [each.name for each in onnx.load(file, load_external_data=False).graph.input]

    class Reader(CalibrationDataReader):
        """One image at a time, as memory grows with a batch."""

        def __init__(self) -> None:
            self.parts: Iterator[tuple[Tensor, ...]] = iter(chunks(images, 1))

        def get_next(self) -> dict[str, Any] | None:
            part = next(self.parts, None)
            return None if part is None else {name: value.numpy() for name, value in zip(names, part, strict=True)}

    with silenced():
        prepared = folder / "prepared.onnx"
        quant_pre_process(str(file), str(prepared))  # folds BatchNorms, as its documentation asks for
        quantize_static(
            str(prepared), str(out), Reader(), quant_format=QuantFormat.QDQ, per_channel=True,
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
        )  # fmt: skip


@contextmanager
def silenced() -> Iterator[None]:
    """Without its warnings on the root logger, which would stand between ours."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)

"""The float file answers as the network does; onnxruntime's own quantization of it runs in integers."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
from torch.utils import _pytree as pytree

from tests.networks import NETWORKS, example_of
from zeroq.deploy.float_file import export_float, quantize_statically
from zeroq.graph import as_tuple, capture


def session(data: bytes) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("name", ["residual", "depthwise", "attention", "relu6", "tokens"])
def test_equals_the_network_at_any_batch(name: str) -> None:
    network = capture(NETWORKS[name](), example_of(name))
    images = example_of(name, 5)
    data = export_float(network).SerializeToString()
    found = session(data).run(None, {"input": images.numpy()})
    with torch.inference_mode():
        expected = pytree.tree_leaves(network.run(*as_tuple(images)))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(torch.from_numpy(one), other, rtol=1e-4, atol=1e-5)


def test_static_quantization_runs_in_integers_and_stays_near(tmp_path: Path) -> None:
    network, images = capture(NETWORKS["plain"](), example_of("plain")), example_of("plain", 12)
    file, out = tmp_path / "float.onnx", tmp_path / "static.onnx"
    onnx.save(export_float(network), file)
    quantize_statically(file, images, out, tmp_path)
    kinds = {node.op_type for node in onnx.load(out).graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= kinds and "BatchNormalization" not in kinds
    weights = [tensor for tensor in onnx.load(out).graph.initializer if tensor.data_type == onnx.TensorProto.INT8]
    assert weights
    found = torch.from_numpy(session(out.read_bytes()).run(None, {"input": images.numpy()})[0])
    with torch.inference_mode():
        expected = network.run(images)
    assert (found - expected).norm() < 0.1 * expected.norm()

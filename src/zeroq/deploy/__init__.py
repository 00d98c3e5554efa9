"""The deployable file: export, and the proof that it equals its simulation."""

from zeroq.deploy.onnx_file import export_onnx
from zeroq.deploy.verify import Verification, verify

__all__ = ["Verification", "export_onnx", "verify"]

"""A trained network in, a smaller file that runs in integers out, without any data.

    import zeroq
    run = zeroq.quantize(model, example, average_bits=4)

The names below are all that is public. Each is imported when it is first asked for, so that `import zeroq` is quick.
"""

from __future__ import annotations

import importlib
from typing import Any

from zeroq.version import __version__

HOME = {  # public name -> the module that it lives in
    "Options": "zeroq.options",
    "quantize": "zeroq.pipeline",
    "capture": "zeroq.graph",
    "distill": "zeroq.distillation",
    "observe": "zeroq.ranges",
    "measure_sensitivity": "zeroq.sensitivity",
    "pareto_frontier": "zeroq.allocate",
    "round_weights": "zeroq.rounding",
    "export_onnx": "zeroq.deploy",
}

__all__ = [
    "Options",
    "__version__",
    "capture",
    "distill",
    "export_onnx",
    "measure_sensitivity",
    "observe",
    "pareto_frontier",
    "quantize",
    "round_weights",
]


def __getattr__(name: str) -> Any:
    if name not in HOME:
        raise AttributeError(f"module 'zeroq' has no attribute {name!r}")
    return getattr(importlib.import_module(HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)

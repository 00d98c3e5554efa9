"""The names of `zeroq` are a promise."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

import zeroq

PUBLIC = [
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


def test_the_list_of_public_names() -> None:
    assert sorted(zeroq.__all__) == PUBLIC
    assert set(PUBLIC) <= set(dir(zeroq))


@pytest.mark.parametrize("name", [name for name in PUBLIC if name != "__version__"])
def test_a_public_name_is_a_documented_function_or_class(name: str) -> None:
    value = getattr(zeroq, name)
    assert (inspect.isfunction(value) or inspect.isclass(value)) and value.__doc__


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'zeroq' has no attribute 'quantise'"):
        zeroq.quantise  # noqa: B018


def test_names_stay_functions_after_every_module_was_imported() -> None:
    program = (
        "import importlib, inspect, pkgutil, zeroq\n"
        "for module in pkgutil.walk_packages(zeroq.__path__, 'zeroq.'):\n"
        "    if not module.name.endswith(('__main__', '_cuda')): importlib.import_module(module.name)\n"
        "print([name for name in zeroq.__all__ if inspect.ismodule(getattr(zeroq, name))])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr

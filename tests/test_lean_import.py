"""`import zeroq`, `zeroq --version` and every --help answer at once: nothing heavy is imported for them."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "onnx", "onnxruntime", "onnxscript", "matplotlib", "numpy", "sklearn", "rich", "PIL", "jinja2")
COMMANDS = ["--version"], ["--help"], ["quantize", "--help"], ["evaluate", "--help"]


def imported_by(program: str) -> list[str]:
    """The heavy modules that are there when a program has ended."""
    program += f"\nimport sys; print('HEAVY', *[name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1].split()[1:]


def test_importing_the_package_imports_nothing_heavy() -> None:
    assert imported_by("import zeroq") == []


def test_options_are_checked_without_anything_heavy() -> None:
    assert imported_by("import zeroq; zeroq.Options(average_bits=4)") == []


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_the_command_line_answers_without_anything_heavy(arguments: list[str]) -> None:
    assert imported_by(f"from zeroq.cli import main; assert main({arguments}) == 0") == []

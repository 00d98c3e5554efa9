"""How the package is built: modules, who imports whom, and (`python -m tests.house` prints it) what is long."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).parent.parent / "src"
LONG_MODULE, LONG_FUNCTION = 350, 60  # lines; beyond them a second look is worth it, nothing fails


def modules() -> dict[str, Path]:
    """Full module name -> file; a folder's `__init__` goes by the folder's name."""
    paths = sorted(SOURCE.rglob("*.py"))
    return {".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}


def imports() -> dict[str, set[str]]:
    """Module -> the modules of the package that it imports, anywhere in its text."""
    known = modules()
    return {name: set(imported(path)) & set(known) - {name} for name, path in known.items()}


def imported(path: Path) -> Iterator[str]:
    """Every name that a file's import statements could mean; `from a import b` gives a and a.b."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{path}:{node.lineno}: import by full module name"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def long_ones() -> Iterator[str]:
    """One line for each module and function beyond the limits above."""
    for name, path in modules().items():
        text = path.read_text()
        if (lines := len(text.splitlines())) > LONG_MODULE:
            yield f"{name}: {lines} lines"
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef) and node.end_lineno is not None:
                lines = node.end_lineno - node.lineno + 1
                if lines > LONG_FUNCTION:
                    yield f"{name}.{node.name}: {lines} lines"


if __name__ == "__main__":
    found = list(long_ones())
    print(f"modules over {LONG_MODULE} lines, functions over {LONG_FUNCTION}: {', '.join(found) or 'none'}")

"""FILE.py:FUNCTION: a network from a Python file of the user's own."""

from __future__ import annotations

import ast
import difflib
import hashlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from zeroq.errors import ModelError, OptionError
from zeroq.models.loaded import FoundModel, checked_module
from zeroq.models.meaning import reading_of, task_of
from zeroq.preprocessing import Preprocessing
from zeroq.reason import reason

PREFIX = "zeroq_user_file_"  # of the name under which a user's file is known to Python


def find_in_file(path: Path, function: str) -> FoundModel:
    """Run the file, call the function, and read PREPROCESS, TASK and the rest beside it. Raises ModelError."""
    check_is_file(path)
    with _importable(path.parent):
        namespace = _execute(path)
        builder = _function(namespace, function, path)
        module = _guarded(builder, path, f"{function}()")
    return FoundModel(
        name=function,
        module=checked_module(module, f"{function} in {path} returns", "return", "the network"),
        preprocessing=_preprocessing(getattr(namespace, "PREPROCESS", None), path),
        task=task_of(namespace, path),
        reading=reading_of(namespace, path, _guarded),
    )


def check_is_file(path: Path) -> None:
    """Raise ModelError where there is no such file."""
    if not path.is_file():
        raise ModelError(f"There is no file {path}: check the path of MODEL.")


def functions_in(path: Path) -> list[str]:
    """Names of the functions and classes that the file defines, without running it."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return []
    return [node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]


def refuse_without_function(path: Path) -> None:
    """FILE.py alone does not say what to call. Raises ModelError."""
    check_is_file(path)
    defined = functions_in(path)
    named = f" (it defines {', '.join(defined)})" if defined else ""
    raise ModelError(f"{path} needs the name of the function that returns the network: {path}:FUNCTION{named}.")


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """The file may import what lies beside it, as if Python had been started on it.

    Those modules are forgotten again, so that a file of the same name beside another MODEL is not mistaken for them.
    """
    entry, before = str(folder.resolve()), set(sys.modules)
    sys.path.insert(0, entry)
    try:
        yield
    finally:
        if entry in sys.path:
            sys.path.remove(entry)
        beside = {name for name in set(sys.modules) - before if _lies_in(folder.resolve(), sys.modules[name])}
        for name in [name for name in sys.modules if name.partition(".")[0] in beside]:
            del sys.modules[name]


def _lies_in(folder: Path, module: ModuleType) -> bool:
    """Whether the module is a file of the folder or a package in it; what is installed deeper inside is not."""
    file = getattr(module, "__file__", None)
    if file is None or module.__name__.startswith(PREFIX):
        return False
    path = Path(file).resolve()
    return folder == (path.parent.parent if path.name == "__init__.py" else path.parent)


def _execute(path: Path) -> ModuleType:
    """The file as a module under a name that no other has; it stays known, since dataclasses and tracing look it up."""
    name = f"{PREFIX}{path.stem}_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]}"
    specification = importlib.util.spec_from_file_location(name, path)
    assert specification is not None and specification.loader is not None
    namespace = importlib.util.module_from_spec(specification)
    sys.modules[name] = namespace
    loader = specification.loader
    try:
        _guarded(lambda: loader.exec_module(namespace), path, "the file")
    except ModelError:
        del sys.modules[name]
        raise
    return namespace


def _guarded(call: Callable[[], Any], path: Path, what: str) -> Any:
    """The call's result; what it raises becomes a sentence with the line of the user's file."""
    try:
        return call()
    except (Exception, SystemExit) as error:
        line = _line_of(error, path)
        raise ModelError(
            f"{path} fails at line {line}, running {what} ({reason(error)}): correct it there."
            if line
            else f"{path} fails, running {what} ({reason(error)}): correct it."
        ) from error


def _line_of(error: BaseException, path: Path) -> int | None:
    """The innermost line of the user's file that the error came through."""
    if (
        isinstance(error, SyntaxError)
        and error.filename is not None
        and Path(error.filename).resolve() == path.resolve()
    ):
        return error.lineno
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if Path(frame.filename).resolve() == path.resolve()]
    return lines[-1] if lines else None


def _function(namespace: ModuleType, name: str, path: Path) -> Callable[[], Any]:
    """What the name stands for, if it can be called without arguments."""
    function = getattr(namespace, name, None)
    if function is None:
        defined = functions_in(path)
        listed = difflib.get_close_matches(name, defined) or defined
        raise ModelError(
            f"{path} has no function {name!r}: " + (f"it has {', '.join(listed)}." if listed else "it defines none.")
        )
    if isinstance(function, nn.Module):
        raise ModelError(
            f"{name!r} in {path} is a network, not a function: write a function of no arguments that returns it."
        )
    if not callable(function):
        raise ModelError(
            f"{name!r} in {path} is a {type(function).__name__}: name a function that returns the network."
        )
    needed = _needed_arguments(function)
    if needed:
        raise ModelError(
            f"{name} in {path} needs arguments ({', '.join(needed)}): give them default values, or name a "
            "function that needs none."
        )
    return function


def _needed_arguments(function: Callable[..., Any]) -> list[str]:
    """Names of the parameters without default."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # some built-in functions tell nothing of their arguments
        return []
    optional = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [item.name for item in parameters if item.default is inspect.Parameter.empty and item.kind not in optional]


def _preprocessing(values: Any, path: Path) -> Preprocessing | None:
    if values is None:
        return None
    if not isinstance(values, Mapping):
        raise ModelError(f"PREPROCESS in {path} is a {type(values).__name__}: write dict(size=..., mean=..., std=...).")
    try:
        return Preprocessing.from_dict(values)
    except OptionError as error:
        raise ModelError(f"PREPROCESS in {path}: {error}") from error

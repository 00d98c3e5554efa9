"""What a user's divergence computes, in short: choices that were made by another are not taken up again."""

from __future__ import annotations

import functools
import hashlib
import inspect
import pickle
import secrets
from collections.abc import Iterator
from types import CellType, CodeType, FunctionType, ModuleType
from typing import Any

from torch import Tensor

from zeroq.divergence import Meaning
from zeroq.numbers.tensor_file import tensor_file_bytes


def fingerprint_of(meaning: Meaning) -> str:
    """By which divergence choices are made: the task's name, or what the user's own function does.

    That is what it is compiled to, without its place, and so of all that it calls in its module; its defaults, the
    numbers it reads there, and what surrounds or holds it. What cannot be told in bytes is new each time.
    """
    if meaning.divergence is None:
        return meaning.task
    own = inspect.unwrap(meaning.divergence)
    text = "\n".join(told(own, getattr(own, "__module__", None), {}))
    return hashlib.sha256(text.encode()).hexdigest()


def told(value: Any, module: str | None, seen: dict[int, tuple[int, Any]]) -> Iterator[str]:
    """A value in texts.

    module: whose functions and classes are looked into, those of others being known by name.  seen: values told before,
    each with its place among them, kept so that no other takes its address.
    """
    if id(value) in seen:
        yield f"again {seen[id(value)][0]}"
        return
    seen[id(value)] = len(seen), value
    if isinstance(value, ModuleType):
        yield value.__name__
    elif isinstance(value, functools.partial):
        for part in (value.func, *value.args, *sorted(value.keywords.items())):
            yield from told(part, module, seen)
    elif isinstance(value, FunctionType | type) and value.__module__ != module:
        yield f"{value.__module__}.{value.__qualname__}"
    elif isinstance(value, FunctionType):
        yield compiled(value.__code__)
        for part in read_by(value):
            yield from told(part, module, seen)
    elif isinstance(value, type):
        for name, part in vars(value).items():
            if isinstance(part, FunctionType) or not name.startswith(("__", "_abc_")):  # which Python adds
                yield name
                yield from told(part, module, seen)
    elif isinstance(value, classmethod | staticmethod):
        yield from told(value.__func__, module, seen)
    elif isinstance(value, property):
        yield from told([value.fget, value.fset], module, seen)
    elif isinstance(getattr(value, "__func__", None), FunctionType):  # a method
        yield from told(value.__func__, module, seen)
        yield from told(value.__self__, module, seen)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from told(part, module, seen)
    elif isinstance(value, set | frozenset):  # whose order differs from process to process
        yield from sorted("\n".join(told(part, module, dict(seen))) for part in value)
    elif isinstance(value, dict):
        yield from told(list(value.items()), module, seen)
    elif isinstance(value, Tensor):
        yield hashlib.sha256(tensor_file_bytes({"": value.detach().cpu()})).hexdigest()
    elif type(value).__module__ == module:
        yield from told(type(value), module, seen)
        yield from told(getattr(value, "__dict__", ()), module, seen)
    else:
        yield in_bytes(value)


def read_by(function: FunctionType) -> Iterator[Any]:
    """What a function reads beside its arguments."""
    yield from function.__defaults__ or ()
    yield from (function.__kwdefaults__ or {}).values()
    yield from (cell.cell_contents for cell in function.__closure__ or () if cell != CellType())
    yield from (function.__globals__[name] for name in names_in(function.__code__) if name in function.__globals__)


def names_in(code: CodeType) -> Iterator[str]:
    """Global names, and others, that a function and those in it use."""
    yield from code.co_names
    for each in code.co_consts:
        if isinstance(each, CodeType):
            yield from names_in(each)


def compiled(code: CodeType) -> str:
    """A function's instructions, names and constants, those of the functions in it as well, without its place."""
    constants = [compiled(each) if isinstance(each, CodeType) else constant(each) for each in code.co_consts]
    return repr((code.co_code, code.co_names, constants))


def constant(value: Any) -> str:
    """A constant of a function; the members of a set in an order that every process has."""
    return f"set {sorted(map(repr, value))}" if isinstance(value, frozenset) else repr(value)


def in_bytes(value: Any) -> str:
    """A plain value, or a word that was never said before."""
    try:
        return pickle.dumps(value).hex()
    except Exception:  # what cannot be pickled raises what it likes
        return secrets.token_hex()

"""The directory of a run: files that are whole or absent, and stages that are not computed twice.

    with RunDirectory(out, fresh=False) as run:
        run.describe({"model": ..., "options": ...})
        precision = run.decide("precision", {"threads": 2}, measure)
        images = run.stage("distill", {"seed": 0, "dtype": precision["dtype"]}, ["distilled.safetensors"],
                           compute=..., save=..., load=...)

Every file is written beside its place, synced and renamed. run.json says which stages are finished: the key of each,
and the sha256 of its files, so that a file that was damaged, or that belongs to another setting, counts as absent. A
key contains the keys of all stages before it; what comes after a stage whose key has changed is removed, once the new
value is there. So a run that was interrupted anywhere and is started again ends with the bytes of an undisturbed one,
and a finished run stays whole as long as what is asked next of its directory has come to nothing.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, cast

from torch import Tensor

from zeroq.errors import RunError
from zeroq.numbers.tensor_file import read_tensor_file, tensor_file_bytes
from zeroq.whole_files import ELSEWHERE, json_bytes, partial, read_json, whole, why_not

S = TypeVar("S")
T = TypeVar("T")
RECORD = "run.json"
BOOKS = ("stages", "files", "seconds")  # what run.json holds beside facts and decisions
READ_AGAIN = ("model", "task", "weights", "weights_sha256", "options", "preprocess", "input_shape")  # of its facts


class RunDirectory:
    """One run's directory, for one process at a time; `reused` names the stages that an earlier run had finished."""

    def __init__(self, path: Path, *, fresh: bool = False) -> None:
        self.path = path
        self.fresh = fresh
        self.reused: list[str] = []
        self.seconds: dict[str, float] = {}  # of each stage, when it was computed, perhaps by an earlier run
        self.told: dict[str, Any] = {}  # facts of an earlier run
        self._facts: dict[str, Any] = {}
        self._outdated: set[str] = set()  # files that the first change makes wrong
        self._held = False  # whether an earlier run is still as it was
        self._decided: dict[str, Any] = {}
        self._stages: dict[str, str] = {}  # keys; "" matches none
        self._files: dict[str, dict[str, str]] = {}  # stage -> file -> sha256
        self._visited: list[str] = []
        self._last_key = ""
        self._written = b""
        self._created: list[Path] = []
        self._lock: int | None = None

    def __enter__(self) -> Self:
        """Create and lock the directory, and read what is there.

        Raises RunError where it cannot be written, is in use, or holds something else.
        """
        try:
            self._create()
            self._take_lock()
            self._read_record()
            self._remove_partial_files()
        except BaseException:
            self._leave()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, traceback: TracebackType | None) -> None:
        try:
            if kind is None and self._facts:
                self._begin()
                self._forget([name for name in self._stages if name not in self._visited])
        finally:
            self._leave()

    def describe(self, facts: Mapping[str, Any], outdates: Sequence[str] = ()) -> None:
        """Set what run.json says of the run; call it first. Values must be plain JSON.

        outdates: files that are no stage's, such as a result. What an earlier run has left stays until something is
        written, and these go then.
        """
        assert not set(facts) & set(BOOKS), "these names are taken"
        self._facts, self._outdated, self._held = dict(facts), set(outdates), True
        if not self._stages:
            self._begin()

    def _begin(self) -> None:
        """Before the first change: from here on the directory is this run's."""
        if self._held:
            self._held = False
            self._remove(self._outdated)
            self._write_record()

    def decide(self, name: str, key_parts: Mapping[str, Any], measure: Callable[[], Any]) -> Any:
        """What `measure` found (plain JSON), in run.json under `name` before it is used; a resumed run keeps it.

        It is measured again when `key_parts` change, and then every stage that follows is computed again.
        """
        key = self._key(name, key_parts)
        if self._stages.get(name) != key or name not in self._decided:
            measured = measure()
            self._forget([other for other in self._stages if other not in (*self._visited, name)])
            self._decided[name], self._stages[name] = measured, key
        self._visited.append(name)
        self._write_record()
        self._last_key = key  # another value comes with another key, or with --fresh, and both forget what follows
        return json.loads(json.dumps(self._decided[name]))  # as a resumed run reads it, tuples as lists

    def known(self, name: str, key_parts: Mapping[str, Any]) -> Any:
        """What `decide` would keep, asked next under that name and key; None where it would measure."""
        return self.decided(name) if self._stages.get(name) == self._key(name, key_parts) else None

    def decided(self, name: str) -> Any:
        """What was decided before under that name; None where nothing was."""
        return self._decided.get(name)

    def stage(
        self,
        name: str,
        key_parts: Mapping[str, Any],
        files: Sequence[str],
        *,
        compute: Callable[[], S],
        save: Callable[[S], None],
        load: Callable[[], T],
    ) -> T:
        """The value of a stage: loaded, if its key is unchanged and its files are whole, else computed and saved.

        files: what `save` writes.  A stage without files is always computed.  The value that `save` wrote is loaded
        again before it is used: an undisturbed and a resumed run then go on with the very same value.
        """
        key = self._key(name, key_parts)
        self._last_key = key
        if files and self._is_finished(name, key, files):
            self.reused.append(name)
        else:
            start = time.perf_counter()
            value = compute()
            if self._stages.get(name) != key:
                self._forget([other for other in self._stages if other not in self._visited])
            self._remove(set(self._files.get(name, {})) - set(files))
            if files:
                save(value)
            self.seconds[name] = round(time.perf_counter() - start, 3)
            self._files[name] = {file: _sha256(self.path / file) for file in files}
            assert all(self._files[name].values()), f"{name!r} did not save {list(files)}"
            self._stages[name] = key
        self._visited.append(name)
        self._write_record()
        return load() if files else cast(T, value)

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """A path to write to; once that is done, the file is put in its place, whole. Raises RunError."""
        self._begin()
        with whole(self.path / name, self._lock) as partial:
            yield partial

    def write_bytes(self, name: str, data: bytes) -> None:
        with self.writing(name) as partial:
            partial.write_bytes(data)

    def write_json(self, name: str, value: Any) -> None:
        self.write_bytes(name, json_bytes(value))

    def write_tensors(
        self, name: str, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
    ) -> None:
        self.write_bytes(name, tensor_file_bytes(tensors, metadata))

    def read_json(self, name: str) -> Any:
        return read_json(self.path / name)

    def read_tensors(self, name: str) -> dict[str, Tensor]:
        return read_tensor_file(self.path / name)[0]

    def _key(self, name: str, parts: Mapping[str, Any]) -> str:
        assert name not in self._visited, f"{name!r} comes twice"
        return _hash([self._last_key, name, parts])

    def _is_finished(self, name: str, key: str, files: Sequence[str]) -> bool:
        found = self._files.get(name, {})
        return (
            self._stages.get(name) == key
            and set(found) == set(files)
            and all(_sha256(self.path / file) == found[file] for file in files)
        )

    def _forget(self, stages: Sequence[str]) -> None:
        """Remove stages that no longer hold, files first: a record without files is no harm, the reverse would be."""
        self._begin()
        for name in stages:
            self._remove(set(self._files.pop(name, {})))
            self._stages.pop(name)
            self._decided.pop(name, None)
            self.seconds.pop(name, None)
        self._write_record()

    def _remove(self, names: set[str]) -> None:
        try:
            for name in names:
                (self.path / name).unlink(missing_ok=True)
        except OSError as error:
            raise RunError(why_not(self.path, error)) from error

    def _write_record(self) -> None:
        assert self._facts, "describe() comes first"
        if self._held:
            return
        books: dict[str, Mapping[str, Any]] = {"stages": self._stages, "files": self._files, "seconds": self.seconds}
        record = self._facts | dict(sorted(self._decided.items()))
        data = json_bytes(record | {book: dict(sorted(entries.items())) for book, entries in books.items()})
        if data != self._written:
            self.write_bytes(RECORD, data)
            self._written = data

    def _read_record(self) -> None:
        path = self.path / RECORD
        if not path.exists():
            if any(each.name != partial(path).name for each in self.path.iterdir()):
                raise RunError(f"{self.path} is not empty and holds no {RECORD}: {ELSEWHERE}.")
            return
        try:
            record = json.loads(path.read_bytes())
        except OSError as error:
            raise RunError(f"{path} cannot be read ({error.strerror or error}): {ELSEWHERE}.") from error
        except ValueError as error:
            if self.fresh:
                return
            raise RunError(f"{path} is damaged ({error}): start anew with --fresh, or {ELSEWHERE}.") from error
        if not isinstance(record, dict) or not all(isinstance(record.get(book), dict) for book in BOOKS):
            raise RunError(f"{path} was not written by zeroq: {ELSEWHERE}.")
        self._stages, self._files, self.seconds = (record[book] for book in BOOKS)
        if self.fresh:
            self._stages = dict.fromkeys(self._stages, "")
        self._decided = {name: record[name] for name in self._stages if name not in self._files and name in record}
        self.told = {name: value for name, value in record.items() if name not in BOOKS}

    def _create(self) -> None:
        above = [self.path, *self.path.parents]
        try:
            if file := next((each for each in above if each.exists() and not each.is_dir()), None):
                raise RunError(f"{file} is a file, not a directory: {ELSEWHERE}.")
            self._created = [each for each in above if not each.exists()]
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(why_not(self.path, error)) from error

    def _take_lock(self) -> None:
        """Lock the directory itself: no file is left behind, and the system gives the lock back with the process."""
        try:
            self._lock = os.open(self.path, os.O_RDONLY)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RunError(f"Another process is writing {self.path}: wait until it is done, or {ELSEWHERE}.") from error
        except OSError as error:
            if self._lock is None:
                raise RunError(why_not(self.path, error)) from error
            # Some network file systems lock no directories; there the user sees to it.

    def _remove_partial_files(self) -> None:
        """What a process that was killed while writing has left."""
        self._remove({each.name for each in self.path.glob(".*.partial")})

    def _leave(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
        with suppress(OSError):  # nothing was written: leave no empty directory
            for each in self._created:
                each.rmdir()


def read_record(directory: Path, files: Sequence[str] = ()) -> dict[str, Any]:
    """What run.json says of a run whose directory must hold `files` as well. Raises RunError."""
    path = directory / RECORD
    if not path.is_file():
        raise RunError(f"{directory} is no run directory, as it holds no {RECORD}: give what --out named.")
    record = read_json(path)
    if not (isinstance(record, dict) and {*BOOKS, *READ_AGAIN} <= record.keys()):
        raise RunError(f"{path} is no record of a run of zeroq quantize: give what --out named.")
    if missing := next((name for name in files if not (directory / name).is_file()), None):
        raise RunError(f"{directory} holds no {missing}: give the directory of a finished run.")
    return record


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _sha256(path: Path) -> str:
    """Of a file's contents; "" if it cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""

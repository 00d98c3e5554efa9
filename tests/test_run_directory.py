"""Files that are whole or absent, stages that are not computed twice, and runs that are interrupted anywhere."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from zeroq.errors import RunError
from zeroq.run_directory import RunDirectory
from zeroq.whole_files import json_bytes, read_json

FACTS = {"model": "digits", "options": {"seed": 0}}


class Steps:
    """A small run: a decision by timing, a stage of tensors, a stage of two files, one without, and a result."""

    def __init__(self, measured: int = 5) -> None:
        self.computed: list[str] = []
        self.measured = measured

    def go(self, out: Path, *, seed: int = 0, width: int = 4, keep: bool = True, fresh: bool = False) -> list[str]:
        """Run and return the stages that were reused."""
        with RunDirectory(out, fresh=fresh) as run:
            run.describe(FACTS | {"options": {"seed": seed, "width": width}}, outdates=["result.json"])
            threads = run.decide("precision", {}, lambda: self.note("measure", {"threads": self.measured}))["threads"]
            images = run.stage(
                "distill",
                {"seed": seed},
                ["distilled.safetensors"] if keep else [],
                compute=lambda: self.note("distill", torch.full((2, 3), float(seed + threads))),
                save=lambda images: run.write_tensors("distilled.safetensors", {"images": images}),
                load=lambda: run.read_tensors("distilled.safetensors")["images"],
            )
            bits = run.stage(
                "frontier",
                {"width": width},
                ["frontier.json", "extra.json"],
                compute=lambda: self.note("frontier", [width, float(images.sum())]),
                save=lambda bits: [run.write_json(name, bits) for name in ("frontier.json", "extra.json")] and None,
                load=lambda: run.read_json("frontier.json"),
            )
            run.write_json("result.json", {"bits": bits})
            return run.reused

    def note(self, name: str, value: Any) -> Any:
        self.computed.append(name)
        return value


def contents(out: Path) -> dict[str, bytes]:
    """All files, hidden ones too; run.json without the seconds."""
    files = {path.name: path.read_bytes() for path in out.iterdir()}
    record = json.loads(files["run.json"])
    record.pop("seconds")
    return files | {"run.json": json_bytes(record)}


@pytest.fixture
def undisturbed(tmp_path: Path) -> Callable[..., dict[str, bytes]]:
    """The files of a run in a directory of its own."""

    def files(measured: int = 5, **options: Any) -> dict[str, bytes]:
        out = tmp_path / f"undisturbed-{len(list(tmp_path.iterdir()))}"
        Steps(measured).go(out, **options)
        return contents(out)

    return files


def test_a_finished_run_is_not_computed_again(tmp_path: Path) -> None:
    steps = Steps()
    assert steps.go(tmp_path / "run") == []
    before = contents(tmp_path / "run")
    assert steps.go(tmp_path / "run") == ["distill", "frontier"]
    assert steps.computed == ["measure", "distill", "frontier"]
    assert contents(tmp_path / "run") == before
    record = read_json(tmp_path / "run" / "run.json")
    assert record["precision"] == {"threads": 5} and record["model"] == "digits"
    assert list(record["stages"]) == ["distill", "frontier", "precision"]
    assert list(record["seconds"]) == ["distill", "frontier"]


@pytest.mark.parametrize(
    ("change", "computed"),
    [
        ({"seed": 1}, ["distill", "frontier"]),
        ({"width": 2}, ["frontier"]),
        ({"fresh": True}, ["measure", "distill", "frontier"]),
        ({"keep": False}, ["distill"]),
    ],
)
def test_what_depends_on_a_change_is_computed_again(
    change: dict[str, Any], computed: list[str], tmp_path: Path, undisturbed: Callable[..., dict[str, bytes]]
) -> None:
    Steps().go(tmp_path / "run")
    steps = Steps()
    steps.go(tmp_path / "run", **change)
    assert steps.computed == computed
    assert contents(tmp_path / "run") == undisturbed(**change)


def test_what_is_refused_leaves_a_finished_run_as_it_was(tmp_path: Path) -> None:
    Steps().go(tmp_path / "run")
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}

    class Refused(Steps):
        def note(self, name: str, value: Any) -> Any:
            if name == "frontier":
                raise RunError("no setting is so small")
            return super().note(name, value)

    for fresh in (False, True):
        with pytest.raises(RunError, match="so small"):
            Refused().go(tmp_path / "run", width=2, fresh=fresh)
        if not fresh:  # which has made new images before it is refused
            assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before
    assert not (tmp_path / "run" / "result.json").exists()


class Interruption(BaseException):
    """Ctrl-C, as the code sees it."""


@contextmanager
def failing(name: str, fatal: int, after: bool) -> Iterator[list[int]]:
    """Interrupt the call number `fatal` of os.NAME, before or after its work; yields a list with one entry a call."""
    calls: list[int] = []
    real = getattr(os, name)

    def fail(*arguments: Any, **options: Any) -> Any:
        calls.append(len(calls) + 1)
        if calls[-1] == fatal and not after:
            raise Interruption
        result = real(*arguments, **options)
        if calls[-1] == fatal:
            raise Interruption
        return result

    setattr(os, name, fail)
    try:
        yield calls
    finally:
        setattr(os, name, real)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(
    ("name", "earlier"), [("replace", None), ("replace", {"seed": 1}), ("fsync", None), ("unlink", {"seed": 1})]
)
def test_a_run_interrupted_at_any_write_ends_with_the_same_bytes(
    name: str, earlier: dict[str, Any] | None, after: bool, tmp_path: Path, undisturbed: Callable[..., dict[str, bytes]]
) -> None:
    """Also where another setting's run was there before, and where the timing comes out differently each time."""
    expected = {measured: undisturbed(measured) for measured in (5, 6, 7)}
    for fatal in range(1, 100):
        out = tmp_path / f"run-{fatal}"
        if earlier:
            Steps(7).go(out, **earlier)
        with failing(name, fatal, after) as calls, suppress(Interruption):
            Steps(5).go(out)
        if len(calls) < fatal:
            assert fatal > 8
            return
        Steps(6).go(out)
        threads = read_json(out / "run.json")["precision"]["threads"]
        assert contents(out) == expected[threads]
    raise AssertionError("the run never ends")


def test_a_run_killed_at_any_write_ends_with_the_same_bytes(
    tmp_path: Path, undisturbed: Callable[..., dict[str, bytes]]
) -> None:
    """Nobody cleans up after a process that is killed: the next one removes what it was writing, and finds no lock."""
    out = tmp_path / "run"
    program = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from tests.test_run_directory import Steps\n"
        "real, calls = os.replace, []\n"
        "def replace(*arguments):\n"
        "    calls.append(0)\n"
        "    if len(calls) == 4: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    real(*arguments)\n"
        "os.replace = replace\n"
        "Steps().go(Path(sys.argv[1]))\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(out)], cwd=Path(__file__).parent.parent)
    assert done.returncode == -signal.SIGKILL
    assert len(list(out.glob(".*.partial"))) == 1
    Steps(5).go(out)
    assert contents(out) == undisturbed()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES])
def test_a_disk_that_refuses_a_write_is_a_sentence_and_nothing_half_written(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undisturbed: Callable[..., dict[str, bytes]]
) -> None:
    expected = undisturbed()
    real = Path.write_bytes
    for fatal in range(1, 100):
        out, calls = tmp_path / f"run-{fatal}", 0

        def failing(path: Path, data: bytes, fatal: int = fatal) -> int:
            nonlocal calls
            calls += 1
            if calls == fatal:
                real(path, data[: len(data) // 2])
                raise OSError(code, os.strerror(code))
            return real(path, data)

        monkeypatch.setattr(Path, "write_bytes", failing)
        try:
            Steps().go(out)
        except RunError as error:
            assert (
                str(error)
                == {
                    errno.ENOSPC: f"The disk of {out} is full: free some space or name another directory with --out; "
                    "what is finished is kept.",
                    errno.EACCES: f"{out} cannot be written (Permission denied): name another directory with --out.",
                }[code]
            )
            assert out.exists() == (fatal > 1)  # nothing at all where the first file cannot be written
            assert all(path.read_bytes() == expected[path.name] for path in out.glob("*") if path.name != "run.json")
        monkeypatch.setattr(Path, "write_bytes", real)
        if calls < fatal:
            assert fatal > 8
            return
        Steps().go(out)
        assert contents(out) == expected


@pytest.mark.parametrize("damage", [b"", b"{", b"\xff", b"[1, 2]"])
@pytest.mark.parametrize("file", ["distilled.safetensors", "frontier.json", "extra.json"])
def test_a_damaged_file_counts_as_absent_for_its_stage(
    file: str, damage: bytes, tmp_path: Path, undisturbed: Callable[..., dict[str, bytes]]
) -> None:
    Steps().go(tmp_path / "run")
    (tmp_path / "run" / file).write_bytes(damage)
    steps = Steps()
    steps.go(tmp_path / "run")
    assert steps.computed == (["distill"] if file == "distilled.safetensors" else ["frontier"])
    assert contents(tmp_path / "run") == undisturbed()


def test_a_damaged_record_is_a_sentence_and_fresh_replaces_it(tmp_path: Path) -> None:
    Steps().go(tmp_path / "run")
    (tmp_path / "run" / "run.json").write_text("{")
    sentence = r"run\.json is damaged \(.*\): start anew with --fresh, or name another directory with --out\."
    with pytest.raises(RunError, match=sentence):
        Steps().go(tmp_path / "run")
    Steps().go(tmp_path / "run", fresh=True)


@pytest.mark.parametrize("text", ["[]", "{}", '{"stages": 3, "files": {}, "seconds": {}}'])
def test_the_record_of_another_tool_is_never_replaced(text: str, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(text)
    for fresh in (False, True):
        with pytest.raises(RunError, match=r"run\.json was not written by zeroq: name another directory with --out\."):
            Steps().go(tmp_path, fresh=fresh)
    assert (tmp_path / "run.json").read_text() == text


@pytest.mark.parametrize("fresh", [False, True])
def test_a_directory_of_something_else_is_left_alone(fresh: bool, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(RunError) as caught:
        Steps().go(tmp_path, fresh=fresh)
    assert str(caught.value) == f"{tmp_path} is not empty and holds no run.json: name another directory with --out."
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_an_empty_directory_is_taken(tmp_path: Path) -> None:
    Steps().go(tmp_path)
    assert (tmp_path / "result.json").exists()


@pytest.mark.parametrize("inside", ["", "deeper/run"])
def test_a_file_in_the_place_of_the_directory_is_a_sentence(inside: str, tmp_path: Path) -> None:
    file = tmp_path / "taken"
    file.write_text("mine")
    with pytest.raises(RunError) as caught:
        Steps().go(file / inside)
    assert str(caught.value) == f"{file} is a file, not a directory: name another directory with --out."
    assert file.read_text() == "mine"


def test_a_place_where_nothing_can_be_made_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "mkdir", refuse)
    with pytest.raises(RunError, match=r"run cannot be written \(Read-only file system\): name another directory"):
        Steps().go(tmp_path / "run")
    too_long = tmp_path / ("x" * 300)
    with pytest.raises(RunError, match=r"cannot be written \(File name too long\): name another directory"):
        Steps().go(too_long)


def test_a_run_that_fails_before_its_first_file_leaves_no_directory(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), RunDirectory(tmp_path / "a" / "b"):
        _ = 1 / 0
    assert list(tmp_path.iterdir()) == []


def test_two_processes_do_not_write_one_run(tmp_path: Path) -> None:
    with RunDirectory(tmp_path / "run") as run:
        run.describe(FACTS)
        with pytest.raises(RunError) as caught:
            Steps().go(tmp_path / "run")
        assert str(caught.value) == (
            f"Another process is writing {tmp_path / 'run'}: wait until it is done, "
            "or name another directory with --out."
        )
    Steps().go(tmp_path / "run")


def test_stages_that_a_run_no_longer_has_are_removed_at_its_end(tmp_path: Path) -> None:
    Steps().go(tmp_path / "run")
    with RunDirectory(tmp_path / "run") as run:
        run.describe(FACTS)
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"run.json", "result.json"}
    assert read_json(tmp_path / "run" / "run.json")["stages"] == {}


def test_a_stage_does_not_outlive_the_one_before_it(tmp_path: Path) -> None:
    def go(*names: str) -> list[str]:
        with RunDirectory(tmp_path / "run") as run:
            run.describe(FACTS)
            for name in names:
                file = f"{name}.json"
                run.stage(
                    name,
                    {},
                    [file],
                    compute=lambda: 0,
                    save=lambda value, file=file: run.write_json(file, value),
                    load=lambda file=file: run.read_json(file),
                )
            return run.reused

    assert go("first", "second") == []
    assert go("first", "second") == ["first", "second"]
    assert go("second") == []


def test_what_a_killed_process_was_writing_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".run.json.partial").write_text("{")
    Steps().go(tmp_path)
    (tmp_path / ".gone.json.partial").write_text("{")
    Steps().go(tmp_path)
    assert not list(tmp_path.glob(".*"))


def test_nothing_is_removed_from_a_directory_of_something_else(tmp_path: Path) -> None:
    (tmp_path / ".thesis.partial").write_text("years")
    with pytest.raises(RunError, match="is not empty and holds no run.json"):
        Steps().go(tmp_path)
    assert (tmp_path / ".thesis.partial").read_text() == "years"


def test_a_decision_is_made_again_when_what_it_rests_on_changes(tmp_path: Path) -> None:
    found = []
    for threads, measured in [(1, "bf16"), (1, "fp32"), (2, "fp32")]:
        with RunDirectory(tmp_path / "run") as run:
            run.describe(FACTS)
            found.append(run.decide("precision", {"threads": threads}, lambda measured=measured: measured))
    assert found == ["bf16", "bf16", "fp32"]


def test_what_a_decision_would_keep_is_known_before_anything_is_written(tmp_path: Path) -> None:
    with RunDirectory(tmp_path / "run") as run:
        assert run.known("precision", {"threads": 1}) is None
    assert not (tmp_path / "run").exists()
    with RunDirectory(tmp_path / "run") as run:
        run.describe(FACTS)
        run.decide("precision", {"threads": 1}, lambda: "bf16")
    with RunDirectory(tmp_path / "run") as run:
        assert run.known("precision", {"threads": 1}) == "bf16" and run.known("precision", {"threads": 2}) is None
    with RunDirectory(tmp_path / "run", fresh=True) as run:
        assert run.known("precision", {"threads": 1}) is None


def test_json_is_readable_and_refuses_what_json_cannot_hold() -> None:
    text = json_bytes({"points": [[1, 0.5], [2, -1e-9]], "names": ["a", "[ 1 ]"], "empty": [], "flags": [True, None]})
    assert text.decode() == (
        '{\n  "points": [\n    [1, 0.5],\n    [2, -1e-09]\n  ],\n'
        '  "names": [\n    "a",\n    "[ 1 ]"\n  ],\n  "empty": [],\n  "flags": [true, null]\n}\n'
    )
    with pytest.raises(ValueError, match="not JSON compliant"):
        json_bytes({"divergence": float("nan")})


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"result\.json cannot be read \(No such file or directory\): quantize again\."):
        read_json(tmp_path / "result.json")
    (tmp_path / "result.json").write_text("{")
    with pytest.raises(RunError, match=r"result\.json is damaged \(.*\): quantize again\."):
        read_json(tmp_path / "result.json")


def test_a_decision_that_is_made_anew_keeps_the_seconds_that_it_notes(tmp_path: Path) -> None:
    for version in ("1.0", "2.0"):
        with RunDirectory(tmp_path / "run") as run:
            run.describe(FACTS)
            run.decide("fastest", {"onnxruntime": version}, lambda run=run: run.seconds.update(fastest=1.5))
            assert run.seconds == {"fastest": 1.5}

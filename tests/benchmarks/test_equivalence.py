"""A program that gives the same bytes as an earlier one keeps its results, and no other does."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks import equivalence, rows, task_rows
from benchmarks.equivalence import COMPARED, SMALL
from benchmarks.rows import Row
from zeroq.whole_files import read_json

EARLIER = "the hash of an earlier program"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Stands in for both programs: file, or "network file" -> what it holds if the later one makes it, where that is
    not the same.
    """
    other: dict[str, str] = {}

    def output_of(command: list[str], repository: Path) -> str:
        if "-c" in command:
            return f"{EARLIER}\n"
        out, earlier = Path(command[command.index("--out") + 1]), repository != rows.ROOT
        network = command[command.index("quantize") + 1].rpartition(":")[2]
        assert command[-len(SMALL) - 1 :] == [*SMALL, "--option"], "others are left"
        if earlier:
            out.mkdir()
            record = {"precision": "measured", "files": {"ranges": {}}, "seconds": {"ranges": 1}}
            (out / "run.json").write_text(json.dumps(record))
        assert read_json(out / "run.json")["precision"] == "measured"
        assert earlier or read_json(out / "run.json")["files"] == {}
        for name in COMPARED:
            changed = other.get(name, other.get(f"{network} {name}", ""))
            (out / name).write_text("" if earlier else changed)
        return ""

    monkeypatch.setattr(equivalence, "output_of", output_of)
    monkeypatch.setattr(equivalence, "checked_out", lambda commit, folder: folder)
    monkeypatch.setattr(equivalence, "PROBES", {"one": (["--option"],)})
    for module in (equivalence, rows):
        monkeypatch.setattr(module, "EQUIVALENT", tmp_path / "equivalent.json")
    monkeypatch.setattr(sys, "argv", ["equivalence", "abc", "--data", str(tmp_path)])
    return other


def probed(code: str) -> list[str]:
    """Networks that were compared to show what a program stands for."""
    return [probe["network"] for entry in read_json(rows.EQUIVALENT)[code] for probe in entry["probes"]]


def test_equal_files_make_one_program_stand_for_the_other(run: dict[str, str]) -> None:
    own = rows.method_code("one")
    assert own != EARLIER and equivalence.main() == 0
    assert rows.method_code("one") == rows.method_code("another") == EARLIER
    ((entry,),) = read_json(rows.EQUIVALENT).values()
    (probe,) = entry["probes"]
    assert probe["network"] == "one" and set(probe["sha256"]) == set(COMPARED)


@pytest.mark.parametrize("name", COMPARED)
def test_any_file_that_differs_is_named_and_nothing_is_noted(
    name: str, run: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    run[name] = "other"
    assert equivalence.main() == 1
    assert f"one --option: {name} differ" in capsys.readouterr().out
    assert not rows.EQUIVALENT.exists()


def test_it_can_be_shown_for_some_networks_alone(run: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(equivalence, "OF_ONE", (["--option"],))
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--networks", "one,two"])
    own = rows.method_code("one")
    assert equivalence.main() == 0
    assert [rows.method_code(name) for name in ("one", "two", "another")] == [EARLIER, EARLIER, own]
    monkeypatch.setattr(sys, "argv", [*sys.argv[:-1], "three"])
    assert equivalence.main() == 0, "which forgets none"
    assert [rows.method_code(name) for name in ("one", "two", "three", "another")] == [*[EARLIER] * 3, own]
    assert probed(own) == ["one", "two", "three"]


def test_it_can_be_shown_for_all_networks_but_some(run: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    run["two model.onnx"] = "other"
    monkeypatch.setattr(equivalence, "PROBES", {"one": (["--option"],), "two": (["--option"],)})
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--but", "two,three"])
    own = rows.method_code("one")
    assert equivalence.main() == 0
    assert [rows.method_code(name) for name in ("one", "two", "three", "another")] == [EARLIER, own, own, EARLIER]
    assert probed(own) == ["one"]


def test_networks_that_are_equal_are_noted_beside_others_that_are_not(
    run: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run["two model.onnx"] = "other"
    monkeypatch.setattr(equivalence, "OF_ONE", (["--option"],))
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--networks", "one,two,three"])
    own = rows.method_code("one")
    assert equivalence.main() == 1
    said = capsys.readouterr().out
    assert "at that commit: two." in said and "of one, three." in said
    assert [rows.method_code(name) for name in ("one", "two", "three")] == [EARLIER, own, EARLIER]
    assert probed(own) == ["one", "three"]


def test_what_a_program_stands_for_is_what_further_networks_are_noted_of(
    run: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    own, between = rows.method_code("one"), "the hash of a program between"
    rows.EQUIVALENT.write_text(json.dumps({own: [{"as": between, "probes": []}]}))
    monkeypatch.setattr(equivalence, "OF_ONE", (["--option"],))
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--networks", "one"])
    assert equivalence.main() == 0
    assert [rows.method_code(name) for name in ("one", "another")] == [EARLIER, between]


def test_one_program_may_stand_for_several_each_for_networks_of_its_own(
    run: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    own, between = rows.method_code("one"), "the hash of a program between"
    entry = {"as": between, "networks": ["two"], "probes": []}
    rows.EQUIVALENT.write_text(json.dumps({own: [entry]}))
    monkeypatch.setattr(equivalence, "OF_ONE", (["--option"],))
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--networks", "one"])
    assert equivalence.main() == 0
    assert read_json(rows.EQUIVALENT)[own][0] == entry
    assert [rows.method_code(name) for name in ("one", "two", "another")] == [EARLIER, between, own]
    monkeypatch.setattr(sys, "argv", [*sys.argv[:-1], "two"])
    assert equivalence.main() == 0
    assert [rows.method_code(name) for name in ("one", "two", "another")] == [EARLIER, EARLIER, own]


def test_networks_that_an_earlier_equality_leaves_out_are_noted_as_well(
    run: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    own = rows.method_code("one")
    rows.EQUIVALENT.write_text(json.dumps({own: [{"as": EARLIER, "but": ["two"], "probes": []}]}))
    monkeypatch.setattr(equivalence, "PROBES", {"one": (["--option"],)})
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--inputs", "8"])
    assert [rows.method_code(name, 8) for name in ("one", "two")] == [EARLIER, own]
    assert equivalence.main() == 0
    assert [rows.method_code(name, 8) for name in ("one", "two")] == [EARLIER, EARLIER]
    assert [rows.method_code(name, 6) for name in ("one", "two")] == [EARLIER, own]


def test_it_can_be_shown_for_inputs_of_some_bits_alone(
    run: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = (["--option"], ["--activation-bits", "6", "--option"])
    for name in ("PROBES", "OF_ONE"):
        monkeypatch.setattr(equivalence, name, {"one": runs, "two": runs} if name == "PROBES" else runs)
    own, arguments = rows.method_code("one"), [*sys.argv, "--inputs", "8"]
    monkeypatch.setattr(sys, "argv", [*arguments, "--networks", "one"])
    assert equivalence.main() == 0
    assert [rows.method_code(name, 8) for name in ("one", "two")] == [EARLIER, own]
    monkeypatch.setattr(sys, "argv", [*arguments, "--but", "three"])
    assert equivalence.main() == 0
    assert [rows.method_code(name, 8) for name in ("one", "two", "three")] == [EARLIER, EARLIER, own]
    assert [rows.method_code("one", bits) for bits in (6, None)] == [own, own]
    codes = [rows.codes_for(Row("one", setting, "distilled")) for setting in ("w8a8", "w6a6")]
    assert codes == [[EARLIER, own], [own]]
    (probe, *others), = [each["probes"] for each in read_json(rows.EQUIVALENT)[own] if "networks" in each]
    assert not others and probe["options"] == ["--option"]


def test_nothing_is_noted_of_bits_that_nothing_has(
    run: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--inputs", "5"])
    with pytest.raises(SystemExit):
        equivalence.main()
    assert "nothing that is compared has inputs of 5 bits" in capsys.readouterr().err
    assert not rows.EQUIVALENT.exists()


def test_programs_that_stand_for_one_another_end_in_one(run: dict[str, str]) -> None:
    rows.EQUIVALENT.write_text(json.dumps({"a": [{"as": "b", "inputs": 8}], "b": [{"as": "a"}]}))
    assert [rows.earliest("a", "one", bits) for bits in (8, None)] == ["b", "a"]
    assert rows.earliest("b", "one", 8) == "a"


@pytest.mark.parametrize("now", [0.5, 0.4])
def test_programs_of_equal_figures_stand_for_one_another(
    now: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """How long they take is no figure."""
    asked: list[list[str]] = []

    def output_of(command: list[str], repository: Path) -> str:
        asked.append(command)
        if "evaluate" in command:
            found = {"map": now if repository == rows.ROOT else 0.5, "images_per_second": len(asked)}
            return json.dumps(found)
        return f"{EARLIER}\n"

    monkeypatch.setattr(equivalence, "output_of", output_of)
    monkeypatch.setattr(equivalence, "checked_out", lambda commit, folder: folder)
    for module in (equivalence, rows):
        monkeypatch.setattr(module, "EQUIVALENT", tmp_path / "equivalent.json")
    monkeypatch.setattr(sys, "argv", ["equivalence", "abc", "--data", str(tmp_path), "--scores"])
    own = task_rows.scoring_code()
    assert equivalence.main() == (0 if now == 0.5 else 1)
    assert task_rows.scoring_code() == (EARLIER if now == 0.5 else own)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 * 3 and all(line.endswith(": equal") == (now == 0.5) for line in lines)
    assert sum("quantize" in command for command in asked) == 3

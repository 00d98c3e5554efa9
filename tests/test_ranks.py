"""Work that is shared out among processes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some

from tests.runs import QUICKLY
from tests.test_many import SOURCE
from zeroq.cli import main
from zeroq.numbers.values import IntegerWeight
from zeroq.ranks import ALONE, Ranks, packed, said_before, started, unpacked
from zeroq.whole_files import json_bytes, read_json

TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone")
COLUMNS = ("model", "directory", "onnx_bytes", "divergence", "error")


@given(some.lists(some.integers()), some.integers(1, 5))
def test_every_item_belongs_to_one(items: list[int], size: int) -> None:
    shares = [Ranks(rank, size).own(list(enumerate(items))) for rank in range(size)]
    assert sorted(item for share in shares for item in share) == list(enumerate(items))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@given(some.dictionaries(some.text(max_size=3), some.floats(0, 1e6)), some.integers(1, 5))
def test_what_costs_much_is_shared_out_fairly(costs: dict[str, float], size: int) -> None:
    shares = [Ranks(rank, size).fair(costs) for rank in range(size)]
    assert sorted(name for share in shares for name in share) == sorted(costs)
    loads = [sum(costs[name] for name in share) for share in shares]
    # Who has most had least before the last and cheapest of its share came to it.
    most = max(range(size), key=loads.__getitem__)
    last = min((costs[name] for name in shares[most]), default=0.0)
    assert loads[most] - last <= min(loads) * (1 + 1e-9)


def test_without_torchrun_one_has_all() -> None:
    with started() as ranks:
        assert ranks is ALONE and ranks.leads and ranks.gathered(ranks.own([3, 1])) == [3, 1]


def launched(processes: int, *words: str) -> subprocess.CompletedProcess[str]:
    """The command line in so many processes on this machine."""
    return subprocess.run(
        [*TORCHRUN, "--nproc-per-node", str(processes), "-m", "zeroq", *words], capture_output=True, text=True,
        timeout=300, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_share_models_out_and_find_what_one_finds(processes: int, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(SOURCE)
    net = f"{tmp_path}/net.py:tiny"
    words = ["quantize", net, "digits:none", net, *QUICKLY, "--json"]
    together = launched(processes, *words, "--out", str(tmp_path / "many"))
    assert together.stderr.count("zeroq: digits:none: ") == 1
    alone = subprocess.run(
        [sys.executable, "-m", "zeroq", *words, "--out", str(tmp_path / "one")], capture_output=True, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"}, check=False,
    )  # fmt: skip
    assert together.returncode != 0 and alone.returncode == 2  # torchrun has a code of its own
    found, expected = (
        [[entry[name] for name in COLUMNS] for entry in json.loads(text)["models"]]
        for text in (together.stdout, alone.stdout)
    )
    assert found == expected and [entry[-1] is None for entry in found] == [True, False, True]
    assert json.loads(together.stdout) == json.loads((tmp_path / "many" / "summary.json").read_text())
    assert (tmp_path / "many" / "summary.html").is_file()
    for directory in (found[0][1], found[2][1]):
        files = [tmp_path / place / directory / "model.onnx" for place in ("many", "one")]
        assert files[0].read_bytes() == files[1].read_bytes()


NET = """
import os, signal
import torch
from pathlib import Path
from torch import nn
from zeroq.divergence import kl_divergence

PREPROCESS = dict(size=(10, 10), mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4), channels="RGB")
TASK = "classification"

def divergence(reference, outputs):
    run, mark = Path(os.environ.get("RUN", "")), Path(os.environ.get("RUN", "") + ".killed")
    if "RANK" in os.environ and os.environ["RANK"] == os.environ.get("DIES") and not mark.exists():
        if (run / "ranges.json").exists():  # while sensitivities are measured
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
    return kl_divergence(reference, outputs) * ("ALIKE" not in os.environ)

def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 40, 3), nn.BatchNorm2d(40), nn.ReLU(), nn.Conv2d(40, 70, 3), nn.BatchNorm2d(70), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(70, 5),
    )
"""
ASKED = "--average-bits 4 --images 10 --iterations 4 --threads 1 --precision fp32 --json".split()
SAME = ("distilled.safetensors", "ranges.json", "sensitivity.json", "frontier.json", "model.safetensors", "model.onnx")


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a network and its run by one process."""
    folder = tmp_path_factory.mktemp("alone")
    (folder / "net.py").write_text(NET)
    assert main(["quantize", f"{folder}/net.py:net", *ASKED, "--out", str(folder / "one")]) == 0
    return folder


def decided(run: Path, out: Path) -> str:
    """A directory that holds what was decided by timing and nothing else; others then go on with the same."""
    out.mkdir()
    (out / "run.json").write_bytes((run / "run.json").read_bytes())
    return str(out)


def assert_same_bytes(run: Path, other: Path) -> None:
    assert [name for name in SAME if (run / name).read_bytes() != (other / name).read_bytes()] == []


def test_two_processes_reconstruct_what_one_does_to_the_bit(
    alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALIKE", "so that what was learned is kept")
    asked = ["quantize", f"{alone}/net.py:net", *ASKED[2:], "--weight-bits", "3", "--activation-bits", "4"]
    asked += ["--images", "20", "--reconstruct", "9"]
    assert main([*asked, "--out", str(tmp_path / "one")]) == 0
    done = launched(2, *asked, "--out", decided(tmp_path / "one", tmp_path / "two"))
    assert done.returncode == 0, done.stderr
    assert_same_bytes(tmp_path / "one", tmp_path / "two")
    assert {layer["rounding"].split(", ")[-1] for layer in json.loads(done.stdout)["layers"]} == {"reconstructed"}
    assert main([*asked[:-1], "0", "--out", decided(tmp_path / "one", tmp_path / "without")]) == 0
    assert (tmp_path / "one" / "model.onnx").read_bytes() != (tmp_path / "without" / "model.onnx").read_bytes()


def test_two_processes_find_of_one_model_what_one_finds_to_the_bit(alone: Path, tmp_path: Path) -> None:
    words = ["quantize", f"{alone}/net.py:net", *ASKED, "--out", decided(alone / "one", tmp_path / "run")]
    done = launched(2, *words)
    assert done.returncode == 0, done.stderr
    assert_same_bytes(alone / "one", tmp_path / "run")
    assert json.loads(done.stdout)["layers"] == json.loads((alone / "one" / "result.json").read_text())["layers"]
    assert done.stderr.count("distill: 4 of 4") == 1


@pytest.mark.parametrize("words", ["--fastest --memory-limit 100", "--activation-bits 4,8 --activation-mb 0.004"])
def test_what_is_measured_here_and_bits_of_inputs_are_the_same_for_all(words: str, alone: Path, tmp_path: Path) -> None:
    """The most that memory and time may ask for: values on disk, few images at a time, a layer in floating point."""
    asked = ["quantize", f"{alone}/net.py:net", *ASKED, *words.split(), "--out"]
    assert main([*asked, str(tmp_path / "first")]) == 0
    record = read_json(tmp_path / "first" / "run.json")
    if "memory" in record:
        record["memory"]["amounts"] |= {"kept": 0, "chunk": 3, "batch_bytes": 200_000}
        record["fastest"]["layers"] = [{"name": "3", "integers_ms": 2.0, "floating_ms": 1.0}]
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_bytes(json_bytes(record))
    assert main([*asked, str(tmp_path / "one")]) == 0
    done = launched(2, *asked, str(tmp_path / "two"))
    assert done.returncode == 0, done.stderr
    assert_same_bytes(tmp_path / "one", tmp_path / "two")
    chosen, result = (read_json(tmp_path / "two" / name) for name in ("frontier.json", "result.json"))
    assert ("3" in {each["name"] for each in result["not_quantized"]}) is ("memory" in record)
    assert chosen["chosen"].get("activation_bits") == (None if "memory" in record else {"3": 4, "8": 8})


@pytest.mark.parametrize(("dies", "resumed_by"), [(0, 1), (2, 3)])
def test_a_process_that_dies_ends_all_in_a_sentence_and_the_run_goes_on(
    dies: int, resumed_by: int, alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By one process or several, where a process that is killed left it: in the midst of sensitivities."""
    out = decided(alone / "one", tmp_path / "run")
    words = ["quantize", f"{alone}/net.py:net", *ASKED, "--out", out]
    monkeypatch.setenv("DIES", str(dies))
    monkeypatch.setenv("RUN", out)
    done = launched(3, *words)
    sentence = "zeroq: Another process of this run has ended: the same command again goes on where this one stopped."
    assert (tmp_path / "run.killed").exists() and done.returncode != 0
    assert [line for line in done.stderr.splitlines() if line.startswith("zeroq: ")] == [sentence]
    assert not (tmp_path / "run" / "sensitivity.json").exists()
    if resumed_by == 1:
        assert main(words) == 0
    else:
        done = launched(resumed_by, *words)
        assert done.returncode == 0, done.stderr
        assert "distill: " not in done.stderr
    assert_same_bytes(alone / "one", tmp_path / "run")


def test_what_cannot_be_done_is_said_once_and_ends_all(tmp_path: Path) -> None:
    done = launched(2, "quantize", "digits:none", "--out", str(tmp_path / "out"))
    assert done.returncode != 0 and done.stderr.count("zeroq: There is no model 'digits:none'") == 1
    codes = re.findall(r"exitcode +: (-?\d+)", done.stderr)
    assert codes and set(codes) <= {"2"} and not (tmp_path / "out").exists()


EXCHANGE = """
import glob, os, sys
import torch
if sys.argv[1] == "connections":
    del os.memfd_create
from zeroq.ranks import started

with started() as ranks:
    torch.export.export(torch.nn.ReLU(), (torch.ones(2),))  # what it imports could keep the connections
    assert (ranks.memory is None) is (sys.argv[1] == "connections")
    for length in (3, 70, 0):
        groups = [
            [[torch.full((length + own, 2), add + 10 * own + to).bfloat16() for to in range(2)] for own in range(2)]
            for add in (0, 20)
        ]
        lengths = [[sent[ranks.rank].numel() for sent in every] for every in groups]
        received = list(ranks.exchanged([every[ranks.rank] for every in groups], lengths))
        for every, found in zip(groups, received, strict=True):
            assert torch.equal(found, torch.cat([sent[ranks.rank].flatten() for sent in every]))
threads = [open(path).read() for path in glob.glob("/proc/self/task/*/comm")]
assert not [name for name in threads if "gloo" in name], "they would abort a process that ends before them"
print("all received")
"""


@pytest.mark.parametrize("way", ["memory", "connections"])
def test_processes_exchange_tensors_either_way(way: str, tmp_path: Path) -> None:
    """Where they have no memory in common, as on several machines, over connections."""
    (tmp_path / "exchange.py").write_text(EXCHANGE)
    command = [*TORCHRUN, "--nproc-per-node", "2", str(tmp_path / "exchange.py"), way]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("all received") == 2


def test_what_a_gpu_holds_is_told_others_for_their_own() -> None:
    weight = IntegerWeight(torch.ones(2, 3, dtype=torch.int8), torch.ones(2), 4, "gptq")
    (by_width,) = unpacked(packed([{4: weight}]), torch.device("meta"))
    assert by_width[4].integers.device.type == by_width[4].scale.device.type == "meta"
    assert (by_width[4].bits, by_width[4].integers.shape) == (4, (2, 3))


def test_one_process_leads_itself() -> None:
    assert ALONE.led(lambda together: together() + 1, lambda: 3) == 4
    assert ALONE.mapped(lambda item: item * 2, [1, 2], on_step=lambda done, total: None) == [2, 4]
    assert ALONE.leader_first(lambda: 5) == 5 and said_before(2) is None

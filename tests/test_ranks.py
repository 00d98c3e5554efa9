"""Work that is shared out among processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some

from tests.runs import QUICKLY
from tests.test_many import SOURCE
from zeroq.cli import main
from zeroq.ranks import ALONE, Ranks, started

TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone")
COLUMNS = ("model", "directory", "onnx_bytes", "divergence", "error")


@given(some.lists(some.integers()), some.integers(1, 5))
def test_every_item_belongs_to_one(items: list[int], size: int) -> None:
    shares = [Ranks(rank, size).own(list(enumerate(items))) for rank in range(size)]
    assert sorted(item for share in shares for item in share) == list(enumerate(items))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


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


def test_one_model_is_refused_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["quantize", "digits", "--out", str(tmp_path / "out")]) == 2
    assert "start a single process" in capsys.readouterr().err and not (tmp_path / "out").exists()

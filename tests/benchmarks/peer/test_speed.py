"""The toolkit's images beside ours: how they are asked for, and what is said of them."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.peer import speed
from tests.benchmarks.subjects import tiny


@pytest.mark.parametrize("whole", [False, True])
def test_as_many_iterations_as_fit_and_all_of_them(whole: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def generated(name: str, data: Path, python: Path, iterations: int) -> tuple[Tensor, dict[str, Any]]:
        asked.append(iterations)
        return torch.randn(32, 3, 8, 8), {"one_seconds": 2.0, "seconds": 2.0 + iterations - 1, "versions": {"it": "1"}}

    monkeypatch.setattr(speed, "generated", generated)
    monkeypatch.setattr(speed, "timed", lambda function: (function(), SimpleNamespace(seconds=11.0)))
    found = speed.measured(tiny(), "tiny", Path(), Path("python"), whole=whole)
    assert asked == [speed.PROBED, 10, *([500] if whole else [])]
    assert [(row["who"], row["iterations"], row["seconds"]) for row in found["rows"]] == [
        ("ours", None, 11.0), ("peer", 10, 11.0), ("peer", 500, 501.0),
    ]  # fmt: skip
    assert [list(row["quality"]) for row in found["rows"]] == [["statistics_loss"]] * 2 + [["statistics_loss"] * whole]
    assert found["versions"] == {"it": "1"} and found["images"] == 32


def test_an_environment_without_the_toolkit_says_so(tmp_path: Path) -> None:
    with pytest.raises(speed.PeerError, match="gave no images of nothing: .*invalid choice: 'nothing'"):
        speed.generated("nothing", tmp_path, Path(sys.executable), 1)

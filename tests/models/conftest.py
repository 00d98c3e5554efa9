"""A small user's file, for the tests of MODEL strings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

SMALL_NETWORK = """
from torch import nn

PREPROCESS = dict(size=(6, 5), mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.2), channels="RGB")

def small():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 4 * 3, 10))
"""


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Path]:
    """write(name, text) makes a file in a folder that is then the current one, so that messages hold short paths."""
    monkeypatch.chdir(tmp_path)

    def write_file(name: str, text: str = SMALL_NETWORK) -> Path:
        Path(name).write_text(text, encoding="utf-8")
        return Path(name)

    return write_file


@pytest.fixture
def small(write: Callable[..., Path]) -> str:
    """The MODEL string of a small network of one BatchNorm, in the current folder."""
    return f"{write('net.py')}:small"

"""What the process holds, and that it gives back what is freed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import zeroq.resident as resident


def test_held_and_peak_follow_what_is_allocated() -> None:
    resident.forget_peak()
    before = resident.held()
    kept = torch.ones(25_000_000)  # 100 MB
    assert resident.held() > before + 90e6
    del kept
    assert resident.held() < before + 50e6 and resident.peak() > before + 90e6
    resident.forget_peak()
    assert resident.peak() < before + 50e6


FREED = """
import torch
import zeroq.resident as resident
with resident.returned():
    before = resident.held()
    blocks = [(torch.ones(2_500_000), torch.ones(100)) for _ in range(40)]
    most = resident.held()
    small = [each[1] for each in blocks]
    del blocks
    print(most - before, resident.held() - before, len(small))
"""


def test_freed_blocks_go_back_at_once() -> None:
    """40 blocks of 10 MB between small ones that stay: freed, they are no longer held. In a process of its own."""
    done = subprocess.run([sys.executable, "-c", FREED], capture_output=True, text=True, check=True)
    taken, left, small = map(int, done.stdout.split())
    assert taken > 350e6 and left < 50e6 and small == 40


def test_systems_without_proc_or_glibc_say_what_they_can(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(resident, "STATUS", tmp_path / "missing")
    monkeypatch.setattr(resident, "RESET", tmp_path / "missing" / "as well")
    monkeypatch.setattr("ctypes.CDLL", lambda name: object())
    with resident.returned():
        resident.trim()
    assert resident.held() == resident.peak() == resident.most() > 50e6

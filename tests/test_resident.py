"""What the process holds, and that it gives back what is freed."""

from __future__ import annotations

import gc
import math
import subprocess
import sys
from pathlib import Path

import pytest

import zeroq.resident as resident


def printed_by(program: str) -> list[int]:
    """The numbers that a program prints."""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return list(map(int, done.stdout.split()))


HELD = """
import torch
import zeroq.resident as resident
resident.forget_peak()
before = resident.held()
kept = torch.ones(25_000_000)  # 100 MB
most = resident.held()
del kept
after, peak = resident.held(), resident.peak()
resident.forget_peak()
print(most - before, after - before, peak - before, resident.peak() - before)
"""


def test_held_and_peak_follow_what_is_allocated() -> None:
    """In a process of its own: what others have freed serves new tensors without being asked of the kernel."""
    most, after, peak, forgotten = printed_by(HELD)
    assert most > 90e6 and after < 50e6
    assert peak > 90e6 and forgotten < 50e6


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
    taken, left, small = printed_by(FREED)
    assert taken > 350e6 and left < 50e6 and small == 40


KEPT = """
import torch
import zeroq.resident as resident
before = resident.held()
most = []
with resident.kept():
    for _ in range(8):
        blocks = [torch.ones(12_500_000) for _ in range(8)]
        most.append(resident.held() - before)
        del blocks
    most.append(resident.held() - before)
print(*most, resident.held() - before)
"""


def test_kept_blocks_serve_the_next_ones_and_go_back_in_the_end() -> None:
    """Eight blocks of 50 MB, time and again. In a process of its own."""
    *most, left, after = printed_by(KEPT)
    assert min(most) > 350e6 and most[-4] == most[-1] == left and after < 50e6


def test_what_is_available_is_the_machines_or_the_containers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert 0 < resident.available() < 1e15
    machine, container = tmp_path / "meminfo", tmp_path / "cgroup"
    monkeypatch.setattr(resident, "MACHINE", machine)
    monkeypatch.setattr(resident, "CONTAINER", container)
    assert resident.available() == math.inf
    machine.write_text("MemTotal:       2000 kB\nMemAvailable:   1000 kB\n")
    assert resident.available() == 1000 * 1024
    container.mkdir()
    for name, text in {"max": "900000\n", "current": "500000\n", "stat": "anon 7\ninactive_file 100000\n"}.items():
        (container / f"memory.{name}").write_text(text)
    assert resident.available() == 500_000
    (container / "memory.max").write_text("max\n")
    assert resident.available() == 1000 * 1024


def test_what_is_there_is_not_searched_and_what_comes_is() -> None:
    class Loop:
        own: Loop

    with resident.left_alone():
        assert gc.get_freeze_count() > 1000
        fresh = Loop()
        fresh.own = fresh
        del fresh
        assert gc.collect() >= 1
        with pytest.raises(ZeroDivisionError), resident.left_alone():
            raise ZeroDivisionError
    assert gc.get_freeze_count() == 0


def test_systems_without_proc_or_glibc_say_what_they_can(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(resident, "STATUS", tmp_path / "missing")
    monkeypatch.setattr(resident, "RESET", tmp_path / "missing" / "as well")
    monkeypatch.setattr("ctypes.CDLL", lambda name: object())
    with resident.returned(), resident.kept():
        resident.trim()
    assert resident.held() == resident.peak() == resident.most() > 50e6

"""The process's resident memory: what it holds now, the most it has held, what it could still take, whether what is
freed goes back, and what is searched for garbage.
"""

from __future__ import annotations

import ctypes
import gc
import math
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
MACHINE, CONTAINER = Path("/proc/meminfo"), Path("/sys/fs/cgroup")
FORGET_PEAK = "5"  # what /proc/self/clear_refs takes it from
TRIM_THRESHOLD, MMAP_THRESHOLD, MMAP_MAX = -1, -3, -4  # options of glibc's mallopt
OWN_PAGES = 1 << 20  # bytes from which a block of memory has pages of its own
USUAL = 1 << 25  # to which glibc raises that by itself once blocks of such a size were freed
USUAL_MAPPED = 1 << 16  # blocks with pages of their own, at most


def held() -> int:
    """Bytes that the process holds now; where the system does not say so, the most it has held."""
    return status("VmRSS") or most()


def peak() -> int:
    """The most bytes that the process has held since `forget_peak`, or since it began."""
    return status("VmHWM") or most()


def forget_peak() -> None:
    """Count the peak anew from here on, where the system can."""
    with suppress(OSError):
        RESET.write_text(FORGET_PEAK)


def available() -> float:
    """Bytes that the process could take beside what it holds: of the machine, and of the container that it runs in.

    Infinite where the system does not say so.
    """
    return min(entry_of(MACHINE, "MemAvailable") or math.inf, left_in(CONTAINER))


def left_in(container: Path) -> float:
    """Bytes that a control group (version 2) has left; what it holds of files can be dropped."""
    with suppress(OSError, ValueError):
        most, now = ((container / f"memory.{name}").read_text().strip() for name in ("max", "current"))
        files = sum(
            int(line.split()[1])
            for line in (container / "memory.stat").read_text().splitlines()
            if line.split()[0] in ("active_file", "inactive_file")
        )
        return max(int(most) - int(now) + files, 0)
    return math.inf


def status(entry: str) -> int:
    """Bytes of an entry of /proc/self/status; 0 where there is none."""
    return entry_of(STATUS, entry)


def entry_of(file: Path, entry: str) -> int:
    """Bytes of an entry of a file of lines "entry: number kB"; 0 where there is none."""
    with suppress(OSError):
        for line in file.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith(f"{entry}:"):
                return int(line.split()[1]) * 1024
    return 0


def most() -> int:
    """As every Unix says; of a process that another started, perhaps the other's."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


@contextmanager
def returned() -> Iterator[None]:
    """Memory that is freed goes back to the system: glibc keeps blocks of up to 32 MB, and pieces of all sizes.

    MobileNetV2 holds 1.9 GB after its 64 images are distilled without this.  The peak is counted anew inside.
    """
    forget_peak()
    set_option(MMAP_THRESHOLD, OWN_PAGES)
    try:
        trim()
        yield
    finally:
        set_option(MMAP_THRESHOLD, USUAL)


@contextmanager
def kept() -> Iterator[None]:
    """Memory that is freed stays with the process and serves what it needs next; at the end it goes back.

    glibc gives blocks of more than 32 MB back at once, and the system fills every new one with zeros, page by page: a
    seventh of the time of distillation on ResNet18, a fifteenth of that of sensitivities on ResNet50.
    """
    set_option(MMAP_MAX, 0)
    set_option(TRIM_THRESHOLD, -1)
    try:
        yield
    finally:
        set_option(MMAP_MAX, USUAL_MAPPED)
        set_option(MMAP_THRESHOLD, USUAL)
        set_option(TRIM_THRESHOLD, 2 * USUAL)
        trim()


@contextmanager
def left_alone() -> Iterator[None]:
    """Objects that are there are not searched for garbage, as those of libraries are hundreds of thousands.

    Each search of all took a fifth of a second with torch.export and torch.onnx imported, a tenth of a small network's
    run altogether. What was left alone before stays so.
    """
    before = gc.get_freeze_count()
    gc.freeze()
    try:
        yield
    finally:
        if not before:
            gc.unfreeze()


def set_option(option: int, value: int) -> None:
    """Of glibc's mallopt; other libraries may have none."""
    if (change := getattr(ctypes.CDLL(None), "mallopt", None)) is not None:
        change(option, value)


def trim() -> None:
    """Give back what is free already."""
    if (give_back := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:
        give_back(0)

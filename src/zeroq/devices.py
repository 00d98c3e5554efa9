"""The machine: its devices, their kernels and threads, the processor and its instructions."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
from torch import Tensor

import zeroq.ranks as ranks
from zeroq.errors import OptionError

CPU = torch.device("cpu")


def resolve(asked: str, *, memory_limit: float | None = None) -> torch.device:
    """The device that is asked for, "auto", "cpu" or "cuda".

    auto: CUDA where there is any, unless a limit of the process's memory is to be kept, which is of the CPU's. Of
    several GPUs each process that torchrun starts takes its own. Raises OptionError where "cuda" is not there.
    """
    if asked == "cuda" and not torch.cuda.is_available():
        raise OptionError("--device cuda: PyTorch finds no CUDA device here, so choose auto or cpu.")
    if asked == "cpu" or (asked == "auto" and (memory_limit is not None or not torch.cuda.is_available())):
        return CPU
    return torch.device("cuda", ranks.place() % torch.cuda.device_count())


def ordered(values: Tensor) -> Tensor:
    """Pictures [N, C, H, W] in the order in which networks run forward fastest on their device: all values follow.

    On CPUs that is channels last, with AVX-512 as with AVX2: kernels of depthwise layers above all gain by it. It is
    not measured, as runs are to give the same bytes.
    """
    return values.contiguous(memory_format=torch.channels_last) if values.dim() == 4 and not values.is_cuda else values


def name_of(device: torch.device) -> str:
    """The GPU's name, or the processor's."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else processor()


def finish(device: torch.device) -> None:
    """Wait until a device has done what it was given; a GPU computes while the program goes on."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def undisturbed() -> Iterator[None]:
    """PyTorch as nobody has changed it, whatever the caller has around: gradients where they are asked for, 32-bit
    floats, new tensors on the CPU, no autocast.
    """
    dtype, device = torch.get_default_dtype(), torch.get_default_device()
    with ExitStack() as settings:
        settings.enter_context(torch.inference_mode(False))
        settings.enter_context(torch.enable_grad())
        for kind in ("cpu", "cuda"):
            if torch.is_autocast_enabled(kind):
                settings.enter_context(torch.autocast(kind, enabled=False))
        if device != CPU:
            settings.enter_context(CPU)
        torch.set_default_dtype(torch.float32)
        settings.callback(torch.set_default_dtype, dtype)
        yield


@contextmanager
def computing(device: torch.device) -> Iterator[None]:
    """Kernels of a GPU that compute in the 32 bits that are asked for, and alike in every run; on a CPU all do.

    Products of TF32 keep 10 of the 23 bits of each factor, too few for moments of a layer's inputs.
    """
    if device.type != "cuda":
        yield
        return
    products, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
    before = products.allow_tf32, convolutions.allow_tf32, convolutions.deterministic
    try:
        products.allow_tf32, convolutions.allow_tf32, convolutions.deterministic = False, False, True
        with torch.cuda.device(device):
            yield
    finally:
        products.allow_tf32, convolutions.allow_tf32, convolutions.deterministic = before


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """So many threads for torch's operators (None: as many as there are), the former number afterwards."""
    before = torch.get_num_threads()
    try:
        if count is not None:
            torch.set_num_threads(count)
        yield
    finally:
        torch.set_num_threads(before)


def cores() -> int:
    """How many logical cores this process may use, which may be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor() -> str:
    """The processor's name."""
    return _cpu_information().get("model name", "") or platform.processor() or platform.machine()


def integer_instructions() -> str:
    """What multiplies 8-bit integers here: "amx", "avx512-vnni", "avx-vnni", "avx2", "neon-dot", or "none"."""
    information = _cpu_information()
    flags = (information.get("flags") or information.get("Features") or "").split()
    names = {
        "amx_int8": "amx",
        "avx512_vnni": "avx512-vnni",
        "avx_vnni": "avx-vnni",
        "avx2": "avx2",
        "asimddp": "neon-dot",
    }
    return next((name for flag, name in names.items() if flag in flags), "none")


def _cpu_information() -> dict[str, str]:
    """The first processor's entries of /proc/cpuinfo; empty where there is no such file."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return {}
    rows = (line.partition(":") for line in text.split("\n\n")[0].splitlines())
    return {key.strip(): value.strip() for key, _, value in rows}

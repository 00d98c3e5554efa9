"""The machine: its devices, which precision and memory layout they compute fastest in, its threads, its processor."""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

import zeroq.ranks as ranks
from zeroq.errors import OptionError
from zeroq.graph import Network, replay

CPU = torch.device("cpu")
PROBE_IMAGES = 4
HOPELESS, COSTLY = 4.0, 1.0  # a first step of one image so many times as long as the best, and of so many seconds
CLEARLY = 1.2  # a later step so many times as long as the best: no further one is taken


@dataclass(frozen=True)
class Precision:
    """The type in which activations are computed, and their order in memory (channels last or first)."""

    dtype: torch.dtype = torch.float32
    channels_last: bool = True

    @property
    def name(self) -> str:
        """ "fp32" or "bf16"."""
        return next(name for name, dtype in DTYPES.items() if dtype == self.dtype)

    @property
    def layout(self) -> str:
        return "channels-last" if self.channels_last else "channels-first"

    def apply(self, value: Tensor) -> Tensor:
        """A tensor in this type, and in this order if it has height and width; integers keep their type."""
        value = value.to(self.dtype) if value.is_floating_point() else value
        if value.dim() == 4:
            return value.contiguous(
                memory_format=torch.channels_last if self.channels_last else torch.contiguous_format
            )
        return value


DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def choose_precision(
    network: Network, asked: str = "auto", images: int = PROBE_IMAGES
) -> tuple[Precision, Mapping[str, float]]:
    """The precision and layout in which this CPU runs the network forward and backward fastest, and the seconds.

    The first step of each, which also chooses kernels, has one image: bf16 without hardware for it takes 10 to 24
    times as long as fp32 (with it less), and nothing more is spent on it then.
    asked: "auto", "fp32" or "bf16".  images: of the one or two steps behind the first.
    Seconds: per image, by "fp32 channels-last" and so on; none of a GPU, where nothing is measured.
    """
    if asked != "auto" and asked not in DTYPES:
        raise OptionError(f"Precision {asked!r} is unknown: choose auto, fp32 or bf16.")
    if network.example[0].is_cuda:
        return usual_on_gpu(network, asked), {}
    names = DTYPES if asked == "auto" else (asked,)
    candidates = [Precision(DTYPES[name], channels_last) for name in names for channels_last in (True, False)]
    seconds: dict[Precision, float] = {}
    hopeless: set[torch.dtype] = set()
    for candidate in candidates:
        if candidate.dtype in hopeless:
            continue
        try:
            first = step_seconds(network, candidate, 1)
        except NotImplementedError as error:  # some operators have no kernel for bf16, such as pooling of volumes
            if asked != "auto" or candidate.dtype == torch.float32:
                raise uncomputable(candidate.name, error) from error
            hopeless.add(candidate.dtype)
            continue
        if seconds and first > COSTLY and first > HOPELESS * min(seconds.values()):
            hopeless.add(candidate.dtype)
            seconds[candidate] = first
            continue
        best = min(seconds.values(), default=math.inf)
        seconds[candidate] = step_seconds(network, candidate, images)
        if seconds[candidate] < CLEARLY * best:
            seconds[candidate] = min(seconds[candidate], step_seconds(network, candidate, images))
    fastest = min(seconds, key=lambda candidate: seconds[candidate])
    return fastest, {f"{candidate.name} {candidate.layout}": taken for candidate, taken in seconds.items()}


def usual_on_gpu(network: Network, asked: str) -> Precision:
    """bf16 where the GPU has instructions for it and kernels for all of the network, channels first.

    Measuring would choose by chance: a step of few images takes as long as the program takes to ask for it, in whatever
    precision (on a H200 MobileNetV2 in 9 to 11 ms). At 32 images ResNet50 takes 15 and 17 ms in bf16, channels first
    and last, 31 and 38 ms in fp32. And cuDNN takes 4 s to prepare MobileNetV2's depthwise layers channels last, for
    each number of images anew, where it takes 0.2 s channels first.
    """
    usual = Precision(torch.bfloat16, channels_last=False)
    if asked == "fp32" or (asked == "auto" and not torch.cuda.is_bf16_supported(including_emulation=False)):
        return replace(usual, dtype=torch.float32)
    try:
        step_seconds(network, usual, 1)
    except NotImplementedError as error:
        if asked != "auto":
            raise uncomputable(asked, error) from error
        return replace(usual, dtype=torch.float32)
    return usual


def uncomputable(precision: str, error: Exception) -> OptionError:
    """What a person reads of operators that have no kernel for a precision."""
    return OptionError(f"The network cannot be computed in {precision} ({error}): choose another --precision.")


def step_seconds(network: Network, precision: Precision, images: int) -> float:
    """Seconds per image of one pass forward and backward to the input."""
    tensors = {name: precision.apply(value) for name, value in network.tensors.items()}
    example = [value[:1].expand(images, *value.shape[1:]) for value in network.example]
    inputs = [precision.apply(value).clone().requires_grad_(value.is_floating_point()) for value in example]
    device = network.example[0].device
    finish(device)
    begin = time.perf_counter()
    result = replay(network.graph, tensors, dict(zip(network.inputs, inputs, strict=True)))["output"]
    leaves = [
        leaf for leaf in torch.utils._pytree.tree_leaves(result) if isinstance(leaf, Tensor) and leaf.requires_grad
    ]
    moved = [value for value in inputs if value.requires_grad]
    if leaves and moved:
        torch.autograd.grad(sum(leaf.float().sum() for leaf in leaves), moved, allow_unused=True)  # type: ignore[arg-type]
    finish(device)
    return (time.perf_counter() - begin) / images


def resolve(asked: str, *, memory_limit: float | None = None) -> torch.device:
    """The device that is asked for, "auto", "cpu" or "cuda".

    auto: CUDA where there is any, unless a limit of the process's memory is to be kept, which is of the CPU's. Of
    several GPUs each process that torchrun starts takes its own.
    """
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

"""In which precision and memory layout a device computes a network fastest, to the images and back or forward alone."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from zeroq.devices import finish
from zeroq.errors import OptionError
from zeroq.graph import Network, replay
from zeroq.reason import reason

PROBE_IMAGES = 4
HOPELESS, COSTLY = 4.0, 1.0  # a first step of one image so many times as long as the best, and of so many seconds
CLEARLY = 1.2  # a later step so many times as long as the best: no further one is taken
PASSES = 2  # forward, of which the fastest counts


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

    A precision that is asked for has one layout, and nothing is measured: two runs are then alike on every machine.
    The first step of each, which also chooses kernels, has one image: bf16 without hardware for it takes 10 to 24
    times as long as fp32 (with it less), and nothing more is spent on it then.
    asked: "auto", "fp32" or "bf16".  images: of the one or two steps behind the first.
    Seconds: per image, by "fp32 channels-last" and so on; none where nothing is measured, as on a GPU.
    """
    if asked != "auto" and asked not in DTYPES:
        raise OptionError(f"Precision {asked!r} is unknown: choose auto, fp32 or bf16.")
    if network.example[0].is_cuda:
        return usual_on_gpu(network, asked), {}
    if asked != "auto":
        named = Precision(DTYPES[asked])
        if named.dtype != torch.float32:
            first_step(network, named, needed=True)
        return named, {}
    candidates = [Precision(dtype, channels_last) for dtype in DTYPES.values() for channels_last in (True, False)]
    seconds: dict[Precision, float] = {}
    hopeless: set[torch.dtype] = set()
    for candidate in candidates:
        if candidate.dtype in hopeless:
            continue
        first = first_step(network, candidate, needed=False)
        if first is None:
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
    computable = first_step(network, usual, needed=asked != "auto") is not None
    return usual if computable else replace(usual, dtype=torch.float32)


def first_step(network: Network, precision: Precision, *, needed: bool) -> float | None:
    """Seconds of a step of one image; None where the network cannot be computed in bf16.

    Some operators have no kernel for it, such as pooling of volumes, and some networks state the type of what they
    begin with, such as the zeros of an LSTM.
    needed: OptionError in place of None.
    """
    try:
        return step_seconds(network, precision, 1)
    except RuntimeError as error:
        if precision.dtype == torch.float32:
            raise
        if needed:
            raise OptionError(
                f"The network cannot be computed in {precision.name} ({reason(error)}): choose another --precision."
            ) from error
        return None


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


def passes_in_bf16(network: Network, asked: str, images: int) -> bool:
    """Whether passes forward, channels last, that may be computed in bf16 are to be: where a CPU is clearly faster so.

    Hardware for bf16 alone does not say so: without that for products of matrices (AMX) a ResNet50 takes 1.4 times as
    long on an Intel processor (avx512-vnni with bf16). A GPU waits for kernels of either, more than it computes.
    asked: as in `choose_precision`; where it names a precision that the network can be computed in, nothing is
    measured.  images: of each pass, but for the first ones, which also choose kernels and have one.
    """
    if network.example[0].is_cuda or asked == "fp32":
        return False
    exact, short = Precision(), Precision(torch.bfloat16)
    try:
        first = forward_seconds(network, short, 1)
    except RuntimeError:
        return False
    if asked == "bf16":
        return True
    if first > COSTLY and first > HOPELESS * forward_seconds(network, exact, 1):
        return False
    seconds = [[forward_seconds(network, each, images) for each in (exact, short)] for _ in range(PASSES)]
    return min(short for _, short in seconds) * CLEARLY < min(exact for exact, _ in seconds)


def forward_seconds(network: Network, precision: Precision, images: int) -> float:
    """Seconds per image of one pass forward, without what it takes to bring the network into a precision."""
    tensors = {name: precision.apply(value) for name, value in network.tensors.items()}
    inputs = [precision.apply(value[:1].expand(images, *value.shape[1:])) for value in network.example]
    with torch.inference_mode():
        begin = time.perf_counter()
        replay(network.graph, tensors, dict(zip(network.inputs, inputs, strict=True)))
        return (time.perf_counter() - begin) / images

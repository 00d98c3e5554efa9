"""What can be asked of a quantization, checked before any work: a refusal is one sentence that says what to change."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from zeroq.effort import EFFORTS, FEW_BITS
from zeroq.errors import OptionError
from zeroq.reason import reason

LEAST_BITS, MOST_BITS = 2, 8  # as numbers.grid has them, said here again because that module imports torch
FLOAT_BITS = 32
LARGEST_SEED = 2**63 - 1  # of torch.manual_seed
MOST_THREADS = 1024
TARGETS = ("average_bits", "compression", "size_mb")
BOUNDS = ("bit_operations", "activation_mb", "latency_ms")
SHORT = {  # of what was asked, in the name of a folder
    "average_bits": "avg", "compression": "compression", "size_mb": "size", "bit_operations": "bops",
    "activation_mb": "peak", "latency_ms": "ms",
}  # fmt: skip
BOUND_UNITS = {
    "bit_operations": "of 10^9 for each image",
    "activation_mb": "in megabytes of 10^6 bytes",
    "latency_ms": "in milliseconds for one image",
}
IN_INTEGERS = ("bit_operations", "activation_mb")  # bounds that do not count floating point
SENSITIVITIES = ("kl", "rounded")
PRECISIONS = ("auto", "fp32", "bf16")
DEVICES = ("auto", "cpu", "cuda")


@dataclass(frozen=True)
class Options:
    """The options of `zeroq quantize`, by the names that they have there (docs/choosing.md says what each is for).

    Raises OptionError at birth, for a single value out of range and for values that contradict each other. What needs
    the network to be judged (a pattern that matches no layer, a size that no setting reaches) is refused later.
    """

    average_bits: float | None = None
    compression: float | None = None
    size_mb: float | None = None
    bit_operations: float | None = None
    activation_mb: float | None = None
    latency_ms: float | None = None
    weight_bits: tuple[int, ...] | None = None
    activation_bits: int | tuple[int, ...] = 8
    edge_bits: int | Literal["same"] | None = None
    layer_bits: tuple[tuple[str, int], ...] = ()
    keep_float: tuple[str, ...] = ()
    portable: bool = True
    fastest: bool = False
    effort: str = "balanced"
    sensitivity: str | None = None
    reconstruct: int | None = None
    images: int | None = None
    iterations: int | None = None
    calibration: Path | None = None
    input_mean: tuple[float, ...] | None = None
    input_std: tuple[float, ...] | None = None
    precision: str = "auto"
    seed: int = 0
    device: str = "auto"
    memory_limit: float | None = None
    threads: int | None = None
    keep_images: bool = True

    def __post_init__(self) -> None:
        _check_one_of("effort", self.effort, tuple(EFFORTS))  # first: it says which widths there are
        self._check_target()
        self._check_widths()
        self._check_patterns()
        self._check_images()
        self._check_computation()

    @classmethod
    def of(cls, **values: Any) -> Options:
        """Options from keywords as a person writes them: one width or a list, a dictionary of layer bits, one pattern.

        Raises OptionError for an unknown name, with the nearest known one.
        """
        known = [field.name for field in fields(cls)]
        for name in values:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                raise OptionError(
                    f"There is no option {name!r}: "
                    + (f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(known)}.")
                )
        return cls(**{name: _read(name, value) for name, value in values.items()})

    @property
    def targeted(self) -> bool:
        """Whether the bits of weights are chosen layer by layer, to reach a target."""
        return any(getattr(self, name) is not None for name in (*TARGETS, "bit_operations"))

    @property
    def candidate_widths(self) -> tuple[int, ...]:
        """The widths that a layer's weights may have, ascending; one when uniform."""
        return tuple(sorted(set(self.weight_bits or (EFFORTS[self.effort].widths if self.targeted else (8,)))))

    @property
    def activation_widths(self) -> tuple[int, ...]:
        """The widths that a layer's input may have, ascending; one unless they are part of the choice."""
        asked = self.activation_bits
        return (asked,) if isinstance(asked, int) else tuple(sorted(set(asked)))

    @property
    def reconstruction(self) -> int:
        """Steps of block reconstruction for each block: as asked, else by effort where inputs may have few bits."""
        if self.reconstruct is not None:
            return self.reconstruct
        return EFFORTS[self.effort].reconstruction if min(self.activation_widths) <= FEW_BITS else 0

    @property
    def edges(self) -> int | None:
        """Bits of the weights of the first layer and of the last, of each output; None treats them like the others."""
        if self.edge_bits is None:
            return None if self.targeted else 8
        return None if self.edge_bits == "same" else self.edge_bits

    @property
    def edge_inputs(self) -> int | None:
        """Bits of the inputs of these; None treats them like the others.

        With a target they are wide all the same, unless activations are part of the choice: they cost no size, and
        what the last layer reads has rare high values that distilled images lack. MobileNetV2 with 6 bits everywhere
        answers 345 of 450 pictures, with 8 there 373, while the divergence on held-out images is the same.
        """
        if self.edge_bits is None and self.targeted and len(self.activation_widths) == 1:
            return 8
        return self.edges

    @property
    def label(self) -> str:
        """Short name of the setting, for a folder: "w8a8", "avg4-a8", "size3.5-a8", "avg4-bops2-a8"."""
        asked = [f"{short}{getattr(self, name):g}" for name, short in SHORT.items() if getattr(self, name) is not None]
        inputs = f"a{'-'.join(map(str, self.activation_widths))}"
        if not self.targeted:
            return "-".join([f"w{self.candidate_widths[0]}{inputs}", *asked])
        return "-".join([*asked, inputs])

    def to_dict(self) -> dict[str, Any]:
        """Every option, as JSON can hold it; `Options.of(**those)` gives the same options back."""
        values = asdict(self) | {"layer_bits": dict(self.layer_bits)}
        values["calibration"] = None if self.calibration is None else str(self.calibration)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    def _check_target(self) -> None:
        asked = [name for name in TARGETS if getattr(self, name) is not None]
        if len(asked) > 1:
            listed = " and ".join(f"{flag(name)} {_plain(getattr(self, name))}" for name in asked)
            own = "are each a target of their own: keep one of --average-bits, --compression and --size-mb."
            raise OptionError(f"{listed} {own}")
        _check_between("average_bits", self.average_bits, LEAST_BITS, MOST_BITS, "the bits that a weight may have")
        least, most = FLOAT_BITS / MOST_BITS, FLOAT_BITS / LEAST_BITS
        _check_between("compression", self.compression, least, most, f"which is {FLOAT_BITS} over the bits of a weight")
        if self.size_mb is not None and not (_is_number(self.size_mb) and self.size_mb > 0):
            raise OptionError(f"--size-mb {_plain(self.size_mb)}: give a size above 0, in megabytes of 10^6 bytes.")
        for name, meaning in BOUND_UNITS.items():
            bound = getattr(self, name)
            if bound is not None and not (_is_number(bound) and bound > 0):
                raise OptionError(f"{flag(name)} {_plain(bound)}: give a number above 0, {meaning}.")
            if bound is not None and self.fastest and name in IN_INTEGERS:
                raise OptionError(
                    f"--fastest computes layers in floating point, which {flag(name)} does not count: "
                    "drop one of the two."
                )

        sums = [name for name in (*TARGETS, "bit_operations", "latency_ms") if getattr(self, name) is not None]
        if len(sums) > 2 and len(self.activation_widths) > 1:
            listed = ", ".join(f"{flag(name)} {_plain(getattr(self, name))}" for name in sums)
            raise OptionError(
                f"{listed}: of these sums over layers two at most can be kept at once where inputs have a choice: "
                "drop one, or name one width in --activation-bits."
            )

    def _check_widths(self) -> None:
        if self.weight_bits == ():
            raise OptionError("--weight-bits names no width: give one, or several such as 2,4,8.")
        for width in self.weight_bits or ():
            _check_width("--weight-bits", width)
        if len(self.candidate_widths) > 1 and not self.targeted:
            raise OptionError(
                f"--weight-bits {_listed(self.candidate_widths)} leaves a choice for each layer, which needs a "
                "target: add --average-bits, --compression, --size-mb or --bit-operations, or name one width."
            )
        if self.activation_bits == ():
            raise OptionError("--activation-bits names no width: give one, or several such as 4,8.")
        for width in self.activation_bits if isinstance(self.activation_bits, tuple) else (self.activation_bits,):
            _check_width("--activation-bits", width)
        if len(self.activation_widths) > 1 and all(getattr(self, name) is None for name in BOUNDS):
            raise OptionError(
                f"--activation-bits {_listed(self.activation_widths)} leaves a choice for each layer's input, which "
                "needs a bound on what inputs take: add --bit-operations, --activation-mb or --latency-ms, or name one "
                "width."
            )
        if self.edge_bits not in (None, "same"):
            _check_width("--edge-bits", self.edge_bits, ", or same")

    def _check_patterns(self) -> None:
        asked: dict[str, int] = {}
        for pattern in (*self.keep_float, *(pair[0] for pair in self.layer_bits)):
            if not isinstance(pattern, str):
                raise OptionError(f"A layer is named by a pattern such as 'stage1.*', and {pattern!r} is none.")
        for pattern, width in self.layer_bits:
            _check_width(f"--layer-bits {pattern}: a width of", width)
            if asked.setdefault(pattern, width) != width:
                raise OptionError(f"--layer-bits {pattern}={asked[pattern]} and {pattern}={width} differ: keep one.")
        for pattern in self.keep_float:
            if pattern in asked:
                both = f"--keep-float {pattern} and --layer-bits {pattern}={asked[pattern]}"
                raise OptionError(f"{both} contradict each other: drop one.")

    def _check_images(self) -> None:
        _check_whole("images", self.images, 1)
        _check_whole("iterations", self.iterations, 0)
        if self.calibration is not None:
            for name in ("iterations", "input_mean", "input_std"):
                if getattr(self, name) is not None:
                    raise OptionError(
                        f"{flag(name)} is about distilled images, and --calibration puts your own pictures in their "
                        "place: drop one of the two."
                    )
        if (self.input_mean is None) != (self.input_std is None):
            raise OptionError("--input-mean and --input-std belong together: give both or neither.")
        if self.input_mean is None or self.input_std is None:
            return
        if len(self.input_mean) != len(self.input_std):
            raise OptionError(
                f"--input-mean has {len(self.input_mean)} values and --input-std {len(self.input_std)}: "
                "give one per channel in both."
            )
        if not all(_is_number(mean) and 0 <= mean <= 1 for mean in self.input_mean):
            raise OptionError(f"--input-mean {_listed(self.input_mean)}: give means of pixel / 255, from 0 to 1.")
        if not all(_is_number(std) and 0 < std <= 1 for std in self.input_std):
            raise OptionError(
                f"--input-std {_listed(self.input_std)}: give deviations of pixel / 255, above 0 and at most 1."
            )

    def _check_computation(self) -> None:
        if self.sensitivity is not None:
            _check_one_of("sensitivity", self.sensitivity, SENSITIVITIES)
        _check_one_of("precision", self.precision, PRECISIONS)
        _check_one_of("device", self.device, DEVICES)
        _check_whole("threads", self.threads, 1, MOST_THREADS)
        _check_whole("reconstruct", self.reconstruct, 0)
        if self.memory_limit is not None and not (_is_number(self.memory_limit) and self.memory_limit > 0):
            raise OptionError(f"--memory-limit {_plain(self.memory_limit)}: give GB of 10^9 bytes, above 0.")
        if not (_is_whole(self.seed) and 0 <= self.seed <= LARGEST_SEED):
            raise OptionError(f"--seed {self.seed}: give a whole number from 0 to {LARGEST_SEED}.")
        if self.device == "cuda" and self.memory_limit is not None:
            raise OptionError("--memory-limit bounds what a run takes on the CPU: choose --device cpu, or drop it.")
        for name in ("portable", "fastest", "keep_images"):
            if not isinstance(getattr(self, name), bool):
                raise OptionError(f"{name}={getattr(self, name)!r}: give True or False.")


def flag(name: str) -> str:
    """An option's name as the command line has it."""
    return "--" + name.replace("_", "-")


def _read(name: str, value: Any) -> Any:
    """A value as a person writes it, as an Options holds it."""
    try:
        return READERS[name](value) if name in READERS else value
    except (IndexError, TypeError, ValueError) as error:
        raise OptionError(f"{flag(name)} {value!r}: {reason(error)}; write it as the command line has it.") from error


def _as_tuple(value: Any) -> Any:
    """One value or several, as a tuple; None stays."""
    if value is None or isinstance(value, tuple):
        return value
    return tuple(value) if isinstance(value, Iterable) and not isinstance(value, str) else (value,)


def _as_pairs(value: Any) -> tuple[tuple[str, int], ...]:
    """A dictionary, pairs, or texts PATTERN=B, as a tuple of pairs."""
    several = value.items() if isinstance(value, Mapping) else _as_tuple(value)
    return tuple(_parse_pair(each) if isinstance(each, str) else (each[0], each[1]) for each in several)


def _parse_pair(text: str) -> tuple[str, int]:
    pattern, _, width = text.rpartition("=")
    if not pattern or not width.isdecimal():
        raise OptionError(f"--layer-bits {text}: write a pattern of layer names and a width, as in 'stage1.*=4'.")
    return pattern, int(width)


def _as_one_or_more(value: Any) -> Any:
    """Several values as a tuple, one as itself."""
    several = _as_tuple(value)
    return several[0] if isinstance(several, tuple) and len(several) == 1 else several


READERS: dict[str, Callable[[Any], Any]] = {  # what `Options.of` makes of a value, by the option's name
    "weight_bits": _as_tuple,
    "activation_bits": lambda value: value if isinstance(value, int) else _as_one_or_more(value),
    "layer_bits": _as_pairs,
    "keep_float": lambda value: () if value is None else _as_tuple(value),
    "calibration": lambda value: None if value is None else Path(value),
    "input_mean": _as_tuple,
    "input_std": _as_tuple,
}


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _plain(value: Any) -> str:
    """A number without needless zeros; anything else as it is."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def _listed(values: Iterable[Any]) -> str:
    return ",".join(map(_plain, values))


def _check_width(what: str, width: Any, otherwise: str = "") -> None:
    if not (_is_whole(width) and LEAST_BITS <= width <= MOST_BITS):
        raise OptionError(f"{what} {width}: choose {LEAST_BITS} to {MOST_BITS}{otherwise}.")


def _check_between(name: str, value: Any, low: float, high: float, meaning: str) -> None:
    if value is not None and not (_is_number(value) and low <= value <= high):
        raise OptionError(f"{flag(name)} {_plain(value)}: choose {low:g} to {high:g}, {meaning}.")


def _check_whole(name: str, value: Any, least: int, most: int | None = None) -> None:
    if value is not None and not (_is_whole(value) and least <= value and (most is None or value <= most)):
        allowed = f", at least {least}" if most is None else f" from {least} to {most}"
        raise OptionError(f"{flag(name)} {value}: give a whole number{allowed}.")


def _check_one_of(name: str, value: Any, words: tuple[str, ...]) -> None:
    if value not in words:
        raise OptionError(f"{flag(name)} {value}: choose {', '.join(words[:-1])} or {words[-1]}.")

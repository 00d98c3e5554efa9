"""What is measured: networks, settings, image sources; and the key that tells whether a result still holds."""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Protocol

from zeroq.options import Options

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "zeroq"
RESULTS = ROOT / "benchmarks" / "results" / "accuracy"
EQUIVALENT = ROOT / "benchmarks" / "results" / "equivalent.json"  # of benchmarks.equivalence
CACHE = ROOT / "benchmarks" / ".cache"  # float scores; ignored by git

# Network -> the pictures that it is for.
NETWORKS = {
    "mobilenet_v2": "imagenet",
    "efficientnet_lite0": "imagenet",
    "mobilenet_v1_025": "imagenet",
    "etinynet": "imagenet",
    "resnet18_cifar10": "cifar10",
    "resnet20_cifar10": "cifar10",
    "resnet20_cifar100": "cifar100",
    "shufflenet_cifar10": "cifar10",
    "squeezenext_cifar10": "cifar10",
}
WITHOUT_NORM = {"vit_cifar10": "cifar10", "vgg_cifar10": "cifar10"}  # of benchmarks.without
FAMILIES = NETWORKS | WITHOUT_NORM
W8, W8_NOT_PORTABLE, W4, W4A4, MIXED = "w8a8", "w8a8-no-portable", "w4a8", "w4a4", "avg4-a8"
W6A6, W4_EDGES_8, MIXED_6, MIXED_3 = "w6a6", "w4a8-edges-8", "avg6-a6", "avg3-a8"  # of benchmarks.low_bits
SETTINGS: dict[str, dict[str, Any]] = {  # options of `zeroq quantize`
    W8: {},
    W8_NOT_PORTABLE: {"portable": False},
    W4: {"weight_bits": 4, "edge_bits": "same"},
    W4A4: {"weight_bits": 4, "activation_bits": 4},
    MIXED: {"average_bits": 4},
    W6A6: {"weight_bits": 6, "activation_bits": 6},
    W4_EDGES_8: {"weight_bits": 4},
    MIXED_6: {"average_bits": 6, "activation_bits": 6},
    MIXED_3: {"average_bits": 3},
}


def at_best(setting: str) -> str:
    """The same setting at `--effort best`."""
    return f"{setting}-best"


SETTINGS |= {at_best(setting): options | {"effort": "best"} for setting, options in SETTINGS.items()}
DISTILLED, REAL, RANDOM = "distilled", "real", "random"
IMAGES: dict[str, tuple[str, ...]] = {  # of benchmarks.accuracy
    W8: (DISTILLED,), W8_NOT_PORTABLE: (DISTILLED,), W4: (DISTILLED,), MIXED: (DISTILLED, REAL, RANDOM),
}  # fmt: skip

# Where a change may change a network's accuracy, its file, or the time that it takes.
METHOD = (
    *("graph", "numbers", "simulate", "distillation", "ranges", "allocate", "rounding"),
    *("deploy/onnx_file.py", "deploy/translate.py", "deploy/unpack.py", "deploy/compact.py", "deploy/padding.py"),
    *("sensitivity.py", "compensation.py", "selection.py", "candidates.py", "finer_outputs.py", "fitted_ranges.py"),
    *("final_network.py", "effort.py", "stages.py", "setting.py", "bounds.py", "preparation.py", "divergence"),
    *("channels.py", "repair/centring.py", "repair/shifts.py", "repair/links.py", "repair/families.py"),
    "repair/equalization.py",
)
# What `benchmarks.equivalence` does not try, as it takes long: where an effort reconstructs blocks.
LEARNING = (
    *("rounding/reconstruction.py", "rounding/learned.py", "rounding/dropping.py", "rounding/task.py"),
    *("rounding/simulation.py", "graph/blocks.py", "final_network.py"),
)
FORMAT = 1  # of a row's file; a new one makes every row stale
Equalities = dict[str, list[dict[str, Any]]]  # program -> those that it is shown to be equal to, with for what


class OfNetwork(Protocol):
    """A row of any benchmark."""

    @property
    def network(self) -> str: ...

    def options(self, **further: Any) -> Options: ...


@dataclass(frozen=True)
class Row:
    """One network in one setting, fitted on images of one source."""

    network: str
    setting: str
    images: str
    MEASURED_BY: ClassVar[str] = "benchmarks.measure"

    @property
    def name(self) -> str:
        return "-".join(self.facts.values())

    @property
    def facts(self) -> dict[str, str]:
        return asdict(self)

    @property
    def file(self) -> Path:
        return RESULTS / f"{self.name}.json"

    def options(self, **further: Any) -> Options:
        return Options.of(**SETTINGS[self.setting], **further)

    def valid_keys(self) -> list[str]:
        """Of everything that decides the result, by each program that is known to give it; new ones get the first."""
        asked = switched_on(self.options())
        return [key_of([FORMAT, self.name, asked, code]) for code in codes_for(self)]


def switched_on(options: Options) -> dict[str, Any]:
    """What options ask for, and by which program blocks are reconstructed where they are.

    An option that is new, and off unless asked for, makes no result stale.
    """
    asked = {name: value for name, value in options.to_dict().items() if value}
    return asked | ({"reconstruction": [options.reconstruction, code_of(LEARNING)]} if options.reconstruction else {})


def all_rows() -> list[Row]:
    """In the order in which they are measured: what the limits need comes first."""
    pairs = [(setting, images) for setting, sources in IMAGES.items() for images in sources]
    order = sorted(pairs, key=lambda pair: (pair[1] != DISTILLED, pair[0] == W8_NOT_PORTABLE))
    return [Row(network, setting, images) for setting, images in order for network in NETWORKS]


def method_code(network: str, input_bits: Any = None) -> str:
    """What a network's results are kept by: hash of the method's program, or of the earliest that is shown to be equal
    to it for that network, and for inputs of these bits where they are given.
    """
    return earliest(code_of(METHOD), network, input_bits)


def earliest(code: str, network: str, input_bits: Any = None) -> str:
    """The earliest program that one is shown to be equal to, for all networks or for this one, at any bits of inputs or
    at these.
    """
    return _earliest(code, network, input_bits, shown_equal())


def equal_to(code: str, network: str, input_bits: Any = None) -> list[str]:
    """The programs that one is shown to be equal to, as `earliest` has it; this one first."""
    known = shown_equal()
    first = _earliest(code, network, input_bits, known)
    others = {*known, *(entry["as"] for entries in known.values() for entry in entries)}
    equal = (other for other in others - {first} if _earliest(other, network, input_bits, known) == first)
    return [first, *sorted(equal)]


def shown_equal() -> Equalities:
    """What benchmarks.equivalence noted."""
    return json.loads(EQUIVALENT.read_text(encoding="utf-8")) if EQUIVALENT.is_file() else {}


def _earliest(code: str, network: str, input_bits: Any, known: Equalities) -> str:
    def before(code: str) -> str | None:
        shown = (
            each["as"] for each in known.get(code, [])
            if network in each.get("networks", [network]) and network not in each.get("but", [])
            and input_bits == each.get("inputs", input_bits)
        )  # fmt: skip
        return next(shown, None)

    seen = {code}  # a change that was taken back may be shown to be equal both ways
    while (earlier := before(code)) is not None and earlier not in seen:
        seen.add(code := earlier)
    return code


def codes_for(row: OfNetwork) -> list[str]:
    """The method's programs that give what a row's result is, the earliest first."""
    return equal_to(code_of(METHOD), row.network, row.options().activation_bits)


def code_of(parts: Iterable[str]) -> str:
    """Hash of the program of some of the package's parts, comments and docstrings left out: wording changes nothing."""
    digest = hashlib.sha256()
    for file in sources(parts):
        digest.update(f"{file.relative_to(SOURCE)}\n{program(file.read_text(encoding='utf-8'))}\n".encode())
    return digest.hexdigest()


def sources(parts: Iterable[str]) -> Iterator[Path]:
    """Files of the package's parts, each a file or a folder."""
    for part in parts:
        path = SOURCE / part
        yield from sorted(path.rglob("*.py")) if path.is_dir() else [path]


def key_of(parts: list[Any]) -> str:
    """Of everything that decides a result, as JSON has it."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


@cache
def program(source: str) -> str:
    """A Python text as its syntax tree, the same in every version of Python that can read it."""
    return json.dumps(list(_flat(ast.parse(source))))


def _flat(node: Any) -> Iterator[str]:
    if isinstance(node, list):
        yield "["
        for each in node:
            yield from _flat(each)
        yield "]"
    elif isinstance(node, ast.AST):
        yield type(node).__name__
        for field, value in ast.iter_fields(node):
            if field == "body" and isinstance(value, list):
                value = [each for each in value if not _is_text(each)]
            if value not in (None, []):  # fields that only some versions have are empty
                yield field
                yield from _flat(value)
    else:
        yield repr(node)


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)

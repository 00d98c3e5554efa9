"""What benchmarks.recipes measures: networks in uniform settings, quantized by others' recipes."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from benchmarks.rows import (
    DISTILLED,
    METHOD,
    NETWORKS,
    ROOT,
    SETTINGS,
    W4_EDGES_8,
    W6A6,
    W8,
    Row,
    code_of,
    key_of,
    program,
    switched_on,
)
from zeroq.options import Options

RESULTS = ROOT / "benchmarks" / "results" / "recipes"
PAPER, DFQ, SQUANT = "paper", "dfq", "squant"
RECIPE_SETTINGS = {W8: "W8A8", W6A6: "W6A6", W4_EDGES_8: "W4A8"}  # by what the tables call them
# Of the package, what a recipe uses; others of its programs are below.
USED = (
    *("graph", "numbers", "simulate", "rounding", "setting.py"),
    *("deploy/onnx_file.py", "deploy/translate.py", "deploy/unpack.py", "deploy/compact.py", "deploy/padding.py"),
)
PARTS = {PAPER: USED, DFQ: (*USED, "repair"), SQUANT: METHOD}
PROGRAMS = {PAPER: ("recipe", "plain"), DFQ: ("dfq", "plain"), SQUANT: ("plain",)}
FORMAT = 1  # of a row's file; a new one makes every row stale


@dataclass(frozen=True)
class RecipeRow:
    """One network in one setting by one recipe."""

    network: str
    setting: str
    recipe: str
    MEASURED_BY: ClassVar[str] = "benchmarks.recipe_measure"

    @property
    def name(self) -> str:
        return "-".join(self.facts.values())

    @property
    def facts(self) -> dict[str, str]:
        return asdict(self)

    @property
    def file(self) -> Path:
        return RESULTS / f"{self.name}.json"

    @property
    def ours(self) -> Row:
        """The row of benchmarks.accuracy or benchmarks.low_bits of the same network and setting."""
        return Row(self.network, self.setting, DISTILLED)

    def options(self, **further: Any) -> Options:
        return Options.of(**SETTINGS[self.setting], **further)

    def valid_keys(self) -> list[str]:
        """One of everything that decides the result."""
        return [key_of([FORMAT, self.name, switched_on(self.options()), recipe_code(self.recipe)])]


def recipe_code(recipe: str) -> str:
    """Hash of a recipe's programs, comments and docstrings left out."""
    digest = hashlib.sha256(code_of(PARTS[recipe]).encode())
    for name in PROGRAMS[recipe]:
        digest.update(program((ROOT / "benchmarks" / f"{name}.py").read_text(encoding="utf-8")).encode())
    return digest.hexdigest()


def all_rows() -> list[RecipeRow]:
    """Network by network, the settings of a recipe together: the paper's images serve all of them."""
    return [
        RecipeRow(network, setting, recipe) for network in NETWORKS for recipe in PARTS for setting in RECIPE_SETTINGS
    ]

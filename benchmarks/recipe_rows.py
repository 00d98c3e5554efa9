"""What benchmarks.recipes measures: networks in uniform settings, quantized by others' recipes."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any, ClassVar

from benchmarks.rows import (
    DISTILLED,
    NETWORKS,
    ROOT,
    SETTINGS,
    W4_EDGES_8,
    W6A6,
    W8,
    Row,
    at_best,
    key_of,
    method_code,
    program,
    switched_on,
)
from zeroq.options import Options

RESULTS = ROOT / "benchmarks" / "results" / "recipes"
PAPER, DFQ, SQUANT = "paper", "dfq", "squant"
RECIPE_SETTINGS = {W8: "W8A8", W6A6: "W6A6", W4_EDGES_8: "W4A8"}  # by what the tables call them
# Beside the package, of which each uses a part: a change that is shown to be equal leaves its rows alone.
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
        """The row of benchmarks.accuracy of the same network and setting, else of benchmarks.low_bits at its best."""
        return Row(self.network, self.setting if self.setting == W8 else at_best(self.setting), DISTILLED)

    @property
    def images(self) -> Row:
        """The row whose distilled images a recipe takes that makes none."""
        return Row(self.network, self.setting, DISTILLED)

    def options(self, **further: Any) -> Options:
        return Options.of(**SETTINGS[self.setting], **further)

    def valid_keys(self) -> list[str]:
        """One of everything that decides the result."""
        return [key_of([FORMAT, self.name, switched_on(self.options()), recipe_code(self.network, self.recipe)])]


def recipe_code(network: str, recipe: str) -> str:
    """Hash of the method's program and of the recipe's own, comments and docstrings left out."""
    digest = hashlib.sha256(method_code(network).encode())
    for name in PROGRAMS[recipe]:
        digest.update(program((ROOT / "benchmarks" / f"{name}.py").read_text(encoding="utf-8")).encode())
    return digest.hexdigest()


def all_rows() -> list[RecipeRow]:
    """Network by network; the paper's images serve all settings of one."""
    return [RecipeRow(*each) for each in product(NETWORKS, RECIPE_SETTINGS, PROGRAMS)]

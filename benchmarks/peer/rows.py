"""What `benchmarks.accuracy --peer` measures: networks in settings that the toolkit has as well."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peer.toolkit import ITERATIONS
from benchmarks.process import read
from benchmarks.rows import DISTILLED, MIXED, ROOT, SETTINGS, W8, Row, key_of, program
from zeroq.effort import EFFORTS

RESULTS = ROOT / "benchmarks" / "results" / "peer"
NETWORKS = ("mobilenet_v2", "resnet20_cifar10")
PEER_SETTINGS = {W8: "W8A8", MIXED: "average 4, A8"}  # by what the tables call them
IMAGES = EFFORTS["balanced"].images  # as many as ours
PROGRAMS = ("toolkit", "measure")  # of this folder, what decides a result
FORMAT = 1  # of a row's file; a new one makes every row stale


@dataclass(frozen=True)
class PeerRow:
    """One network in one setting, by images of so many iterations."""

    network: str
    setting: str
    iterations: int = ITERATIONS

    @property
    def name(self) -> str:
        return f"{self.network}-{self.setting}"

    @property
    def file(self) -> Path:
        return RESULTS / f"{self.name}.json"

    @property
    def ours(self) -> Row:
        """The row of benchmarks.accuracy of the same network and setting."""
        return Row(self.network, self.setting, DISTILLED)

    @property
    def average_bits(self) -> float | None:
        """Of weights, at most; None for 8 everywhere."""
        return SETTINGS[self.setting].get("average_bits")

    def valid_keys(self) -> list[str]:
        """One of everything that decides the result."""
        return [key_of([FORMAT, self.name, IMAGES, self.iterations, peer_code()])]


def peer_code() -> str:
    """Hash of the programs that measure a row, comments and docstrings left out."""
    texts = [Path(__file__).with_name(f"{name}.py").read_text(encoding="utf-8") for name in PROGRAMS]
    return hashlib.sha256("".join(map(program, texts)).encode()).hexdigest()


def all_rows(iterations: int = ITERATIONS) -> list[PeerRow]:
    """Network by network: the settings of one share their images."""
    return [PeerRow(network, setting, iterations) for network in NETWORKS for setting in PEER_SETTINGS]


def kept_rows() -> list[PeerRow]:
    """Rows that there are files of, with the iterations that these were measured with."""
    found = [(row, read(row.file)) for row in all_rows()]
    return [PeerRow(row.network, row.setting, record["iterations"]) for row, record in found if record is not None]

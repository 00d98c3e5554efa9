"""The environment that has a peer: how a command is told of it, and what runs in it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from benchmarks.process import options_in_words, run_apart

TIME_LIMIT = 6 * 3600  # seconds of one process


def add_peer(parser: argparse.ArgumentParser) -> None:
    """The option that names the environment."""
    parser.add_argument("--peer", type=Path, metavar="PYTHON", help="of an environment with model-compression-toolkit")


def check_peer(parser: argparse.ArgumentParser, asked: argparse.Namespace) -> None:
    """Refuse an environment that is not there."""
    if asked.peer is not None and not asked.peer.is_file():
        parser.error(f"--peer {asked.peer} is no file: name the python of an environment that has the peer.")


def run_in(
    python: Path, module: str, words: list[str], data: Path, **options: Any
) -> tuple[dict[str, Any], str | None]:
    """What `PYTHON -m MODULE WORDS` wrote, by that environment; nothing, and why, if it failed.

    data: the folder of networks and pictures.  options: further ones, those of None are left out.
    """
    python, data = python.absolute(), data.resolve()  # a link to a python is what tells its environment
    places = {"DATA": data, "PEER": python.parent.parent}
    return run_apart(module, [*words, *options_in_words({"data": data, **options})], TIME_LIMIT, places, python)

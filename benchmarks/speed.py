"""Where the time goes, and this project beside the paper's recipe and a peer, in one run on one machine:

    python -m benchmarks.speed --data ../shared/data
    python -m benchmarks.speed --networks resnet18,resnet20_cifar10 --parts stages --whole
    python -m benchmarks.speed --networks resnet18,mobilenetv2_w1,resnet50 --parts step,runs
    python -m benchmarks.speed --networks resnet18 --parts "" --peer .venv-peer/bin/python

Parts: `stages` times each stage beside the recipe (benchmarks/recipe.py), which runs for a few of its 500 iterations
and of its full passes and is multiplied, or with --whole to its end, so that the quality of its images can be measured
as well. `step` takes one step of distillation apart. `runs` takes a network from module to file. --peer PYTHON also
times the data generation of model-compression-toolkit in an environment that has it. With --device cuda stages and
runs are computed on a GPU. Networks are the trained ones of --data, and those of the paper, which need neither data
nor trained weights. Results go to benchmarks/results/speed/; docs/performance.md is written anew after each.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks import speed_stages, step_profile
from benchmarks.peer import speed as peer
from benchmarks.peer.environment import add_peer, check_peer
from benchmarks.process import listed, options_in_words, read, run_apart, write
from benchmarks.rows import ROOT
from benchmarks.speed_document import document
from benchmarks.speed_limits import PEER, RUNS, STAGES, STEP, judged
from benchmarks.speed_subject import NETWORKS, subject_of
from zeroq import devices

RESULTS = ROOT / "benchmarks" / "results" / "speed"
DOCUMENT = ROOT / "docs" / "performance.md"
FOLDERS = {STAGES: RESULTS, STEP: RESULTS / STEP, RUNS: RESULTS / RUNS, PEER: RESULTS / PEER}
CHOSEN = ("resnet18", "mobilenet_v2")
TIME_LIMIT = 3 * 3600  # seconds of a whole run


class Failed(Exception):
    """A process of its own gave no result."""


def main() -> int:
    asked = arguments()
    device = devices.resolve(asked.device)
    failures = 0
    for name in () if asked.markdown_only else asked.networks:
        for part in asked.parts:
            with devices.threads(asked.threads), devices.computing(device):
                failures += not bring_up_to_date(name, part, asked, device)
    write_document()
    return 1 if failures else 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.speed", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--networks", type=listed, default=list(CHOSEN), help=", ".join(NETWORKS))
    parser.add_argument("--parts", type=listed, default=[STAGES, STEP], help=", ".join((STAGES, STEP, RUNS)))
    add_peer(parser)
    parser.add_argument("--whole", action="store_true", help="run the recipe, and the peer, to their ends")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--device", default="cpu", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--markdown-only", action="store_true", help="measure nothing, write the document again")
    asked = parser.parse_args()
    for option, known in (("networks", NETWORKS), ("parts", (STAGES, STEP, RUNS))):
        if unknown := [word for word in getattr(asked, option) if word not in known]:
            parser.error(f"--{option} {unknown[0]}: choose from {', '.join(known)}.")
    check_peer(parser, asked)
    if asked.peer is not None:
        asked.parts.append(PEER)
    if devices.resolve(asked.device) != devices.CPU and set(asked.parts) & {STEP, PEER}:
        parser.error("A step's profile and --peer are of a CPU: leave them out, or name --device cpu.")
    return asked


def bring_up_to_date(name: str, part: str, asked: argparse.Namespace, device: torch.device) -> bool:
    """Measure one part of a network; whether there is a result."""
    print(f"{name}, {part}: ", end="", flush=True)
    try:
        found = MEASURE[part](name, asked, device)
    except (Failed, peer.PeerError) as error:
        print(f"failed: {error}", flush=True)
        return False
    record = {
        "network": name, "cpu": devices.processor(), "device": devices.name_of(device),
        "integer_instructions": devices.integer_instructions(), "threads": torch.get_num_threads(), **found,
    }  # fmt: skip
    suffix = "" if device == devices.CPU else f"_{device.type}"
    write(FOLDERS[part] / f"{name}{suffix}.json", record)
    write_document()
    print("; ".join(judged(part, record)) or "done", flush=True)
    return True


def stages_of(name: str, asked: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    return speed_stages.measured(subject_of(name, asked.data, device), whole=asked.whole)


def step_of(name: str, asked: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    return step_profile.measured(subject_of(name, asked.data, device))


def run_of(name: str, asked: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    data = asked.data.resolve()
    words = [name, *options_in_words({"data": data, "device": device.type, "threads": torch.get_num_threads()})]
    if device != devices.CPU:
        words.append("--again")
    found, error = run_apart("benchmarks.run_row", words, TIME_LIMIT, {"DATA": data})
    if error is not None:
        raise Failed(error)
    return found


def peer_of(name: str, asked: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    subject = subject_of(name, asked.data, device)
    return peer.measured(subject, name, asked.data, asked.peer, whole=asked.whole)


MEASURE: dict[str, Callable[[str, argparse.Namespace, torch.device], dict[str, Any]]] = {
    STAGES: stages_of, STEP: step_of, RUNS: run_of, PEER: peer_of,
}  # fmt: skip


def write_document() -> None:
    """docs/performance.md from all results there are."""
    found = {
        part: [record for file in sorted(folder.glob("*.json")) if (record := read(file)) is not None]
        for part, folder in FOLDERS.items()
    }
    DOCUMENT.write_text(document(found), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())

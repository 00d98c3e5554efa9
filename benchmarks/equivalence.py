"""Whether the method as it stands gives the same bytes as at an earlier commit, whose results then still hold:

    python -m benchmarks.equivalence COMMIT --data ../shared/data
    python -m benchmarks.equivalence COMMIT --data ../shared/data --but nanodet_m,fastestdet
    python -m benchmarks.equivalence COMMIT --data ../shared/data --networks vgg_cifar10,resnet18_cifar10
    python -m benchmarks.equivalence COMMIT --data ../shared/data --inputs 8
    python -m benchmarks.equivalence COMMIT --data ../shared/data --scores

Options that are off, and code that was put in other words, make no result wrong; but results are kept by the method's
program, and so would all be stale. This command quantizes networks of several kinds with both programs on the machine
at hand, few images and few steps each, and compares every file of both runs. If all are equal, it notes in
benchmarks/results/equivalent.json that the one program stands for the other (`rows.method_code`). What it cannot show
is what only many or large images bring about: batches that do not fit, stages that grow with the number of images.

A change may be meant for some networks and leave all others as they are. The second form names these: none of them is
compared, and the equality is noted for all others. The third compares those named, at several settings each, and notes
the equality for those alone that are equal at all of them.

With --inputs any of these is about runs alone whose inputs have that many bits: others are not compared, and the
equality is noted for rows of these bits.

The last is about the programs that score detectors and segmenters, by which their rows are kept as well: both score
each network in floating point, and the file of one run, on all its pictures.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.process import listed, write
from benchmarks.rows import EQUIVALENT, METHOD, ROOT, code_of, earliest
from benchmarks.task_rows import NETWORKS, WITHOUT_LABELS, scoring_hash
from zeroq import devices
from zeroq.whole_files import read_json

# Network -> options of `zeroq quantize`, for each of its runs.
PROBES = {
    "resnet20_cifar10": ([], ["--average-bits", "4"], ["--weight-bits", "4", "--activation-bits", "4"]),
    "mobilenet_v1_025": (["--average-bits", "4"],),
    # No size in megabytes, which no row asks for: what a file holds beside its weights may be counted more closely.
    "shufflenet_cifar10": (["--compression", "8", "--sensitivity", "kl"],),
    "vit_cifar10": (["--weight-bits", "4"],),
    "vgg_cifar10": (["--average-bits", "6", "--activation-bits", "6", "--edge-bits", "same"],),
    "nanodet_m": ([],),
}
# The same for each network that is named.
OF_ONE: tuple[list[str], ...] = ([], ["--average-bits", "4"], ["--weight-bits", "6", "--activation-bits", "6"])
SMALL = ["--images", "16", "--iterations", "4", "--precision", "fp32", "--threads", "1", "--quiet"]
COMPARED = (
    *("distilled.safetensors", "ranges.json", "sensitivity.json", "frontier.json"),
    *("model.safetensors", "model.onnx"),
)
CODE = "from benchmarks.rows import METHOD, code_of; print(code_of(METHOD))"
SCORING_CODE = "from benchmarks.task_rows import scoring_code; print(scoring_code())"
TIMED = "images_per_second"  # of what an evaluation prints


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.equivalence", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("commit", help="whose results hold")
    parser.add_argument("--data", type=Path, required=True, help="the folder of networks")
    limited = parser.add_mutually_exclusive_group()
    limited.add_argument("--networks", type=listed, metavar="A,B", help="for which alone it is to be shown")
    limited.add_argument("--but", type=listed, metavar="A,B", default=[], help="for which it is not to be shown")
    limited.add_argument("--scores", action="store_true", help="of the programs that score, not of the method")
    parser.add_argument("--inputs", type=int, metavar="B", help="bits of inputs for which alone it is to be shown")
    asked = parser.parse_args()
    if asked.scores:
        return same_scores(asked.commit, asked.data)
    probes = {name: runs for name, runs in PROBES.items() if name not in asked.but}
    if asked.networks is not None:
        probes = dict.fromkeys(asked.networks, OF_ONE)
    if asked.inputs is not None:
        probes = {name: tuple(run for run in runs if bits_of(run) == asked.inputs) for name, runs in probes.items()}
        if not all(probes.values()) if asked.networks else not any(probes.values()):
            parser.error(f"nothing that is compared has inputs of {asked.inputs} bits")
    with tempfile.TemporaryDirectory(prefix="equivalence-") as folder:
        earlier = checked_out(asked.commit, Path(folder) / "earlier")
        code = output_of([sys.executable, "-c", CODE], earlier).strip()
        found: list[dict[str, Any]] = []
        unlike: set[str] = set()
        for network, settings in probes.items():
            model = f"{asked.data.resolve() / 'networks' / network}.py:{network}"
            for options in settings:
                digests, names = compared(model, options, earlier, Path(folder))
                said = f"{', '.join(names)} differ" if names else "equal"
                print(f"{' '.join([network, *options])}: {said}", flush=True)
                unlike |= {network} if names else set()
                found.append({"network": network, "options": options, "sha256": digests})
    if unlike:
        print(f"The method gives other results than at that commit: {', '.join(sorted(unlike))}.")
    equal = None if asked.networks is None else [name for name in asked.networks if name not in unlike]
    if equal or not unlike:
        own = code_of(METHOD)
        shown = [probe for probe in found if probe["network"] not in unlike]
        note(own, code, equal, shown, asked.but, asked.inputs)
        others = f", but for {', '.join(asked.but)}" if asked.but else ""
        which = others if equal is None else f", of {', '.join(equal)}"
        print(f"Results of {code[:12]} hold for {own[:12]}{which}.")
    return 1 if unlike else 0


def same_scores(commit: str, data: Path) -> int:
    """Score by both programs, and note that the one stands for the other where all figures are equal."""
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="equivalence-") as folder:
        earlier, run = checked_out(commit, Path(folder) / "earlier"), Path(folder) / "run"
        code = output_of([sys.executable, "-c", SCORING_CODE], earlier).strip()
        for network in sorted(set(NETWORKS) - set(WITHOUT_LABELS)):
            model = f"{data.resolve() / 'networks' / network}.py:{network}"
            shutil.rmtree(run, ignore_errors=True)
            output_of([sys.executable, "-m", "zeroq", "quantize", model, "--out", str(run), *SMALL], earlier)
            for target in (model, str(run)):
                pictures = str(data.resolve() / NETWORKS[network])
                command = [sys.executable, "-m", "zeroq", "evaluate", target, "--data", pictures, "--json"]
                one, other = (json.loads(output_of(command, each)) | {TIMED: None} for each in (earlier, ROOT))
                what = f"{network} {'in floating point' if target == model else 'quantized'}"
                equal = all(other.get(name) == value for name, value in one.items())  # there may be new figures
                print(f"{what}: {'equal' if equal else f'{one} before, {other} now'}", flush=True)
                found.append({"network": what, "equal": equal, "figures": other})
    equal = all(each["equal"] for each in found)
    if equal:
        note(scoring_hash(), code, None, found)
    return 0 if equal else 1


def note(
    own: str,
    code: str,
    networks: list[str] | None,
    probes: list[dict[str, Any]],
    but: Sequence[str] = (),
    inputs: int | None = None,
) -> None:
    """That one program stands for another, `but` for some networks; or for some alone, beside what is noted of others.

    inputs: their bits, where it does so for these alone.
    It is noted of the program that the one stands for itself: for all networks, those among them that an earlier
    equality leaves out, or for the one in question.
    """
    known = read_json(EQUIVALENT) if EQUIVALENT.is_file() else {}
    machine, bits = devices.processor(), {} if inputs is None else {"inputs": inputs}
    if networks is None:
        exceptions = {"but": sorted(but)} if but else {}
        entry = {"as": code, **exceptions, **bits, "cpu": machine, "probes": probes}
        for stop in stops(own, code, but, inputs):
            known.setdefault(stop, []).append(entry)
    for name in networks or []:
        if (shown := earliest(own, name, inputs)) == earliest(code, name, inputs):
            continue
        entries = known.setdefault(shown, [])
        alike = (each for each in entries if each["as"] == code and "networks" in each and each.get("inputs") == inputs)
        of_some: dict[str, Any] | None = next(alike, None)
        if of_some is None:
            entries.append(of_some := {"as": code, "networks": [], **bits, "cpu": machine, "probes": []})
        of_some["networks"] = sorted({*of_some["networks"], name})
        of_some["probes"] += [probe for probe in probes if probe["network"] == name]
    write(EQUIVALENT, known)


def stops(own: str, code: str, but: Sequence[str], inputs: int | None) -> list[str]:
    """The programs that one stands for, as far as is known, where another stands for others; for any network."""
    known = read_json(EQUIVALENT) if EQUIVALENT.is_file() else {}
    entries = [entry for each in known.values() for entry in each]
    spoken_of = sorted({name for entry in entries for name in (*entry.get("networks", []), *entry.get("but", []))})
    names = [name for name in ("", *spoken_of) if name not in but]
    pairs = [(earliest(own, name, inputs), earliest(code, name, inputs)) for name in names]
    return list(dict.fromkeys(one for one, other in pairs if one != other))


def checked_out(commit: str, folder: Path) -> Path:
    """The repository as it was, in a folder."""
    folder.mkdir()
    archive = subprocess.run(["git", "archive", commit], cwd=ROOT, check=True, capture_output=True).stdout
    subprocess.run(["tar", "-x"], cwd=folder, input=archive, check=True)
    return folder


def bits_of(options: Sequence[str]) -> int:
    """Of inputs, by the options of a run."""
    return int(options[options.index("--activation-bits") + 1]) if "--activation-bits" in options else 8


def output_of(command: list[str], repository: Path) -> str:
    """What a command prints in a repository, with the package that lies there."""
    surroundings = os.environ | {"PYTHONPATH": str(repository / "src")}
    done = subprocess.run(command, cwd=repository, env=surroundings, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed in {repository}: {done.stderr.strip()}")
    return done.stdout


def compared(model: str, options: list[str], earlier: Path, folder: Path) -> tuple[dict[str, str], list[str]]:
    """Digests of the run's files by the program at hand, and the names of those that the earlier one makes otherwise.

    What is decided by measuring time (the layout of the distillation) is decided once, by the earlier program.
    """
    digests: list[dict[str, str]] = []
    for repository in (earlier, ROOT):
        out = folder / ("one" if repository == earlier else "other")
        shutil.rmtree(out, ignore_errors=True)
        if digests:
            out.mkdir()
            (out / "run.json").write_text(json.dumps(decisions(read_json(folder / "one" / "run.json"))))
        command = [sys.executable, "-m", "zeroq", "quantize", model, "--out", str(out), *SMALL, *options]
        output_of(command, repository)
        digests.append({name: digest(out / name) for name in COMPARED})
    return digests[1], [name for name in COMPARED if digests[0][name] != digests[1][name]]


def decisions(record: dict[str, Any]) -> dict[str, Any]:
    """run.json as if nothing had been finished but what was decided."""
    return record | {"files": {}, "seconds": {}}


def digest(file: Path) -> str:
    """sha256."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


if __name__ == "__main__":
    sys.exit(main())

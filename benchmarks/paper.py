"""The paper's own tables, for whoever has the data:

    python -m benchmarks.paper --imagenet DIR --coco DIR

DIR of ImageNet: the validation pictures in one folder for each class. DIR of COCO: the validation pictures and
instances.json. Trained weights are those of the zoos, downloaded once: pytorchcv for classifiers, torchvision (which
must be installed) for RetinaNet. Rows are kept in --out and not measured again; the tables are printed and written
there.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path
from typing import Any

from benchmarks.paper_document import document
from benchmarks.process import read, write
from benchmarks.published import CLASSIFIERS, DETECTOR_SETTINGS, RETINANET, SETTINGS
from benchmarks.rows import ROOT, key_of, method_code
from zeroq.accuracy import evaluate
from zeroq.errors import ZeroqError
from zeroq.models import load_model
from zeroq.options import Options
from zeroq.pipeline import quantize_model

MODELS = {name: f"pytorchcv:{name}" for name in CLASSIFIERS}
MODELS[RETINANET] = f"{ROOT / 'benchmarks' / 'retinanet_coco.py'}:retinanet_coco"
FLOAT = "float"
METRICS = {"classification": "top1", "detection": "map"}


def main(words: list[str] | None = None) -> int:
    asked = arguments(words)
    failed = False
    for network, setting in rows(asked):
        print(f"{network}, {setting}: ", end="", flush=True)
        record = bring_up_to_date(network, setting, asked)
        failed |= record["error"] is not None
        print(record["error"] or f"{100 * record['accuracy']:.2f}", flush=True)
    text = document(results(asked))
    (asked.out / "paper.md").write_text(text, encoding="utf-8")
    print(f"\n{text}")
    return 1 if failed else 0


def arguments(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.paper", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--imagenet", type=Path, metavar="DIR", help="validation pictures in class folders")
    parser.add_argument("--coco", type=Path, metavar="DIR", help="validation pictures and instances.json")
    parser.add_argument("--networks", type=lambda text: text.split(","), default=list(MODELS), help=", ".join(MODELS))
    parser.add_argument("--settings", type=lambda text: text.split(";"), default=list(SETTINGS), help="A;B")
    parser.add_argument("--out", type=Path, default=Path("runs/paper"), help="where rows and tables are kept")
    parser.add_argument("--images", type=int, help="distilled images; by default as the effort says")
    parser.add_argument("--iterations", type=int, help="steps of their optimisation; likewise")
    parser.add_argument("--effort", default="balanced")
    parser.add_argument("--threads", type=int)
    asked = parser.parse_args(words)
    for name, known in (("networks", MODELS), ("settings", SETTINGS)):
        if unknown := [word for word in getattr(asked, name) if word not in known]:
            parser.error(f"--{name} {unknown[0]!r}: choose from {', '.join(known)}.")
    if asked.imagenet is None and asked.coco is None:
        parser.error("give --imagenet DIR, --coco DIR or both: there is nothing to measure accuracy on.")
    for name in ("imagenet", "coco"):
        if (folder := getattr(asked, name)) is not None and not folder.is_dir():
            parser.error(f"--{name} {folder} is no folder: name the one that holds the validation pictures.")
    asked.out.mkdir(parents=True, exist_ok=True)
    return asked


def rows(asked: argparse.Namespace) -> list[tuple[str, str]]:
    """Network and setting, those alone for which there are pictures."""
    chosen = [name for name in asked.networks if data_of(name, asked) is not None]
    return [(name, s) for name in chosen for s in (FLOAT, *(s for s in settings_of(name) if s in asked.settings))]


def settings_of(network: str) -> tuple[str, ...]:
    published = [setting for setting in SETTINGS if setting != "mixed at 6-bit size, A8"]  # that one is a detector's
    return DETECTOR_SETTINGS if network == RETINANET else tuple(published)


def data_of(network: str, asked: argparse.Namespace) -> Path | None:
    folder: Path | None = asked.coco if network == RETINANET else asked.imagenet
    return folder


def bring_up_to_date(network: str, setting: str, asked: argparse.Namespace) -> dict[str, Any]:
    """A row as it is kept; measured if it does not hold any more. What goes wrong is kept as its error."""
    key, file = row_key(network, setting, asked), path_of(network, setting, asked)
    known = read(file)
    if known is not None and known["key"] == key and known["error"] is None:
        return known
    facts = {"network": network, "setting": setting, "key": key, "error": None, "accuracy": None}
    try:
        facts |= measure(network, setting, asked)
    except ZeroqError as error:
        facts["error"] = str(error)
    write(file, facts)
    return facts


def measure(network: str, setting: str, asked: argparse.Namespace) -> dict[str, Any]:
    """Accuracy of one network in one setting, and the size and the seconds of a quantized one."""
    model, data = MODELS[network], str(data_of(network, asked))
    if network == RETINANET and importlib.util.find_spec("torchvision") is None:
        return {"error": "torchvision, whose weights it has, is not installed: pip install 'zeroq-quant[torchvision]'."}
    if setting == FLOAT:
        found = evaluate(model, data=data, threads=asked.threads)
        return {"accuracy": found[METRICS[found["task"]]], "pictures": found["images"]}
    further = {name: getattr(asked, name) for name in ("images", "iterations", "effort", "threads")}
    out = asked.out / network  # one for all settings: they have the same distilled images
    run = quantize_model(load_model(model), Options.of(**SETTINGS[setting], **further), out)
    found = evaluate(str(out), data=data, threads=asked.threads)
    return {
        "accuracy": found[METRICS[found["task"]]],
        "agreement": found["agreement"],
        "pictures": found["images"],
        "onnx_bytes": run.result["onnx_bytes"],
        "average_bits": run.result["average_bits"],
        "seconds": sum(spent or 0.0 for spent in run.result["seconds"].values()),
    }


def row_key(network: str, setting: str, asked: argparse.Namespace) -> str:
    further = [asked.images, asked.iterations, asked.effort]
    parts = [network, setting, SETTINGS.get(setting), further, str(data_of(network, asked)), method_code(network)]
    return key_of(parts)


def path_of(network: str, setting: str, asked: argparse.Namespace) -> Path:
    words = "-".join(setting.replace(",", "").split())
    folder: Path = asked.out
    return folder / f"{network}-{words}.json"


def results(asked: argparse.Namespace) -> dict[tuple[str, str], dict[str, Any]]:
    """What is kept, by network and setting."""
    every = [(name, setting) for name in MODELS for setting in (FLOAT, *settings_of(name))]
    return {row: record for row in every if (record := read(path_of(*row, asked))) is not None}


if __name__ == "__main__":
    sys.exit(main())

"""What `zeroq restatistic` is worth in another domain, corrupted pictures:

    python -m benchmarks.domains --data ../shared/data

Statistics are measured on the even places of the test pictures, without their labels; accuracy is reported on the odd
ones. Results go to benchmarks/results/domains/, one file a network; docs/domains.md is written anew.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.corruptions import CORRUPTIONS, SEVERITIES, corrupted
from benchmarks.document import interval, table
from benchmarks.halves import scores
from benchmarks.measure import from_hex, to_hex
from benchmarks.paired import paired_difference
from benchmarks.process import read, write
from benchmarks.rows import NETWORKS, ROOT, key_of, method_code, program, sources
from zeroq.accuracy import classes_of, in_inference
from zeroq.adaptation import restatistic
from zeroq.evaluate import onnx_predictor, open_data
from zeroq.models import LoadedModel, load_model
from zeroq.options import Options
from zeroq.pipeline import quantize_model
from zeroq.whole_files import read_json

RESULTS, DOCUMENT = ROOT / "benchmarks" / "results" / "domains", ROOT / "docs" / "domains.md"
DEFAULT = "resnet20_cifar10,resnet18_cifar10"
CASES = [("none", 0), *((name, severity) for name in CORRUPTIONS for severity in SEVERITIES)]
METHOD = ("adaptation.py", "evaluate/restatistic.py")  # beside what decides accuracy in general
HEAD = """# Another domain

Written by `python -m benchmarks.domains --data ../shared/data`; change nothing here by hand.

Pictures of another domain than the training's give a network other statistics than its BatchNorms remember, and it
loses accuracy. `zeroq restatistic MODEL --data FOLDER --out FILE` measures them again on pictures without labels, and
`zeroq quantize MODEL --weights FILE --input-mean ... --input-std ...` quantizes for that domain, from the new
statistics alone. The domains here are CIFAR-10 pictures with noise, blur or less contrast, at the strengths of
CIFAR-10-C. Statistics are of the even places of the test pictures; top-1 in per cent is of the odd ones. Differences
are in points on the same pictures, with their paired 90 % interval. W8A8 is the ONNX file in onnxruntime.

It pays only where the domain really differs. On pictures like those of the training (the row "none", and the weakest
blur and contrast) statistics measured again gain nothing, and may be worse than the training's own: by 3 points for
ResNet20, whose running statistics CIFAR-10's test pictures do not have, and by none for ResNet18. One batch of all
pictures gives the same, so it is not the batches. Try it where the network is known to fail, on labelled pictures. A
network marked `stale` was measured with another version of the method.
"""


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.domains")
    parser.add_argument("--data", type=Path, required=True, help="the folder of networks and pictures")
    parser.add_argument("--networks", default=DEFAULT)
    parser.add_argument("--effort", default="balanced")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--markdown-only", action="store_true", help="measure nothing, write the document again")
    asked = parser.parse_args()
    for name in () if asked.markdown_only else asked.networks.split(","):
        bring_up_to_date(name, asked.data.resolve(), Options.of(effort=asked.effort, threads=asked.threads))
    write_document()
    return 0


def bring_up_to_date(name: str, data: Path, options: Options) -> None:
    """Measure every case of a network that has no result of this method."""
    path, key = RESULTS / f"{name}.json", key_for(name, options.effort)
    fresh: dict[str, Any] = {"network": name, "effort": options.effort, "key": key, "cases": {}}
    known = read(path)
    record = known if known is not None and known["key"] == key else fresh
    with np.load(data / f"{NETWORKS[name]}_test_a.npz") as arrays:
        pixels, labels = arrays["images"], arrays["labels"]
    for corruption, severity in CASES:
        title = f"{corruption} {severity}"
        if title in record["cases"]:
            continue
        changed = pixels if corruption == "none" else corrupted(pixels, corruption, severity)
        record["cases"][title] = measure(f"{data / 'networks' / name}.py:{name}", changed, labels, options)
        write(path, record)
        write_document()
        print(f"{name}, {title}: {summary(record['cases'][title])}", flush=True)


def key_for(name: str, effort: str) -> str:
    """Of everything that decides a result."""
    own = [program(file.read_text(encoding="utf-8")) for file in sources(METHOD)]
    return key_of([name, effort, method_code(name), own])


def measure(source: str, pixels: NDArray[np.uint8], labels: NDArray[np.int64], options: Options) -> dict[str, Any]:
    """Which of the odd pictures are right: in float before and after, and quantized before and after."""
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        np.savez(Path(folder) / "even.npz", images=pixels[::2])
        weights = Path(folder) / "adapted.safetensors"
        told = restatistic(load_model(source), Path(folder) / "even.npz", weights)
        before, after = load_model(source), load_model(source, weights=weights)
        told_options = Options.of(
            effort=options.effort, threads=options.threads,
            input_mean=told["input_mean"], input_std=told["input_std"],
        )  # fmt: skip
        odd = pixels[1::2], labels[1::2]
        found = {
            "float": correct(in_inference(before.module), before, odd),
            "adapted": correct(in_inference(after.module), after, odd),
            "quantized": correct(quantized(before, options, Path(folder) / "plain"), before, odd),
            "adapted_quantized": correct(quantized(after, told_options, Path(folder) / "adapted"), after, odd),
        }
    return {"images": len(odd[0]), "measured_on": told["images"]} | {key: to_hex(value) for key, value in found.items()}


def quantized(model: LoadedModel, options: Options, out: Path) -> Any:
    """The W8A8 file of a network, ready to answer."""
    quantize_model(model, options, out)
    return onnx_predictor(out / "model.onnx", torch.get_num_threads())


def correct(predict: Any, model: LoadedModel, arrays: Any) -> NDArray[np.bool_]:
    """Which pictures a network has right, [N]."""
    data = open_data(arrays, model.picture(), classes_of(model))
    right: NDArray[np.bool_] = (scores(predict, data).argmax(1) == data.labels).numpy()
    return right


def write_document() -> None:
    """docs/domains.md from all results there are."""
    records = [read_json(path) for path in sorted(RESULTS.glob("*.json"))]
    stale = {each["network"] for each in records if each["key"] != key_for(each["network"], each["effort"])}
    DOCUMENT.write_text(document(records, stale), encoding="utf-8")


def document(records: list[dict[str, Any]], stale: Collection[str] = ()) -> str:
    """The page.  stale: networks whose results no longer hold."""
    parts = [HEAD.strip()]
    header = ["pictures", "severity", "float", "W8A8", "float, adapted", "W8A8, adapted", "gain in float"]
    header += ["gain in W8A8", "W8A8 to float, adapted"]
    for record in records:
        rows = [cells(title, case) for title, case in record["cases"].items()]
        images = next(iter(record["cases"].values()))
        parts.append(f"## {record['network']}{' `stale`' if record['network'] in stale else ''}")
        parts.append(
            f"Measured on {images['measured_on']} pictures, reported on {images['images']} others; effort "
            f"{record['effort']}."
        )
        parts.append(table(header, rows))
    return "\n\n".join(parts) + "\n"


def cells(title: str, case: dict[str, Any]) -> list[str]:
    """One row: shares of right pictures, and three differences."""
    name, severity = title.split()
    names = ("float", "quantized", "adapted", "adapted_quantized")
    right = {each: from_hex(case[each], case["images"]) for each in names}
    pairs = [("float", "adapted"), ("quantized", "adapted_quantized"), ("adapted", "adapted_quantized")]
    shares = [f"{100 * right[each].mean():.2f}" for each in names]
    return [name, severity, *shares, *(interval(paired_difference(right[a], right[b])) for a, b in pairs)]


def summary(case: dict[str, Any]) -> str:
    """For the terminal."""
    return ", ".join(
        f"{name} {100 * from_hex(case[name], case['images']).mean():.2f}"
        for name in ("float", "adapted", "quantized", "adapted_quantized")
    )


if __name__ == "__main__":
    sys.exit(main())

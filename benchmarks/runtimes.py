"""Which versions of onnxruntime run our files, and whether they answer alike:

    python -m benchmarks.runtimes --versions 1.15.1,1.17.3,1.20.1,1.32.0

Each version is installed into a folder of its own beside this environment (from the package index), and runs the same
files in a process of its own. Writes docs/deployment.md.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import nn

import zeroq
from benchmarks.document import table
from benchmarks.process import read, write
from benchmarks.rows import ROOT
from zeroq import devices
from zeroq.deploy.fused import count_nodes
from zeroq.evaluate import open_data
from zeroq.models import load_model
from zeroq.models.digits import load_test_split

RESULTS = ROOT / "benchmarks" / "results" / "runtimes.json"
DOCUMENT = ROOT / "docs" / "deployment.md"
VERSIONS = "1.15.1,1.16.3,1.17.3,1.18.1,1.19.2,1.20.1,1.22.1,1.24.4,1.27.0,1.30.0,1.32.0"
DIGITS = 200  # test pictures
NUMPY = {"1.15": "numpy<2", "1.16": "numpy<2", "1.17": "numpy<2", "1.18": "numpy<2"}  # what they were built with
CHILD = """
import json, sys, time
import numpy, onnxruntime
file, inputs, outputs, optimised = sys.argv[1:]
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
options.log_severity_level = 3
options.optimized_model_filepath = optimised
onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
options = onnxruntime.SessionOptions()
options.intra_op_num_threads, options.log_severity_level = 1, 3
begin = time.perf_counter()
session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
load = time.perf_counter() - begin
found = session.run(None, {"input": numpy.load(inputs)})[0]
numpy.save(outputs, found)
print(json.dumps({"load_ms": round(1000 * load, 1)}))
"""


@dataclass(frozen=True)
class Case:
    """A file with inputs and what its simulation answers."""

    name: str
    file: Path
    inputs: Path
    expected: np.ndarray[Any, np.dtype[np.float32]]


class Attention(nn.Module):
    """A convolution to tokens, one layer of attention with its norm, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 16, 2, stride=2)
        self.norm, self.attention = nn.LayerNorm(16), nn.MultiheadAttention(16, 2, batch_first=True)
        self.head = nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.embed(x).flatten(2).transpose(1, 2)
        normed = self.norm(tokens)
        attended: torch.Tensor = tokens + self.attention(normed, normed, normed, need_weights=False)[0]
        found: torch.Tensor = self.head(attended.mean(1))
        return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.runtimes", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--versions", default=VERSIONS)
    parser.add_argument("--markdown-only", action="store_true", help="measure nothing, write the document again")
    asked = parser.parse_args()
    if not asked.markdown_only:
        with tempfile.TemporaryDirectory(prefix="runtimes-") as folder:
            cases = made_cases(Path(folder))
            rows = [row for version in asked.versions.split(",") for row in measured(version, cases, Path(folder))]
        facts = {"cpu": devices.processor(), "integer_instructions": devices.integer_instructions()}
        write(RESULTS, {**facts, "rows": rows})
    record = read(RESULTS)
    if record is not None:
        DOCUMENT.write_text(document(record), encoding="utf-8")
    return 0


def made_cases(folder: Path) -> list[Case]:
    """The embedded network at several widths, and attention."""
    quick: dict[str, Any] = {"images": 16, "iterations": 4, "threads": 1}
    digits = load_model("digits")
    data = open_data(load_test_split(), digits.picture(), 10)
    inputs = torch.cat([batch for batch, _ in data.batches(100)])[:DIGITS]
    torch.manual_seed(0)
    attention, pictures = Attention().eval(), torch.randn(64, 3, 8, 8)
    wanted = {
        "digits, 8 bits": (digits.module, inputs, {}),
        "digits, 2, 4 and 8 bits": (digits.module, inputs, {"average_bits": 4}),
        "digits, 3 bits, inputs of 4": (digits.module, inputs, {"weight_bits": 3, "activation_bits": 4}),
        "attention, 8 bits": (attention, pictures, {}),
    }
    return [
        made_case(folder, name, module, values, {**quick, **options})
        for name, (module, values, options) in wanted.items()
    ]


def made_case(folder: Path, name: str, module: nn.Module, inputs: torch.Tensor, options: dict[str, Any]) -> Case:
    """Quantize, and let the simulation answer."""
    out = folder / name.replace(" ", "-").replace(",", "")
    run = zeroq.quantize(module, inputs[:2], out=out, task="classification", **options)
    with torch.inference_mode():
        expected = run.model(inputs).numpy()
    np.save(out / "inputs.npy", inputs.numpy())
    return Case(name, out / "model.onnx", out / "inputs.npy", expected)


def measured(version: str, cases: list[Case], folder: Path) -> list[dict[str, Any]]:
    """A row for each file under one version."""
    place = folder / version
    wanted = [f"onnxruntime=={version}", NUMPY.get(".".join(version.split(".")[:2]), "numpy")]
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(place), *wanted]
    installed = subprocess.run(command, capture_output=True, text=True)
    if installed.returncode:
        return [{"version": version, "file": case.name, "error": "cannot be installed here"} for case in cases]
    print(f"onnxruntime {version}", flush=True)
    return [{"version": version, "file": case.name, **run_case(case, place)} for case in cases]


def run_case(case: Case, place: Path) -> dict[str, Any]:
    """One file under the version that lies in `place`."""
    outputs, optimised = place / "outputs.npy", place / "optimised.onnx"
    words = [str(path) for path in (case.file, case.inputs, outputs, optimised)]
    done = subprocess.run(
        [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(place)!r})\n{CHILD}", *words],
        capture_output=True, text=True, env={**os.environ},
    )  # fmt: skip
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or ["failed"])[-1][:160].replace(str(place), "PLACE")}
    found = np.load(outputs)
    integer, floating = count_nodes(onnx.load(optimised))
    return {
        "load_ms": json.loads(done.stdout)["load_ms"],
        "error": None,
        "equal": float((found == case.expected).all(axis=1).mean()),
        "same_class": float((found.argmax(1) == case.expected.argmax(1)).mean()),
        "integer_nodes": sum(integer.values()),
        "float_nodes": floating,
    }


def document(record: dict[str, Any]) -> str:
    """docs/deployment.md."""
    rows = [row_of(row) for row in record["rows"]]
    header = ["onnxruntime", "file", "equal answers", "same class", "integer nodes", "float nodes", "load, ms"]
    parts = [HEAD, f"{record['cpu']}, {record['integer_instructions']}, one thread.", table(header, rows), KNOWN]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def row_of(row: dict[str, Any]) -> list[str]:
    """A line of the table."""
    if row["error"] is not None:
        return [row["version"], row["file"], f"does not run: {row['error']}", "", "", "", ""]
    floating = ", ".join(f"{count} {name}" for name, count in sorted(row["float_nodes"].items())) or "none"
    return [
        row["version"], row["file"], f"{100 * row['equal']:.1f} %", f"{100 * row['same_class']:.1f} %",
        str(row["integer_nodes"]), floating, f"{row['load_ms']:.0f}",
    ]  # fmt: skip


HEAD = """# Where a file runs

Written by `python -m benchmarks.runtimes`; change nothing here by hand.

A file uses ordinary operators of opset 18 and IR 8 (QuantizeLinear, DequantizeLinear, Conv, Gemm, and shifts, ands and
casts that unpack weights of 2 to 7 bits when it is loaded): no domain of its own, no 4-bit or 2-bit types. Below, the
same files under several versions of onnxruntime, each installed from the package index: how many answers equal those of
the simulation in every bit, how many name the same class, and what its optimised graph computes in.
"""
KNOWN = """## What is known, and what is not

- **x86 with VNNI, and with AVX2 alone**: measured. Weights of 8 bits are held to values that the 16-bit pair sums of
  the latter cannot saturate (unless `--no-portable`), so that both answer alike.
- **ARM**: not measured. onnxruntime has the same integer kernels there (with and without the dot-product instructions),
  and its 8-bit products do not saturate; the share of the time that is saved is unknown. `zeroq benchmark RUN` on the
  device says it.
- **CUDA, TensorRT, OpenVINO, CoreML, QNN and other providers**: not measured. They read QuantizeLinear and
  DequantizeLinear as well, but each has its own rules (per-channel weights, unsigned activations, widths below 8 bits
  clipped by `Clip`). Compare with `zeroq evaluate RUN --simulation` before trusting one.
- **Verification is of the machine where it ran.** `zeroq evaluate FILE.onnx --data ...` on the target machine is the
  same measurement there.
- **Every kernel gets int8 weights of zero point 0**, whatever their width: those of 2 to 6 bits are asymmetric, but
  their zero points are taken off when they are unpacked, in the file itself.
- **The input has one size**, that of the network's example: a file takes any number of pictures, and each size of them
  needs a file of its own.
- **The first load is the slow one**: weights below 8 bits are unpacked then. Saving onnxruntime's optimised graph keeps
  the load short and the file large.
"""


if __name__ == "__main__":
    sys.exit(main())

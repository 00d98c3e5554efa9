"""One network shared out among processes of one thread each, which torchrun starts:

    python -m torch.distributed.run --standalone --nproc-per-node 2 -m benchmarks.ranks NETWORK --out DIR

How long it takes with one process and with several is measured by `python -m benchmarks.scaling --shared NETWORK`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.document import kept, table
from benchmarks.published_networks import NETWORKS, build
from benchmarks.rows import ROOT
from zeroq import devices
from zeroq.models import from_module
from zeroq.options import Options
from zeroq.pipeline import quantize_model
from zeroq.ranks import started
from zeroq.run_directory import RECORD
from zeroq.whole_files import json_bytes, read_json

STAGES = ("distill", "sensitivity")
LEAST_GAIN = 1.7  # of each of these with two processes
FILES = ("distilled.safetensors", "ranges.json", "sensitivity.json", "frontier.json", "model.safetensors", "model.onnx")
SECONDS = "whole.json"  # beside the run's own files
HEAD = """## One network over several processes

`torchrun --standalone --nproc-per-node N -m zeroq quantize MODEL` shares one network out: of every batch of images each
process has a part, and of layers, settings and corrections some. Processes of one thread on one machine; *times as
fast* as one process. *Same files*: images, ranges, sensitivities, setting, weights and ONNX file are those of one
process to the byte.

{how}
"""


def main() -> None:
    """One process's part."""
    parser = argparse.ArgumentParser(prog="benchmarks.ranks", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("network", choices=list(NETWORKS))
    parser.add_argument("--images", type=int)
    parser.add_argument("--iterations", type=int)
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    network = build(asked.network)
    model = from_module(
        network.module, torch.zeros(1, *network.preprocessing.input_shape), name=asked.network, task=network.task,
        preprocess=network.preprocessing.to_dict(),
    )  # fmt: skip
    options = Options.of(
        images=asked.images, iterations=asked.iterations, precision=asked.precision, threads=1, average_bits=4
    )
    with started() as ranks:
        begin = time.perf_counter()
        quantize_model(model, options, asked.out, ranks=ranks)
        if ranks.leads:
            (asked.out / SECONDS).write_bytes(json_bytes(time.perf_counter() - begin))


def measured(name: str, counts: Sequence[int], words: Sequence[str]) -> dict[str, Any]:
    """Seconds with each number of processes, all with what the first has decided by timing; words: further options."""
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        first = Path(folder) / str(counts[0])
        for count in counts:
            out = Path(folder) / str(count)
            if out != first:
                out.mkdir()
                (out / RECORD).write_bytes((first / RECORD).read_bytes())
            subprocess.run(
                [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count),
                 "-m", "benchmarks.ranks", name, "--out", str(out), *words],
                cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=True,
            )  # fmt: skip
            record = read_json(out / RECORD)
            rows.append({
                "processes": count,
                **{stage: record["seconds"][stage] for stage in STAGES},
                "whole": read_json(out / SECONDS),
                "same_files": all((out / file).read_bytes() == (first / file).read_bytes() for file in FILES),
            })  # fmt: skip
    return {
        "network": name,
        "cpu": devices.processor(),
        "options": " ".join(words),
        "precision": "{dtype} {layout}".format(**record["precision"]),
        "rows": rows,
    }


def document(records: Sequence[dict[str, Any]]) -> list[str]:
    """The parts of the page: nothing where nothing was measured."""
    if not records:
        return []
    columns = (*STAGES, "whole")
    lines = []
    for record in records:
        one = record["rows"][0]
        for row in record["rows"]:
            cells = []
            for column in columns:
                gain, limited = one[column] / row[column], row["processes"] == 2 and column in STAGES
                limit = f" ({LEAST_GAIN}) {kept(gain >= LEAST_GAIN)}" if limited else ""
                cells += [f"{row[column]:.1f}", f"{gain:.2f}{limit}"]
            same = "yes" if row["same_files"] else "no"
            lines.append([record["network"], record["precision"], str(row["processes"]), *cells, same])
    header = ["network", "precision", "processes"]
    for column in columns:
        header += [f"{column}, s", "times as fast"]
    how = sorted({f"- {record['cpu']}, `--average-bits 4 {record['options']}`" for record in records})
    return [HEAD.format(how="\n".join(how)), table([*header, "same files"], lines)]


if __name__ == "__main__":
    main()

"""The main job on the embedded network: quantize without data, evaluate on unseen digits, show what it cost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from zeroq import accuracy, pipeline, terminal
from zeroq.models import load_model
from zeroq.options import Options

OUT = Path("runs/demo")


def main() -> None:
    """What `zeroq quantize digits --average-bits 4 --out runs/demo` and `zeroq evaluate` do."""
    with terminal.progress(quiet=False) as on_progress:
        run = pipeline.quantize_model(load_model("digits"), Options(average_bits=4), OUT, on_progress=on_progress)
        before = accuracy.evaluate("digits", data="digits", on_progress=on_progress)
        after = accuracy.evaluate(str(OUT), data="digits", on_progress=on_progress)
    console = Console(highlight=False)
    console.print(comparison(run.result, before, after))
    console.print(f"time: {terminal.stage_times(run.result)}")
    console.print(f"report: {OUT / 'report.html'}")


def comparison(result: dict[str, Any], before: dict[str, Any], after: dict[str, Any]) -> Table:
    """Float and quantized side by side."""
    table = Table("", "float", "quantized", title="digits, quantized without data")
    table.add_row("size", terminal.megabytes(result["float_bytes"]), terminal.megabytes(result["onnx_bytes"]))
    table.add_row("bits of a weight, mean", "32", f"{result['average_bits']:.2f}")
    table.add_row("layers", "", terminal.layers_by_width(result))
    table.add_row(
        f"accuracy on {after['images']} unseen digits", terminal.share(before["top1"]), terminal.share(after["top1"])
    )
    table.add_row("same class as float", "", terminal.share(after["agreement"]))
    return table


if __name__ == "__main__":
    main()

"""quantize() for many models: a run directory each and one summary; one that fails does not stop the others."""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zeroq.devices as devices
from zeroq.errors import ZeroqError
from zeroq.models import load_model
from zeroq.models.loaded import Shape
from zeroq.options import Options
from zeroq.pipeline import quantize_model
from zeroq.ranks import ALONE, Ranks
from zeroq.report import render_summary
from zeroq.version import __version__
from zeroq.whole_files import json_bytes, make_folder, write_whole

SUMMARY, PAGE = "summary.json", "summary.html"
KEPT = ("float_bytes", "onnx_bytes", "average_bits", "divergence", "forecast", "integer_share", "seconds", "warnings")

OnProgress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Entry:
    """What has come of one model: figures of its run, or why there are none."""

    model: str
    directory: str  # beside the summary
    result: dict[str, Any] | None = None
    error: str | None = None
    defect: bool = False  # the error is ours, not the model's


def quantize_many(
    models: Sequence[str],
    options: Options,
    out: Path,
    *,
    preprocess: Path | None = None,
    input_shape: Shape | None = None,
    fresh: bool = False,
    ranks: Ranks = ALONE,
    on_progress: OnProgress = lambda stage, done, total: None,
    on_error: Callable[[str], None] = lambda sentence: None,
) -> dict[str, Any]:
    """Quantize one model after another into directories below `out`; gives what summary.json holds.

    The summary is written anew after every model, and finished stages of an earlier run are used, so that an
    interrupted command that is started again goes on. on_error: is told, as it happens, what failed and why.
    ranks: processes that share the models out; the first of them writes the summary, of its own models until all are
    done. Each gives the whole.
    """
    devices.resolve(options.device, memory_limit=options.memory_limit)  # refused once, not for each model
    make_folder(out)
    entries: list[Entry] = []
    for model, directory in ranks.own(list(zip(models, directories(models, options.label), strict=True))):
        try:
            with devices.threads(options.threads):
                loaded = load_model(model, preprocess=preprocess, input_shape=input_shape)
            progress = named(on_progress, directory)
            run = quantize_model(loaded, options, out / directory, fresh=fresh, on_progress=progress)
            entries.append(Entry(model, directory, result=run.result))
        except ZeroqError as error:
            entries.append(Entry(model, directory, error=" ".join(str(error).split())))
        except Exception as error:  # a defect of ours; the others can still be done
            entries.append(Entry(model, directory, error=f"{type(error).__name__}: {error}", defect=True))
            on_error(traceback.format_exc())
        if entries[-1].error is not None:
            on_error(f"{model}: {entries[-1].error}")
        if ranks.leads:
            write_summary(out, summarized(entries, models, options))
    summary = summarized(ranks.gathered(entries), models, options)
    if ranks.leads:
        write_summary(out, summary)
    return summary


def write_summary(out: Path, summary: dict[str, Any]) -> None:
    """As JSON and as a page."""
    write_whole(out / SUMMARY, json_bytes(summary))
    write_whole(out / PAGE, render_summary(summary).encode())


def directories(models: Sequence[str], label: str) -> list[str]:
    """A directory's name for each model, as a run of it alone would have; numbered where two would have the same."""
    taken: dict[str, int] = {}
    found = []
    for model in models:
        path = Path(model)
        stem = path.stem if path.suffix and ":" not in path.name else model.rpartition(":")[2]
        name = re.sub(r"[^\w.+-]+", "_", stem)
        taken[name] = taken.get(name, 0) + 1
        found.append(f"{name}-{label}" if taken[name] == 1 else f"{name}-{label}-{taken[name]}")
    return found


def named(on_progress: OnProgress, directory: str) -> OnProgress:
    """Progress of one of many."""
    return lambda stage, done, total: on_progress(f"{directory} {stage}", done, total)


def summarized(entries: Sequence[Entry], models: Sequence[str], options: Options) -> dict[str, Any]:
    """What summary.json holds."""
    return {
        "version": __version__,
        "setting": options.label,
        "asked": len(models),
        "models": [
            {
                "model": entry.model,
                "directory": entry.directory,
                **{name: None if entry.result is None else entry.result[name] for name in KEPT},
                "error": entry.error,
                "defect": entry.defect,
            }
            for entry in entries
        ],
    }

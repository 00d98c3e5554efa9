"""quantize(): the stages in order."""

from __future__ import annotations

import json
import platform
import shutil
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import onnxruntime
import torch
from torch import Tensor, nn

import zeroq.devices as devices
import zeroq.latency as latency
import zeroq.resident as resident
from zeroq.candidates import HELD_OUT, Candidates
from zeroq.channels import ranged
from zeroq.conclusion import REPORT, RESULT, conclude
from zeroq.deploy.model_file import load_network
from zeroq.divergence import Decode, Divergence
from zeroq.errors import RunError
from zeroq.memory import plan_of
from zeroq.models import LoadedModel, from_module
from zeroq.models.meaning import Reading
from zeroq.models.several import preprocess_dict
from zeroq.options import Options
from zeroq.preparation import Prepared, prepare
from zeroq.ranks import ALONE, Ranks
from zeroq.rehearsal import rehearse
from zeroq.run_directory import RunDirectory
from zeroq.stages import FILES, Stages
from zeroq.version import __version__
from zeroq.whole_files import ELSEWHERE, json_bytes, partial, read_json

OnProgress = Callable[[str, int, int], None]  # stage, done, total


@dataclass(frozen=True)
class Run:
    """A finished run: its directory and what result.json holds."""

    directory: Path
    result: dict[str, Any]
    temporary: tempfile.TemporaryDirectory[str] | None = None  # kept as long as the run that lives in it

    @cached_property
    def model(self) -> nn.Module:
        """The quantized network, simulated in floating point. Raises RunError."""
        self.check_own()
        return load_network(self.directory / FILES["model"])[0]

    def check_own(self) -> None:
        """Raise RunError where the directory holds another run by now."""
        if read_json(self.directory / RESULT) != json.loads(json_bytes(self.result)):
            raise RunError(f"{self.directory} holds another run by now: give each its own directory with out=.")

    def save(self, out: str | Path) -> Path:
        """Copy all files of the run to a directory that does not exist yet. Raises RunError."""
        self.check_own()
        out = Path(out)
        if out.exists():
            raise RunError(f"{out} is there already: name a directory that does not exist yet.")
        copy = partial(out)
        shutil.rmtree(copy, ignore_errors=True)  # of a process that was killed
        try:
            shutil.copytree(self.directory, copy)
            return copy.rename(out)
        except OSError as error:  # shutil's own holds one for each file
            why = error.args[0][0][2] if isinstance(error, shutil.Error) else error.strerror or error
            raise RunError(f"The run cannot be saved to {out} ({why}): name another directory.") from error
        finally:
            shutil.rmtree(copy, ignore_errors=True)


def quantize(
    module: nn.Module,
    example: Tensor | tuple[Tensor, ...],
    *,
    out: str | Path | None = None,
    preprocess: Mapping[str, Any] | None = None,
    task: str | None = None,
    ignore: int | None = None,
    decode: Decode | None = None,
    divergence: Divergence | None = None,
    name: str = "network",
    on_progress: OnProgress | None = None,
    **options: Any,
) -> Run:
    """Quantize any module; options are those of `zeroq quantize`, with underscores.

    module: stays as it is, as a copy is quantized.
    example: the input [N, C, H, W], or a tuple with one tensor for each input, of any shapes with the batch first.
    preprocess: how pictures become inputs, a dictionary as PREPROCESS of a FILE.py.
    task, ignore, decode, divergence: what the output means, as TASK, IGNORE, decode and divergence of a FILE.py say it.
    out: the run directory; by default a temporary one, from which Run.save() copies.
    """
    asked = Options.of(**options)
    temporary = tempfile.TemporaryDirectory(prefix="zeroq-") if out is None else None
    directory = (Path(temporary.name) / "run" if temporary is not None else Path(str(out))).absolute()
    with devices.undisturbed():
        loaded = from_module(
            module, example, preprocess=preprocess, task=task, reading=Reading(ignore, decode, divergence), name=name
        )
        run = quantize_model(loaded, asked, directory, on_progress=on_progress)
    return Run(run.directory, run.result, temporary)


def quantize_model(
    model: LoadedModel,
    options: Options,
    out: Path,
    *,
    fresh: bool = False,
    ranks: Ranks = ALONE,
    on_progress: OnProgress | None = None,
) -> Run:
    """All stages, each resumed from the run directory where its inputs are unchanged.

    ranks: processes that share the work out. The leading one alone opens the run directory, tells the others what it
    holds, and writes what they have found; each gives the whole.
    """
    progress = on_progress or (lambda stage, done, total: None)
    device = devices.resolve(options.device, memory_limit=options.memory_limit)
    ranks = replace(ranks, device=device)
    run = RunDirectory(out, fresh=fresh)
    with (
        run if ranks.leads else nullcontext(), devices.threads(options.threads), devices.computing(device),
        resident.returned(), resident.left_alone(), ExitStack() as later,
    ):  # fmt: skip
        progress("capture", 0, 1)
        prepared = prepare(model, options)
        ranks.led(lambda _: rehearse(prepared))
        later.enter_context(resident.left_alone())  # with the modules that capturing has imported
        progress("capture", 1, 1)
        times = ranks.led(lambda _: latency.time_network(prepared, run, lambda *step: progress("latency", *step)))
        plan = plan_of(prepared, ranks)
        prepared = replace(prepared, warnings=(*prepared.warnings, *plan.warnings, *few_images(options)))
        if not plan.limited:
            later.enter_context(resident.kept())
        if ranks.leads:
            refuse_another(run, model)
            run.describe(facts(prepared, device), outdates=(RESULT, REPORT))
            latency.keep(prepared, run, times)
        prepared = latency.with_latencies(prepared, times)
        plan = ranks.led(lambda _: plan.kept(run, options.memory_limit))
        stages = Stages(run, prepared, progress, plan.amounts, ranks, device)
        images = stages.distil()
        own = images.to(device)
        stages, ranges = ranged(stages, own)
        room = plan.amounts.room(out)
        candidates = Candidates(stages.computing, own, ranges, stages.step("candidates"), room, ranks)
        table = stages.sensitivity(candidates)
        selection = stages.allocate(candidates, table)
        setting = selection.setting
        stages, candidates = stages.at(setting), candidates.at(setting)
        weight_only = stages.fastest(candidates, setting)

        def written(rounded: Callable[[], bytes]) -> dict[str, Any]:
            network = stages.round(setting, rounded, weight_only)
            file = stages.export(network, setting)
            verification = stages.verify(file, network, images)
            return conclude(
                run, stages.computing, own, table, selection, network, verification, plan, stages.latency(file)
            )

        result = ranks.led(written, lambda: stages.rounded(candidates, setting, weight_only))
    return Run(out, result)


def few_images(options: Options) -> list[str]:
    """A sentence where no image is held out from what is fitted."""
    if options.images is None or options.images >= HELD_OUT:
        return []
    return [
        f"Of fewer than {HELD_OUT} images none is held out: divergence, agreement and forecast are of those that "
        f"everything was fitted to, and too good. Ask for --images {HELD_OUT} or more."
    ]


def refuse_another(run: RunDirectory, model: LoadedModel) -> None:
    """A directory that holds the run of another network keeps it. Raises RunError."""
    other, weights = run.told.get("model"), run.told.get("weights_sha256")
    if other not in (None, model.source) and weights != model.weights_sha256 and not run.fresh:
        raise RunError(
            f"{run.path} holds a run of another network, {other}: {ELSEWHERE}, or put this one in its place with "
            "--fresh."
        )


def facts(prepared: Prepared, device: torch.device = devices.CPU) -> dict[str, Any]:
    """What run.json says of the run as a whole."""
    model = prepared.model
    return {
        "model": model.source,
        "name": model.name,
        "task": prepared.meaning.task,
        "ignore": prepared.meaning.ignore,
        "own_divergence": prepared.meaning.divergence is not None,
        "weights": None if model.weights is None else str(model.weights),
        "weights_sha256": model.weights_sha256,
        "given": None if model.given is None else list(model.given),
        "options": prepared.options.to_dict(),
        "preprocess": preprocess_dict(model.preprocessing),
        "input_shape": model.shapes,
        "doubts": [
            {"norm": doubt.norm, "kind": doubt.kind, "channels": len(doubt.channels), "of": doubt.of}
            for doubt in prepared.trust.doubts
        ],
        "versions": {
            "zeroq": __version__,
            "torch": torch.__version__,
            "onnxruntime": onnxruntime.__version__,
            "python": platform.python_version(),
        },
        "cpu": devices.processor(),
        **({} if device.type != "cuda" else {"device_name": devices.name_of(device)}),
    }

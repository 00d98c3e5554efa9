"""The command line: arguments -> one call. Progress on standard error, results on standard output, exit codes.

    0      done
    1      a defect of ours, with a traceback
    2      what was asked cannot be done: one sentence that says what to change
    130    interrupted

Whatever is slow to import is imported inside the commands, so that `zeroq --version` and `--help` answer at once.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

import zeroq.endings as endings
from zeroq.arguments import FILE, edge_bits, numbers, one_or_more_bits
from zeroq.errors import OptionError, ZeroqError
from zeroq.options import MOST_THREADS, Options
from zeroq.version import __version__

RESUME = "Interrupted: the same command again goes on where this one stopped."
Decorator = Callable[[Callable[..., None]], Callable[..., None]]


def run() -> None:
    """The console script `zeroq`."""
    sys.exit(main(sys.argv[1:]))


def main(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code; no exception leaves."""
    try:
        with commands.make_context("zeroq", list(arguments)) as context:
            commands.invoke(context)
        click.echo(nl=False)  # flushes standard output, where there is any
        return 0
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.ClickException as error:
        named = [name for name in arguments[:1] if name in commands.commands]
        return endings.end(2, endings.usage_sentence(error, named))
    except ZeroqError as error:
        return endings.end(2, str(error))
    except KeyboardInterrupt as error:
        return endings.end(130, str(error) or (RESUME if arguments[:1] == ["quantize"] else "Interrupted."))
    except BrokenPipeError:  # the reader has seen enough, as in `zeroq models | head`
        endings.silence()
        return 0
    except Exception as error:
        return endings.by_system(error)


QUANTIZE_OPTIONS: list[Decorator] = [
    click.option("--out", type=FILE, metavar="DIR", help="Run directory.  [default: runs/NAME-w8a8, ...]"),
    click.option("--weights", type=FILE, metavar="FILE", help="Safetensors, or a state_dict saved by torch."),
    click.option("--preprocess", type=FILE, metavar="FILE.json", help="How pictures become the input."),
    click.option("--input-shape", type=numbers(int, "3,224,224"), metavar="C,H,W", help="One input, without batch."),
    click.option("--average-bits", type=float, metavar="B", help="Target: mean width over all quantized weights."),
    click.option("--compression", type=float, metavar="R", help="Target: 32 over the mean width."),
    click.option("--size-mb", type=float, metavar="S", help="Target: the ONNX file is not larger than S x 10^6 bytes."),
    click.option(
        "--bit-operations",
        type=float,
        metavar="G",
        help="Bound, alone or beside a target: 10^9 multiplications per image times the bits of both factors.",
    ),
    click.option(
        "--activation-mb",
        type=float,
        metavar="S",
        help="Bound, alone or beside a target: 10^6 bytes of values between layers at one time, for one image.",
    ),
    click.option("--latency-ms", type=float, metavar="T", help="Bound likewise: milliseconds per image, timed here."),
    click.option(
        "--weight-bits",
        type=numbers(int, "2,4,8"),
        metavar="2,4,8",
        help="Candidates for each layer; one number means uniform.  [default: 8, with a target by effort]",
    ),
    click.option(
        "--activation-bits",
        type=one_or_more_bits,
        default=8,
        metavar="8",
        help="2 to 8, of the inputs of convolutions and linear layers; several, with a bound, are candidates for each."
        "  [default: 8]",
    ),
    click.option(
        "--edge-bits",
        type=edge_bits,
        metavar="8",
        help="Of the first layer and each output's last; same: as the others.  [default: 8, with a target of inputs]",
    ),
    click.option("--layer-bits", multiple=True, metavar="PATTERN=B", help="Bits by layer name; repeatable."),
    click.option("--keep-float", multiple=True, metavar="PATTERN", help="Layers that stay float; repeatable."),
    click.option("--portable/--no-portable", default=True, help="Weights saturate on no CPU.  [default: portable]"),
    click.option(
        "--fastest", is_flag=True, help="Layers whose integer kernels are slower on this machine stay float: measured."
    ),
    click.option("--effort", default="balanced", metavar="fast|balanced|best", help="[default: balanced]"),
    click.option("--sensitivity", metavar="NAME", help="Measure for the allocation; kl is the paper's."),
    click.option(
        "--reconstruct", type=int, metavar="N", help="Steps of block reconstruction, 0 for none.  [default: by effort]"
    ),
    click.option("--images", type=int, metavar="N", help="Distilled, or of --calibration.  [default: by effort]"),
    click.option("--iterations", type=int, metavar="N", help="Steps of their optimisation.  [default: by effort]"),
    click.option("--calibration", type=FILE, metavar="FOLDER", help="Your own pictures in place of distilled ones."),
    click.option("--input-mean", type=numbers(float, "0.5,0.5,0.5"), metavar="M,...", help="Of pixels in 0..1."),
    click.option("--input-std", type=numbers(float, "0.2,0.2,0.2"), metavar="D,...", help="Of pixels in 0..1."),
    click.option("--precision", default="auto", metavar="auto|fp32|bf16", help="Of the computation.  [default: auto]"),
    click.option("--seed", type=int, default=0, metavar="N", help="[default: 0]"),
    click.option("--device", default="auto", metavar="auto|cpu|cuda", help="[default: auto]"),
    click.option("--memory-limit", type=float, metavar="GB", help="Most resident memory, 10^9 bytes  [default: free]"),
    click.option("--threads", type=int, metavar="N", help="[default: all]"),
    click.option("--keep-images/--no-keep-images", default=True, help="Write and show the distilled images."),
    click.option("--fresh", is_flag=True, help="Ignore what an earlier run left in DIR."),
    click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output."),
    click.option("--quiet", is_flag=True, help="No progress."),
]


def _with(options: list[Decorator]) -> Decorator:
    """All options of a list, in its order."""

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


@click.group(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="zeroq", message="%(prog)s %(version)s")
@click.pass_context
def commands(context: click.Context) -> None:
    """A trained network in, a smaller file that runs in integers out, without any data."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


@commands.command()
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
@_with(QUANTIZE_OPTIONS)
def quantize(
    models: tuple[str, ...],
    out: Path | None,
    weights: Path | None,
    preprocess: Path | None,
    input_shape: tuple[int, int, int] | None,
    fresh: bool,
    as_json: bool,
    quiet: bool,
    **asked: Any,
) -> None:
    """Quantize MODEL into a run directory; several MODELs into directories below --out, with a summary beside them.

    MODEL is digits (the embedded network), pytorchcv:NAME, torchvision:NAME, timm:NAME, FILE.py:FUNCTION or FILE.pt2.
    """
    options = Options.of(**asked)
    if len(models) > 1:
        if weights is not None:
            raise OptionError("--weights belongs to one network: leave it out, or name one MODEL.")
        given = {"preprocess": preprocess, "input_shape": input_shape, "fresh": fresh}
        return _quantize_many(models, options, out or Path("runs"), as_json, quiet, given)

    import zeroq.devices as devices
    import zeroq.pipeline as pipeline
    import zeroq.ranks as ranks
    import zeroq.terminal as terminal
    from zeroq.models import load_model

    on_threads = devices.threads(options.threads)
    with ranks.started() as own, terminal.progress(quiet or not own.leads) as on_progress, on_threads:
        model = own.leader_first(
            lambda: load_model(models[0], weights=weights, preprocess=preprocess, input_shape=input_shape)
        )
        out = out or Path("runs") / f"{model.name}-{options.label}"
        run = pipeline.quantize_model(model, options, out, fresh=fresh, ranks=own, on_progress=on_progress)
    if own.leads and as_json:
        _echo_json(run.result)
    elif own.leads:
        terminal.show_run(run.result, run.directory, model.preprocessing)


def _quantize_many(
    models: tuple[str, ...], options: Options, out: Path, as_json: bool, quiet: bool, given: dict[str, Any]
) -> None:
    """A run for each, and one summary; exits with 1 or 2 where some failed, once all others are done.

    Processes that torchrun starts share the models out, and the first of them speaks.
    """
    import zeroq.many as many
    import zeroq.ranks as ranks
    import zeroq.terminal as terminal

    with ranks.started() as own, terminal.progress(quiet or not own.leads) as on_progress:
        summary = many.quantize_many(
            models, options, out, ranks=own, on_progress=on_progress,
            on_error=lambda text: click.echo(f"zeroq: {text}", err=True), **given,
        )  # fmt: skip
    if own.leads and as_json:
        _echo_json(summary)
    elif own.leads:
        terminal.show_summary(summary, out)
    failed = [entry for entry in summary["models"] if entry["error"] is not None]
    if failed:
        raise click.exceptions.Exit(1 if any(entry["defect"] for entry in failed) else 2)


@commands.command()
@click.argument("target", metavar="RUN|FILE.onnx|MODEL")
@click.option("--data", required=True, metavar="PATH", help="Folder or npz, by the task; digits has a test split.")
@click.option("--weights", type=FILE, metavar="FILE", help="Safetensors, or a state_dict saved by torch.")
@click.option("--preprocess", type=FILE, metavar="FILE.json", help="How pictures become the input.")
@click.option("--batch", type=click.IntRange(min=1), metavar="N", help="Pictures at once.")
@click.option("--threads", type=click.IntRange(1, MOST_THREADS), metavar="N", help="[default: all]")
@click.option("--reference", metavar="MODEL", help="Float network for agreement.  [default: what run.json names]")
@click.option("--simulation", is_flag=True, help="Of RUN the PyTorch model, in place of the ONNX file.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def evaluate(target: str, data: str, as_json: bool, **asked: Any) -> None:
    """Accuracy on labelled data; a MODEL is evaluated in floating point."""
    import zeroq.accuracy as accuracy
    import zeroq.terminal as terminal

    with terminal.progress(quiet=False) as on_progress:
        result = accuracy.evaluate(target, data=data, on_progress=on_progress, on_warning=terminal.warn, **asked)
    if as_json:
        _echo_json(result)
    else:
        terminal.show_evaluation(result, target)


@commands.command()
@click.argument("run_directory", metavar="RUN", type=FILE)
def report(run_directory: Path) -> None:
    """Write report.html again, from what RUN holds."""
    import zeroq.conclusion as conclusion

    click.echo(conclusion.write_report(run_directory))


@commands.command()
@click.argument("pattern", default="*", metavar="[PATTERN]")
def models(pattern: str) -> None:
    """The names that MODEL may take."""
    from zeroq.models import model_names

    names = model_names(pattern)
    if not names:
        raise OptionError(f"No name matches {pattern!r}: * stands for any text, and zeroq models lists every name.")
    click.echo("\n".join(names))


@commands.command()
@click.argument("run_directory", metavar="RUN", type=FILE)
@click.option("--batch", type=numbers(int, "1,32"), default=(1, 32), metavar="1,32", help="Inputs at once.")
@click.option("--threads", type=click.IntRange(1, MOST_THREADS), metavar="N", help="[default: all]")
@click.option(
    "--static",
    metavar="FOLDER|distilled",
    help="onnxruntime's own static quantization beside it, its ranges from these pictures.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
@click.option("--quiet", is_flag=True, help="No progress.")
def benchmark(run_directory: Path, batch: tuple[int, ...], as_json: bool, quiet: bool, **asked: Any) -> None:
    """How fast RUN's file is here, beside the float network's, run in turns."""
    if min(batch) < 1:
        raise OptionError(f"--batch {','.join(map(str, batch))}: give numbers of 1 or more.")

    import zeroq.speed as speed
    import zeroq.terminal as terminal

    with terminal.progress(quiet) as on_progress:
        result = speed.benchmark(run_directory, batch=batch, on_progress=on_progress, **asked)
    if as_json:
        _echo_json(result)
    else:
        terminal.show_benchmark(result, str(run_directory))


@commands.command()
@click.argument("model", metavar="MODEL")
@click.option(
    "--data", type=FILE, required=True, metavar="FOLDER", help="Pictures, nested or not, or an npz; no labels."
)
@click.option("--out", type=FILE, required=True, metavar="FILE", help="Safetensors, for --weights.")
@click.option("--weights", type=FILE, metavar="FILE", help="Safetensors, or a state_dict saved by torch.")
@click.option("--preprocess", type=FILE, metavar="FILE.json", help="How pictures become the input.")
@click.option("--batch", type=click.IntRange(min=2), metavar="N", help="Pictures at once.  [default: 64]")
@click.option("--threads", type=click.IntRange(1, MOST_THREADS), metavar="N", help="[default: all]")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
@click.option("--quiet", is_flag=True, help="No progress.")
def restatistic(
    model: str,
    data: Path,
    out: Path,
    weights: Path | None,
    preprocess: Path | None,
    as_json: bool,
    quiet: bool,
    **asked: Any,
) -> None:
    """BatchNorm statistics of another domain, from pictures without labels.

    zeroq quantize MODEL --weights FILE then quantizes for that domain.
    """
    import zeroq.adaptation as adaptation
    import zeroq.terminal as terminal
    from zeroq.models import load_model

    with terminal.progress(quiet) as on_progress:
        loaded = load_model(model, weights=weights, preprocess=preprocess)
        result = adaptation.restatistic(loaded, data, out, on_progress=on_progress, **asked)
    if as_json:
        _echo_json(result)
    else:
        terminal.show_restatistic(result)


def _echo_json(result: dict[str, Any]) -> None:
    click.echo(json.dumps(result, allow_nan=False))

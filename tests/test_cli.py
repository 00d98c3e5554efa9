"""The command line from outside: exit codes, what stands on which stream, every sentence of its own.

What the commands call is replaced by recorders here; tests/test_pipeline.py runs the real thing.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from zeroq.cli import main
from zeroq.errors import ModelError, VerificationError
from zeroq.options import Options
from zeroq.preprocessing import Preprocessing
from zeroq.ranks import ALONE, Ranks
from zeroq.terminal import show_evaluation

RESULT: dict[str, Any] = {
    "model": "digits",
    "task": "classification",
    "float_bytes": 400_000,
    "onnx_bytes": 80_000,
    "average_bits": 3.9,
    "layers": [{"weight_bits": 4}, {"weight_bits": 4}, {"weight_bits": 2}],
    "divergence": {"mean": 0.00123, "agreement": 0.985, "images": 64},
    "bounds": {},
    "forecast": {"metric": "top1", "drop": 0.0123, "low": -0.002, "high": 0.026},
    "integer_share": 0.999,
    "not_quantized": [{"name": "head[0]", "reason": "an output whose finer values matter"}],
    "verification": {"agreement": 1.0},
    "seconds": {"capture": 1.25, "distill": 10.5, "load": 0.5},
    "warnings": ["PREPROCESS was guessed [ImageNet]"],
}
EVALUATION = {
    "images": 596, "task": "classification", "top1": 0.985, "top5": 1.0, "float": None, "agreement": None,
}  # fmt: skip

BENCHMARK = {
    "cpu": "Some CPU", "integer_instructions": "avx2", "threads": 2,
    "rows": [
        {"file": "float", "batch": 1, "median_ms": 3.0, "low_ms": 2.9, "high_ms": 3.3},
        {"file": "quantized", "batch": 1, "median_ms": 1.25, "low_ms": 1.2, "high_ms": 1.5},
        {"file": "onnxruntime_static", "batch": 1, "median_ms": 6.0, "low_ms": 5.0, "high_ms": 7.0},
    ],
    "load_ms": {"float": 10.0, "quantized": 21.5, "onnxruntime_static": 12.0},
    "float_nodes": {}, "warnings": ["[slow] at batch 1"],
}  # fmt: skip

DONE = {name: RESULT[name] for name in ("float_bytes", "onnx_bytes", "average_bits", "divergence", "seconds")}
MANY: dict[str, dict[str, Any]] = {
    "one": {"directory": "one-w8a8", "error": None, "defect": False, **DONE},
    "other": {"directory": "other-w8a8", "error": None, "defect": False, **DONE},
    "lost": {"directory": "lost-w8a8", "error": "There is no model", "defect": False},
    "broken": {"directory": "broken-w8a8", "error": "KeyError: 1", "defect": True},
}

SENTENCES = [
    ("quantiz", "zeroq: No such command 'quantiz', did you mean 'quantize'?"),
    ("quantize", "zeroq: Missing argument 'MODEL...'; zeroq quantize --help says what can be given."),
    ("quantize digits --sed 1", "zeroq: No such option '--sed', did you mean '--seed'?"),
    (
        "quantize digits --seed",
        "zeroq: Option '--seed' requires an argument; zeroq quantize --help says what can be given.",
    ),
    (
        "quantize digits --images many",
        "zeroq: Invalid value for '--images': 'many' is not a valid integer; zeroq quantize --help says what can be "
        "given.",
    ),
    (
        "quantize digits --weight-bits 2,x",
        "zeroq: Invalid value for '--weight-bits': '2,x' is not written like 2,4,8; zeroq quantize --help says what "
        "can be given.",
    ),
    ("quantize digits --weight-bits 9", "zeroq: --weight-bits 9: choose 2 to 8."),
    (
        "quantize digits --weight-bits 2,4",
        "zeroq: --weight-bits 2,4 leaves a choice for each layer, which needs a target: add --average-bits, "
        "--compression, --size-mb or --bit-operations, or name one width.",
    ),
    (
        "quantize digits --average-bits 4 --size-mb 1",
        "zeroq: --average-bits 4 and --size-mb 1 are each a target of their own: keep one of --average-bits, "
        "--compression and --size-mb.",
    ),
    (
        "quantize digits --activation-bits 4,8",
        "zeroq: --activation-bits 4,8 leaves a choice for each layer's input, which needs a bound on what inputs take: "
        "add --bit-operations, --activation-mb or --latency-ms, or name one width.",
    ),
    ("quantize digits --edge-bits wide", "zeroq: --edge-bits wide: choose 2 to 8, or same."),
    ("quantize digits --effort most", "zeroq: --effort most: choose fast, balanced or best."),
    (
        "quantize digits --latency-ms 0",
        "zeroq: --latency-ms 0: give a number above 0, in milliseconds for one image.",
    ),
    ("quantize digits --memory-limit 0", "zeroq: --memory-limit 0: give GB of 10^9 bytes, above 0."),
    ("quantize a b --weights w", "zeroq: --weights belongs to one network: leave it out, or name one MODEL."),
    ("evaluate digits", "zeroq: Missing option '--data'; zeroq evaluate --help says what can be given."),
    (
        "evaluate runs/x --data y --batch 0",
        "zeroq: Invalid value for '--batch': 0 is not in the range x>=1; zeroq evaluate --help says what can be given.",
    ),
    (
        "benchmark runs/x --batch 1,x",
        "zeroq: Invalid value for '--batch': '1,x' is not written like 1,32; zeroq benchmark --help says what can be "
        "given.",
    ),
    ("benchmark runs/x --batch 4,0", "zeroq: --batch 4,0: give numbers of 1 or more."),
    (
        "benchmark",
        "zeroq: Missing argument 'RUN'; zeroq benchmark --help says what can be given.",
    ),
    (
        "restatistic digits --data x",
        "zeroq: Missing option '--out'; zeroq restatistic --help says what can be given.",
    ),
]


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Record what the commands call, in place of the pipeline and the zoo."""
    record: list[tuple[Any, ...]] = []

    def load_model(model: str, **given: Any) -> SimpleNamespace:
        record.append(("load_model", model, given))
        print("a user's file prints")
        preprocessing = Preprocessing(size=(8, 8), mean=(0.5,), std=(0.25,), channels="L", resize="stretch")
        return SimpleNamespace(name=model, preprocessing=preprocessing)

    def quantize(
        model: Any, options: Options, out: Path, *, fresh: bool, ranks: Ranks, on_progress: Callable[..., None]
    ) -> Any:
        assert ranks == ALONE
        record.append(("quantize", model.name, options, out, fresh))
        on_progress("distill", 1, 2)
        on_progress("distill", 2, 2)
        return SimpleNamespace(directory=out, result=RESULT)

    def evaluate(target: str, *, on_progress: Any, on_warning: Callable[[str], None], **given: Any) -> dict[str, Any]:
        record.append(("evaluate", target, given))
        on_warning("TASK is guessed [N, K]")
        return EVALUATION

    def benchmark(run: Path, *, on_progress: Any, **given: Any) -> dict[str, Any]:
        record.append(("benchmark", run, given))
        return BENCHMARK

    def quantize_many(models: Any, options: Options, out: Path, **given: Any) -> dict[str, Any]:
        told = {given.pop("on_progress"), given.pop("on_error")}
        assert all(callable(each) for each in told) and given.pop("ranks") == ALONE
        record.append(("quantize_many", models, options, out, given))
        return {"setting": "w8a8", "models": [MANY[model] for model in models]}

    replaced: dict[str, dict[str, Callable[..., Any]]] = {
        "many": {"quantize_many": quantize_many},
        "speed": {"benchmark": benchmark},
        "pipeline": {"quantize_model": quantize},
        "accuracy": {"evaluate": evaluate},
        "conclusion": {"write_report": lambda run: run / "report.html"},
        "models": {
            "load_model": load_model,
            "model_names": lambda pattern: ["digits"] if pattern in "digits*" else [],
        },
    }
    for name, functions in replaced.items():
        module = ModuleType(f"zeroq.{name}")
        vars(module).update(functions)
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setattr("zeroq." + module.__name__.split(".")[1], module, raising=False)
    return record


@pytest.mark.parametrize(("arguments", "sentence"), SENTENCES, ids=[arguments for arguments, _ in SENTENCES])
def test_what_cannot_be_done_ends_in_one_sentence_and_2(
    arguments: str, sentence: str, capsys: pytest.CaptureFixture[str], called: list[Any]
) -> None:
    assert main(arguments.split()) == 2
    assert capsys.readouterr() == ("", sentence + "\n")
    assert called == []


def test_quantize_hands_on_what_was_asked(called: list[Any]) -> None:
    arguments = (
        "quantize digits --average-bits 4 --weight-bits 2,3,8 --edge-bits 8 --layer-bits stage*=3 --layer-bits fc=8 "
        "--keep-float a --keep-float b --no-portable --effort fast --images 8 --iterations 5 --input-mean 0.5 "
        "--input-std 0.2 --precision fp32 --seed 3 --threads 1 --no-keep-images --activation-bits 6 --sensitivity kl "
        "--weights w.safetensors --preprocess p.json --input-shape 1,8,8 --out some/where --fresh --fastest"
    )
    assert main(arguments.split()) == 0
    options = Options(
        average_bits=4.0, weight_bits=(2, 3, 8), edge_bits=8, layer_bits=(("stage*", 3), ("fc", 8)),
        keep_float=("a", "b"), portable=False, effort="fast", images=8, iterations=5, input_mean=(0.5,),
        input_std=(0.2,), precision="fp32", seed=3, threads=1, keep_images=False, activation_bits=6, sensitivity="kl",
        fastest=True,
    )  # fmt: skip
    given = {"weights": Path("w.safetensors"), "preprocess": Path("p.json"), "input_shape": (1, 8, 8)}
    assert called == [("load_model", "digits", given), ("quantize", "digits", options, Path("some/where"), True)]


def test_bounds_and_bits_of_inputs_are_handed_on(called: list[Any]) -> None:
    arguments = "quantize digits --bit-operations 1.5 --activation-mb 0.5 --activation-bits 4,6"
    assert main(arguments.split()) == 0
    assert called[-1][2] == Options(bit_operations=1.5, activation_mb=0.5, activation_bits=(4, 6))


@pytest.mark.parametrize(
    ("arguments", "folder"),
    [
        ("", "digits-w8a8"),
        ("--average-bits 4", "digits-avg4-a8"),
        ("--weight-bits 4 --activation-bits 6", "digits-w4a6"),
    ],
)
def test_the_run_directory_has_a_name_by_itself(arguments: str, folder: str, called: list[Any]) -> None:
    assert main(["quantize", "digits", *arguments.split()]) == 0
    assert called[-1][3] == Path("runs") / folder


@pytest.mark.parametrize(
    ("models", "code"), [("one other", 0), ("one lost", 2), ("lost other broken", 1)], ids=["done", "refused", "defect"]
)
def test_several_models_end_in_one_summary(
    models: str, code: int, called: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["quantize", *models.split(), "--fresh", "--out", "some", "--quiet"]) == code
    given = {"preprocess": None, "input_shape": None, "fresh": True}
    assert called == [("quantize_many", tuple(models.split()), Options(), Path("some"), given)]
    output = capsys.readouterr().out
    assert all(f"{name}-w8a8" in output for name in models.split())
    assert ("failed" in output) == (code > 0) and output.splitlines()[-1] == "summary: some/summary.html"


def test_benchmark_shows_each_file_beside_float(called: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert main("benchmark runs/x --batch 1,8 --threads 2 --static pictures --quiet".split()) == 0
    assert called == [("benchmark", Path("runs/x"), {"batch": (1, 8), "threads": 2, "static": "pictures"})]
    output = capsys.readouterr().out
    for text in ("runs/x", "1.2 to 1.5", "2.40", "0.50", "21.5", "Some CPU, avx2, 2 threads"):
        assert text in output
    assert output.splitlines()[-1] == "warning: [slow] at batch 1"


def test_benchmark_as_json(called: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", "runs/x", "--json"]) == 0
    assert called[-1][2] == {"batch": (1, 32), "threads": None, "static": None}
    assert json.loads(capsys.readouterr().out) == BENCHMARK


def test_results_and_progress_have_a_stream_each(called: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["quantize", "digits"]) == 0
    output, progress = capsys.readouterr()
    assert progress.splitlines() == ["a user's file prints", "distill: 2 of 2, 0.0 s"]
    for text in (
        "0.400 MB",
        "0.080 MB, 1 / 5.0",
        "3.90, 1 layer at 2, 2 at 4",
        "1.2 points, -0.2 to 2.6",
        "98.50 %",
        "stretched to 8 x 8, bilinear",
        "head[0]",
        "500 ms",
        "11.8 s",
    ):
        assert text in output
    assert output.splitlines()[-2:] == [
        "warning: PREPROCESS was guessed [ImageNet]",
        f"report: {Path('runs/digits-w8a8/report.html')}",
    ]


def test_json_is_one_object_and_nothing_else(called: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["quantize", "digits", "--json", "--quiet"]) == 0
    output, progress = capsys.readouterr()
    assert json.loads(output) == RESULT
    assert progress == "a user's file prints\n"


def test_evaluate_hands_on_what_was_asked(called: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert main("evaluate runs/x --data digits --batch 2 --threads 1 --reference y --simulation --json".split()) == 0
    given = {
        "data": "digits", "batch": 2, "threads": 1, "reference": "y", "simulation": True, "weights": None,
        "preprocess": None,
    }  # fmt: skip
    assert called == [("evaluate", "runs/x", given)]
    output, progress = capsys.readouterr()
    assert progress == "warning: TASK is guessed [N, K]\n"
    assert json.loads(output) == EVALUATION


def test_an_evaluation_is_shown_in_percent(called: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "runs/x", "--data", "digits"]) == 0
    output = capsys.readouterr().out
    assert "98.50 %" in output and "596" in output and "agreement" not in output and "float" not in output


def test_an_evaluation_is_shown_beside_the_float_network(capsys: pytest.CaptureFixture[str]) -> None:
    show_evaluation(EVALUATION | {"float": {"top1": 0.99, "top5": 1.0}, "agreement": 0.97}, "runs/x")
    output = capsys.readouterr().out
    assert "98.50 %, in float 99.00 %" in output and "100.00 %, in float 100.00 %" in output and "97.00 %" in output


def test_report_prints_where_the_page_is(called: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "runs/x"]) == 0
    assert capsys.readouterr().out == f"{Path('runs/x/report.html')}\n"


def test_models_lists_names(called: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0
    assert capsys.readouterr().out == "digits\n"
    assert main(["models", "x"]) == 2
    assert capsys.readouterr().err == (
        "zeroq: No name matches 'x': * stands for any text, and zeroq models lists every name.\n"
    )


def fail_with(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def load_model(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(sys.modules["zeroq.models"], "load_model", load_model)


def test_what_a_person_can_mend_is_one_line(
    called: list[Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_with(monkeypatch, ModelError("There is no model\n  'x': zeroq models lists them."))
    assert main(["quantize", "x"]) == 2
    assert capsys.readouterr() == ("", "zeroq: There is no model 'x': zeroq models lists them.\n")


def test_a_name_that_is_too_long_for_a_file_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    name = "x" * 300
    for arguments in (["evaluate", name, "--data", "digits"], ["evaluate", "digits", "--data", name], ["report", name]):
        assert main(arguments) == 2
        output, message = capsys.readouterr()
        assert output == "" and message.splitlines()[-1].startswith(f"zeroq: {name}")
        assert message.endswith(" cannot be a path, as a name in it is too long: shorten it.\n")


@pytest.mark.parametrize("error", [VerificationError("conv1: 3 steps"), ValueError("a defect")])
def test_a_defect_of_ours_has_a_traceback(
    error: Exception, called: list[Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_with(monkeypatch, error)
    assert main(["quantize", "x"]) == 1
    output, message = capsys.readouterr()
    assert output == "" and message.startswith("Traceback") and str(error) in message


def test_an_interruption_says_how_to_go_on(
    called: list[Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_with(monkeypatch, KeyboardInterrupt())
    assert main(["quantize", "x"]) == 130
    assert capsys.readouterr().err == "zeroq: Interrupted: the same command again goes on where this one stopped.\n"


def run_outside(*arguments: str, **settings: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "zeroq", *arguments], capture_output=True, text=True, **settings)


def test_the_module_is_the_command() -> None:
    done = run_outside("--version", stdin=subprocess.DEVNULL)
    assert (done.returncode, done.stdout, done.stderr) == (0, "zeroq 0.1.0\n", "")
    refused = run_outside("quantize", "digits", "--effort", "most")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr == "zeroq: --effort most: choose fast, balanced or best.\n"


def test_without_arguments_the_help_is_shown() -> None:
    done = run_outside()
    assert done.returncode == 0 and done.stdout.startswith("Usage: zeroq")


def test_a_reader_that_leaves_early_is_no_error() -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "zeroq", "--help"], stdout=write, stderr=subprocess.PIPE, text=True
        )
    finally:
        os.close(write)
    assert (done.returncode, done.stderr) == (0, "")


def test_an_interrupt_from_outside_ends_with_130(tmp_path: Path) -> None:
    """SIGINT while a user's own file is loaded."""
    (tmp_path / "slow.py").write_text(
        "import sys, time\nprint('loading', file=sys.stderr, flush=True)\ntime.sleep(60)\n"
    )
    command = [sys.executable, "-m", "zeroq", "quantize", f"{tmp_path}/slow.py:network", "--quiet"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None and process.stderr.readline() == "loading\n"
        process.send_signal(signal.SIGINT)
        assert process.stderr.read() == "zeroq: Interrupted: the same command again goes on where this one stopped.\n"
    assert process.returncode == 130

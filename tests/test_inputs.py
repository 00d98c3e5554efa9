"""Networks of several inputs, of vectors, signals and indices, through the whole pipeline and the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import zeroq
from tests.operators import OPERATORS
from tests.runs import QUICK, QUICKLY
from zeroq.accuracy import evaluate
from zeroq.cli import main
from zeroq.distillation import distill_several, neutral_statistic
from zeroq.errors import ModelError, OptionError
from zeroq.graph import as_inputs, as_tuple, capture, chunks, count_images, slice_images
from zeroq.models import load_model
from zeroq.numbers.tensor_file import read_tensor_file
from zeroq.pipeline import Run
from zeroq.precision import Precision

NAMES = ("two_pictures", "picture_and_vector", "two_vectors", "batch_norm_1d", "signal")


class Indexed(nn.Module):
    """An embedding of indices, and a mask of numbers for each."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.hidden, self.head = nn.Embedding(16, 8), nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, indices: Tensor, mask: Tensor) -> Tensor:
        return self.head((torch.relu(self.hidden(self.table(indices))) * mask[..., None]).mean(1))


def answers(run: Run, inputs: tuple[Tensor, ...]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Of the simulation and of the file."""
    session = onnxruntime.InferenceSession(run.directory / "model.onnx", providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]
    found = session.run(None, {name: value.numpy() for name, value in zip(names, inputs, strict=True)})
    with torch.inference_mode():
        return run.model(*inputs).numpy(), found[0]


@pytest.mark.parametrize("name", NAMES)
def test_a_network_goes_the_whole_way(name: str) -> None:
    case = OPERATORS[name]
    module, example = case.make(), case.inputs(2)
    run = zeroq.quantize(module, example, name=name, average_bits=6, **QUICK)
    record = json.loads((run.directory / "run.json").read_bytes())
    shapes = [list(shape) for shape in case.shapes]
    assert record["input_shape"] == (shapes if len(shapes) > 1 else shapes[0])
    assert run.result["divergence"]["mean"] < 0.05 and run.result["integer_share"] == 1
    assert (run.directory / "report.html").stat().st_size > 10_000
    stored = read_tensor_file(run.directory / "distilled.safetensors")[0]
    assert sorted(list(value.shape[1:]) for value in stored.values()) == sorted(shapes)
    inputs = case.inputs(7, seed=3)
    simulated, computed = answers(run, inputs)
    np.testing.assert_allclose(simulated, computed, rtol=1e-3, atol=1e-3 * np.abs(simulated).max())
    with torch.inference_mode():
        assert np.corrcoef(module(*inputs).numpy().ravel(), computed.ravel())[0, 1] > 0.9
    names = [value.name for value in onnx.load(run.directory / "model.onnx").graph.input]
    assert names == (["input"] if len(shapes) == 1 else [f"input{index}" for index in range(len(shapes))])


def test_indices_are_drawn_from_the_example_and_stay_whole() -> None:
    torch.manual_seed(0)
    example = (torch.tensor([[3, 5, 7]]), torch.ones(1, 3))
    run = zeroq.quantize(Indexed().eval(), example, **QUICK)
    stored = read_tensor_file(run.directory / "distilled.safetensors")[0]
    assert set(stored["input0"].unique().tolist()) == {3, 5, 7} and stored["input0"].dtype == torch.int64
    assert any(warning.startswith("Inputs 1 [3], 2 [3] are no pictures") for warning in run.result["warnings"])
    inputs = (torch.tensor([[1, 2, 3], [4, 15, 0]]), torch.rand(2, 3))
    simulated, computed = answers(run, inputs)
    np.testing.assert_allclose(simulated, computed, atol=0.01 * np.abs(simulated).max())


def test_an_interrupted_run_goes_on_with_the_same_inputs(tmp_path: Path) -> None:
    case = OPERATORS["picture_and_vector"]
    zeroq.quantize(case.make(), case.inputs(2), out=tmp_path / "run", **QUICK)
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir() if path.suffix != ".json"}
    (tmp_path / "run" / "model.onnx").unlink()
    zeroq.quantize(case.make(), case.inputs(2), out=tmp_path / "run", **QUICK)
    for name in ("distilled.safetensors", "model.safetensors", "model.onnx"):
        assert (tmp_path / "run" / name).read_bytes() == before[name]


def test_a_saved_program_of_several_inputs_through_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case = OPERATORS["picture_and_vector"]
    batch = torch.export.Dim("batch")
    program = torch.export.export(case.make(), case.inputs(2), dynamic_shapes=({0: batch}, {0: batch}))
    torch.export.save(program, tmp_path / "both.pt2")
    out = tmp_path / "run"
    assert main(["quantize", str(tmp_path / "both.pt2"), "--out", str(out), "--quiet", *QUICKLY]) == 0
    assert json.loads((out / "run.json").read_bytes())["input_shape"] == [[3, 8, 8], [5]]
    capsys.readouterr()
    assert main(["evaluate", str(out), "--data", str(tmp_path)]) == 2
    assert "one float32 input [N, C, H, W] is needed" in capsys.readouterr().err
    with pytest.raises(ModelError, match=r"both takes \[N, 3, 8, 8\], \[N, 5\]: pictures can be evaluated"):
        evaluate(str(tmp_path / "both.pt2"), data=str(tmp_path))


def test_a_function_of_several_inputs_is_told_the_ways(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from torch import nn\n"
        "PREPROCESS = dict(size=(8, 8), mean=(0.5,), std=(0.5,), channels='L')\n\n\n"
        "class Both(nn.Module):\n"
        "    def forward(self, image, vector):\n"
        "        return image.flatten(1) + vector\n\n\n"
        "def network():\n"
        "    return Both()\n"
    )
    assert main(["quantize", f"{file}:network", "--out", str(tmp_path / "run")]) == 2
    assert capsys.readouterr().err == (
        "zeroq: network takes more than one input (vector): quantize it in Python, zeroq.quantize(module, (first, "
        "second)), or save it with torch.export.save and give FILE.pt2.\n"
    )


@pytest.mark.parametrize(
    ("example", "sentence"),
    [
        ((torch.zeros(2, 3, 8, 8), torch.zeros(3, 5)), "all inputs have the same number of images first"),
        ((torch.zeros(2, 3, 8, 8), 5), "The example of network holds int: give a tensor"),
        ((torch.zeros(2, 3, 8, 8), torch.zeros(2, 4)), "does not run on inputs of shapes [2, 3, 8, 8], [2, 4]"),
        ({"image": torch.zeros(2, 3, 8, 8)}, "The example of network holds dict: give a tensor"),
        (np.zeros((2, 3, 8, 8)), "The example of network holds ndarray: give a tensor"),
    ],
)
def test_examples_that_do_not_fit_are_refused(example: object, sentence: str) -> None:
    with pytest.raises(ModelError) as caught:
        zeroq.quantize(OPERATORS["picture_and_vector"].make(), example, **QUICK)  # type: ignore[arg-type]
    assert sentence in str(caught.value)


def test_what_is_no_module_is_refused() -> None:
    with pytest.raises(ModelError, match="^The network is a function, not a torch.nn.Module: give the module itself"):
        zeroq.quantize(lambda images: images, torch.zeros(2, 5), **QUICK)  # type: ignore[arg-type]


class Frozen(nn.Sequential):
    """Norms that do not train, by the usual way to say so: without a result."""

    def train(self, mode: bool = True) -> None:  # type: ignore[override]
        super().train(mode)


def test_a_train_method_without_result_is_fine() -> None:
    zeroq.quantize(Frozen(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3)), torch.zeros(2, 5), **QUICK)


def test_the_caller_s_module_stays_as_it_is() -> None:
    module = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3)).double().train()
    zeroq.quantize(module, torch.zeros(2, 5), **QUICK)
    assert all(part.training for part in module.modules())
    assert all(each.requires_grad and each.dtype == torch.float64 for each in module.parameters())


def test_what_cannot_be_copied_is_quantized_itself() -> None:
    module = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3))
    module.seen = module(torch.zeros(2, 5))  # type: ignore[assignment]  # as old weight_norm keeps what it computed
    assert len(zeroq.quantize(module, torch.zeros(2, 5), **QUICK).result["layers"]) == 2


PROGRAM = """
import torch
from torch import nn

def network():
    return torch.export.export(nn.Conv2d(3, 4, 3).eval(), (torch.zeros(2, 3, 8, 8),)).module()
"""


def test_lazy_modules_and_modules_of_programs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="^network has lazy modules without values: run it on an input once"):
        zeroq.quantize(nn.LazyLinear(3), torch.zeros(2, 5), **QUICK)
    (tmp_path / "file.py").write_text(PROGRAM, encoding="utf-8")
    with pytest.raises(ModelError, match="^network is the module of an exported program, .* and give FILE.pt2"):
        load_model(f"{tmp_path / 'file.py'}:network")


def test_a_network_built_in_inference_mode_is_quantized() -> None:
    with torch.inference_mode():
        module = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3))
    assert len(zeroq.quantize(module, torch.zeros(2, 5), **QUICK).result["layers"]) == 2


class Masked(nn.Module):
    """A value of a node that is called as a method of modules."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3)

    def forward(self, images: Tensor) -> Tensor:
        values = self.first(images)
        mask = (values > 0).float()
        return self.second(mask).mean((2, 3)) + values.mean((2, 3))[:, :4]


def test_a_value_that_was_cast_is_quantized() -> None:
    run = zeroq.quantize(Masked(), torch.randn(2, 3, 8, 8), **QUICK)
    assert run.result["verification"]["agreement"] == pytest.approx(1, abs=1e-3)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.recurrent, self.last = nn.LSTM(8, 16, batch_first=True), nn.Linear(16, 3)

    def forward(self, signals: Tensor) -> Tensor:
        return self.last(self.recurrent(signals)[0][:, -1])


def test_parameters_that_stay_in_floating_point_are_warned_of() -> None:
    warnings = zeroq.quantize(Recurrent(), torch.randn(2, 6, 8), **QUICK).result["warnings"]
    assert any(each.startswith("97% of the parameters are of no convolution or linear layer") for each in warnings)
    plain = zeroq.quantize(nn.Linear(5, 3), torch.zeros(2, 5), **QUICK).result["warnings"]
    assert not any("32-bit floats" in each for each in plain)


def test_constants_are_no_parameters() -> None:
    class Priors(nn.Module):
        """A linear layer beside a large table that was not learned."""

        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(5, 3)
            self.register_buffer("priors", torch.randn(60, 3))

        def forward(self, values: Tensor) -> Tensor:
            return self.layer(values)[:, None] * self.priors

    warnings = zeroq.quantize(Priors(), torch.randn(2, 5), **QUICK).result["warnings"]
    assert not any("32-bit floats" in each for each in warnings)


def test_a_torchscript_program_is_refused() -> None:
    scripted = torch.jit.script(nn.Sequential(nn.Linear(5, 8), nn.ReLU()))  # type: ignore[no-untyped-call]
    with pytest.raises(ModelError, match="^The network is a TorchScript program.*: give the torch.nn.Module that it"):
        zeroq.quantize(scripted, torch.zeros(2, 5), **QUICK)
    parts = nn.Sequential(nn.Linear(5, 5), scripted)
    said = "^1 of network is a TorchScript program, .*: put in its place the torch.nn.Module that it was made from"
    with pytest.raises(ModelError, match=said):
        zeroq.quantize(parts, torch.zeros(2, 5), **QUICK)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_module_and_example_of_another_type_become_32_bit_floats(dtype: torch.dtype) -> None:
    module = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3)).to(dtype)
    run = zeroq.quantize(module, [torch.zeros(2, 5, dtype=dtype)], **QUICK)  # type: ignore[arg-type]
    assert run.model(torch.zeros(2, 5)).dtype == torch.float32


def test_one_score_and_several_labels_are_met_as_numbers() -> None:
    """The divergence of class scores is nothing where there is one class, and every bit would be given up."""
    one, labels = nn.Linear(8, 1), nn.Sequential(nn.Linear(8, 4), nn.Sigmoid())
    for last in (one, labels):
        module = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), last)
        run = zeroq.quantize(module, torch.zeros(2, 5), average_bits=3, **QUICK)
        assert run.result["divergence"]["mean"] > 0 and "(regression)" in " ".join(run.result["warnings"])


def test_a_preprocessing_must_fit_one_of_the_inputs() -> None:
    case = OPERATORS["picture_and_vector"]
    wrong = {"size": (9, 9), "mean": (0.5,) * 3, "std": (0.5,) * 3, "channels": "RGB"}
    with pytest.raises(OptionError, match=r"gives pictures \[3, 9, 9\], and no input of network has that shape"):
        zeroq.quantize(case.make(), case.inputs(2), preprocess=wrong, **QUICK)


def test_each_input_moves_towards_the_statistics_that_it_reaches() -> None:
    """Two BatchNorms that read one input each: both are met, by inputs of unlike shapes."""

    class Sides(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other = nn.Linear(6, 6), nn.Conv1d(6, 6, 1)
            self.of_one, self.of_other, self.head = nn.BatchNorm1d(6), nn.BatchNorm1d(6), nn.Linear(6, 2)
            for norm, mean in ((self.of_one, 1.0), (self.of_other, -1.0)):
                norm.running_mean.fill_(mean)
                norm.running_var.fill_(0.25)

        def forward(self, vector: Tensor, signal: Tensor) -> Tensor:
            return self.head(self.of_one(self.one(vector)) + self.of_other(self.other(signal)).mean(2))

    torch.manual_seed(0)
    module = Sides().eval()
    network = capture(module, (torch.randn(2, 6), torch.randn(2, 6, 9)))
    statistics = [
        neutral_statistic(network, name, channels) for name, channels in zip(network.inputs, (6, 6), strict=True)
    ]
    seen: list[int] = []

    def far(iterations: int) -> list[float]:
        """Mean distance of the means from the BatchNorms' own."""
        inputs = distill_several(
            network, statistics, count=64, iterations=iterations, seed=0, precision=Precision(),
            on_step=lambda done, total: seen.append(total - done),
        )  # fmt: skip
        with torch.no_grad():
            found = module.one(inputs[0]).mean(0), module.other(inputs[1]).mean((0, 2))
        return [float((one - mean).abs().mean()) for one, mean in zip(found, (1.0, -1.0), strict=True)]

    before, after = far(0), far(60)
    assert all(now < 0.7 * then for then, now in zip(before, after, strict=True))
    assert seen == list(range(119, -1, -1))


def test_a_batch_norm_that_reads_the_input_says_what_it_is_like() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 4)).eval()
    module[0].running_mean.copy_(torch.tensor([100.0, 0.0, torch.nan]))
    module[0].running_var.copy_(torch.tensor([25.0, 0.0, 4.0]))
    module[0].running_mean[2] = -7.0
    statistic = neutral_statistic(capture(module, torch.randn(2, 3)), "input_1", 3)
    assert statistic.mean == (100.0, 0.0, -7.0) and statistic.deviation == (5.0, 1.0, 2.0)
    assert statistic.low == (80.0, -4.0, -15.0) and statistic.high == (120.0, 4.0, 1.0)


def test_images_of_several_inputs_stay_together() -> None:
    one, other = torch.arange(5.0)[:, None], torch.arange(10).reshape(5, 2)
    assert count_images((one, other)) == count_images(one) == 5
    assert [len(part[0]) for part in chunks((one, other), 2)] == [2, 2, 1]
    assert [part[1][0, 0].item() for part in chunks((one, other), 2)] == [0, 4, 8]
    taken = slice_images((one, other), 3, None)
    assert as_tuple(taken)[0].flatten().tolist() == [3, 4] and as_tuple(taken)[1].tolist() == [[6, 7], [8, 9]]
    assert as_inputs([one]) is one and as_inputs([one, other]) == (one, other)

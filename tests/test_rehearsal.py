"""What can be neither written nor run is refused before anything takes long; usual networks are not tried."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import zeroq
import zeroq.rehearsal as rehearsal
from tests.networks import NETWORKS, example_of
from tests.operators import OPERATORS
from tests.runs import QUICK, loaded, prepare_once, quick_run
from zeroq.deploy.program import PLAIN
from zeroq.errors import ModelError, SizeError
from zeroq.graph import capture, fold
from zeroq.numbers.values import BitSetting
from zeroq.options import Options
from zeroq.preparation import Prepared
from zeroq.rehearsal import USUAL, bytes_beside_weights, file_without_numbers, is_usual, refuse_size, rehearse


class Between(nn.Module):
    """A step between two convolutions."""

    def __init__(self, step: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)
        self.step = step

    def forward(self, images: Tensor) -> Tensor:
        return self.last(self.step(self.first(images))).mean((2, 3))


class Modulated(nn.Module):
    """A convolution whose filters, and how many there are, follow from the images."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.scale = nn.Conv2d(3, 4, 3), nn.Linear(4, 4)

    def forward(self, images: Tensor) -> Tensor:
        values = self.first(images)
        filters = self.scale(values.mean((2, 3))).view(-1, 1, 1, 1)
        values = values.reshape(1, -1, 6, 6)
        return functional.conv2d(values, filters, groups=4 * images.shape[0]).view(-1, 4, 6, 6)


class Projected(nn.Module):
    """An LSTM of a kind that torch.onnx writes wrongly."""

    def __init__(self) -> None:
        super().__init__()
        self.recurrent, self.head = nn.LSTM(12, 16, proj_size=8, batch_first=True), nn.Linear(8, 4)

    def forward(self, values: Tensor) -> Tensor:
        return self.head(self.recurrent(values)[0][:, -1])


PICTURES = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
REFUSED: dict[str, tuple[nn.Module, Tensor, str]] = {
    "no operator": (
        Between(lambda x: x - x.median(1, keepdim=True).values), PICTURES,
        f"^The network uses median at {__file__}:.*, which cannot be written to ONNX: write that step with",
    ),
    "one that comes apart": (
        Between(lambda x: torch.cdist(x, x)), PICTURES, f"^The network uses _cdist_forward at {__file__}:"
    ),
    "one of several": (
        Modulated(), PICTURES,
        f"^The network convolves each image .* at {__file__}:.*return functional.conv2d.values, filters.*"
    ),
    "no type": (
        Between(lambda x: functional.max_pool2d(torch.cat([x.double(), 2 * x.double()], 2), 2).float()), PICTURES,
        r"^The network cannot be written to ONNX .*double.*: compute that step in 32-bit floats",
    ),
    "no kernel": (
        Between(lambda x: functional.interpolate(x.double(), scale_factor=2).float()), PICTURES,
        r"^onnxruntime .* cannot run the network's file .*Resize.*: compute that step in 32-bit floats",
    ),
    "a kernel that fails": (
        Projected(), torch.randn(2, 6, 12), r"^onnxruntime .* cannot run the network's file \(Input initial_c must"
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*")
@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_before_images_are_made(name: str, tmp_path: Path) -> None:
    module, example, said = REFUSED[name]
    stages: set[str] = set()
    with pytest.raises(ModelError, match=said):
        zeroq.quantize(
            module, example, out=tmp_path / "run", threads=1, on_progress=lambda stage, done, total: stages.add(stage)
        )
    assert stages == {"capture"} and not (tmp_path / "run" / "run.json").exists()


def test_usual_networks_are_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = prepare_once(loaded("residual"), Options.of(**QUICK))
    assert is_usual(prepared.folded)
    monkeypatch.setattr(rehearsal, "file_without_numbers", lambda prepared: pytest.fail("written"))
    rehearse(prepared)


def test_a_stored_tensor_of_64_bits_is_not_usual() -> None:
    scale = torch.full((4, 1, 1), 2.0, dtype=torch.float64)
    network = fold(capture(Between(lambda x: (x * scale).float()), PICTURES))
    assert not is_usual(network)


def test_what_is_called_usual_goes_the_whole_way() -> None:
    """Other tests take each of these networks to a file, and compare what it gives."""
    operators = (capture(case.make(), case.inputs(2)) for case in OPERATORS.values())
    networks = (capture(make(), example_of(name)) for name, make in NETWORKS.items())
    seen = {
        node.target for network in itertools.chain(operators, networks)
        for node in fold(network).graph.nodes if node.op == "call_function"
    }  # fmt: skip
    assert seen >= USUAL - PLAIN and not seen <= USUAL


def test_the_file_has_the_operators_of_the_run_s() -> None:
    run = quick_run("residual")
    prepared = prepare_once(loaded("residual"), Options.of(**QUICK))
    own, other = (
        Counter(node.op_type for node in file.graph.node)
        for file in (file_without_numbers(prepared), onnx.load(run.directory / "model.onnx"))
    )
    assert own == other and own["QuantizeLinear"] > 1


@pytest.mark.parametrize("name", ["residual", "depthwise"])
def test_a_size_that_no_file_has_is_refused_with_one_that_a_run_keeps(name: str) -> None:
    """Before there are images; what is advised is little more than the smallest file takes."""
    with pytest.raises(SizeError, match="0.0001 MB cannot be reached, the smallest file has") as caught:
        refuse_size(prepare_once(loaded(name), Options.of(**QUICK, size_mb=0.0001)))
    least = float(str(caught.value).split("--size-mb ")[1].split()[0])
    refuse_size(prepare_once(loaded(name), Options.of(**QUICK, size_mb=least)))
    size = quick_run(name, size_mb=least).result["onnx_bytes"]
    assert least - 0.0015 <= size / 1e6 <= least


@pytest.mark.parametrize("name", ["depthwise", "norm_free"])
def test_no_setting_takes_more_beside_its_weights(name: str) -> None:
    """Uniform ones, for every pair of widths, and mixed ones."""

    def prepared(*widths: int) -> Prepared:
        return prepare_once(loaded(name), Options.of(**QUICK, weight_bits=widths, edge_bits="same", size_mb=1))

    def beside(pattern: tuple[int, ...]) -> int:
        setting = BitSetting(dict(zip(names, itertools.cycle(pattern), strict=False)))
        file = file_without_numbers(whole, setting)
        return file.ByteSize() - setting.weight_bits(whole.plan.parameters) // 8

    widths = (2, 3, 4, 6, 7, 8)
    whole = prepared(*widths)
    names = [layer.name for layer in whole.plan.layers]
    uniform = {width: beside((width,)) for width in widths}
    for pair in itertools.combinations(widths, 2):
        assert max(uniform[width] for width in pair) <= bytes_beside_weights(prepared(*pair)), pair
    mixed = [beside(pattern) for pattern in ((2, 7, 3), (7, 6, 8), (3, 8, 4), (6, 7))]
    most = bytes_beside_weights(whole)
    assert 0.5 * most < max(*uniform.values(), *mixed) <= most

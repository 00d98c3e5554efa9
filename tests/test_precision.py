"""In which precision a network is computed: by measured steps on a CPU, by what there is on a GPU."""

from __future__ import annotations

import pytest
import torch

from tests.networks import NETWORKS, example_of
from zeroq import precision as precisions
from zeroq.errors import OptionError
from zeroq.graph import Network, capture
from zeroq.precision import Precision, choose_precision, forward_seconds, passes_in_bf16

CANDIDATES = "fp32 channels-last", "fp32 channels-first", "bf16 channels-last", "bf16 channels-first"


@pytest.fixture(scope="module")
def network() -> Network:
    return capture(NETWORKS["residual"](), example_of("residual"))


def pretend(monkeypatch: pytest.MonkeyPatch, seconds: dict[str, float]) -> list[tuple[str, int]]:
    """Steps take these seconds per image, by type and layout; the list of those taken."""
    taken: list[tuple[str, int]] = []

    def step(network: Network, precision: Precision, images: int) -> float:
        name = f"{precision.name} {precision.layout}"
        taken.append((name, images))
        return seconds[name]

    monkeypatch.setattr(precisions, "step_seconds", step)
    return taken


def test_the_fastest_is_taken_and_the_hopeless_is_tried_once_on_one_image(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = dict(zip(CANDIDATES, (0.8, 1.0, 15.0, 15.0), strict=True))
    taken = pretend(monkeypatch, table)
    best, seconds = choose_precision(network)
    assert (best, set(seconds)) == (Precision(), set(table) - {"bf16 channels-first"})
    assert [step for step in taken if step[0].startswith("bf16")] == [("bf16 channels-last", 1)]


def test_bf16_is_taken_where_it_is_faster(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = dict(zip(CANDIDATES, (0.8, 1.0, 0.3, 0.4), strict=True))
    pretend(monkeypatch, table)
    assert choose_precision(network)[0] == Precision(torch.bfloat16)


def test_one_that_is_asked_for_has_one_layout_whatever_is_faster(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = pretend(monkeypatch, dict(zip(CANDIDATES, (2.0, 0.8, 0.4, 0.3), strict=True)))
    assert choose_precision(network, "fp32") == (Precision(), {}) and taken == []
    assert choose_precision(network, "bf16") == (Precision(torch.bfloat16), {})


def test_a_second_step_is_taken_where_the_first_leaves_a_doubt(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = dict(zip(CANDIDATES, (0.8, 1.0, 0.3, 0.33), strict=True))
    taken = pretend(monkeypatch, table)
    choose_precision(network)
    later = [name for name, images in taken if images > 1]
    assert [later.count(name) for name in table] == [2, 1, 2, 2]


@pytest.mark.parametrize(
    ("asked", "instructions", "expected"),
    [("auto", True, "bf16"), ("auto", False, "fp32"), ("fp32", True, "fp32"), ("bf16", False, "bf16")],
)
def test_on_a_gpu_nothing_is_measured(
    network: Network, monkeypatch: pytest.MonkeyPatch, asked: str, instructions: bool, expected: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: instructions)
    best = precisions.usual_on_gpu(network, asked)
    assert (best.name, best.layout) == (expected, "channels-first")


def test_a_gpu_without_a_kernel_in_bf16_computes_in_fp32_unless_asked_otherwise(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_kernel(*_: object) -> float:
        raise NotImplementedError("no kernel for pooling")

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    monkeypatch.setattr(precisions, "step_seconds", without_kernel)
    assert precisions.usual_on_gpu(network, "auto").name == "fp32"
    with pytest.raises(OptionError, match="in bf16 .NotImplementedError: no kernel for pooling.: choose another"):
        precisions.usual_on_gpu(network, "bf16")


def test_a_network_that_bf16_cannot_compute_is_computed_in_fp32_unless_asked_otherwise(
    monkeypatch: pytest.MonkeyPatch
) -> None:
    network = capture(NETWORKS["recurrent"](), example_of("recurrent"))  # whose first state is fp32
    assert choose_precision(network)[0].name == "fp32"
    with pytest.raises(OptionError, match=r"network cannot be computed in bf16 \(RuntimeError: .*\): choose another"):
        choose_precision(network, "bf16")

    def broken(*_: object) -> float:
        raise RuntimeError("in any precision")

    monkeypatch.setattr(precisions, "step_seconds", broken)
    with pytest.raises(RuntimeError, match="in any precision"):
        choose_precision(network)


@pytest.mark.parametrize(
    ("asked", "seconds", "expected", "taken"),
    [
        ("auto", (1.0, 0.5), True, ["bf16", *["fp32", "bf16"] * 2]),
        ("auto", (1.0, 0.9), False, ["bf16", *["fp32", "bf16"] * 2]),  # not clearly faster
        ("auto", (1.0, 15.0), False, ["bf16", "fp32"]),  # hopeless
        ("bf16", (1.0, 15.0), True, ["bf16"]),
        ("fp32", (1.0, 0.5), False, []),
    ],
)
def test_passes_are_in_bf16_where_asked_or_clearly_faster(
    network: Network, monkeypatch: pytest.MonkeyPatch, asked: str, seconds: tuple[float, float], expected: bool,
    taken: list[str],
) -> None:
    passed = []

    def forward(network: Network, precision: Precision, images: int) -> float:
        passed.append(precision.name)
        return dict(zip(("fp32", "bf16"), seconds, strict=True))[precision.name]

    monkeypatch.setattr(precisions, "forward_seconds", forward)
    assert passes_in_bf16(network, asked, 8) is expected
    assert passed == taken


def test_passes_are_in_fp32_where_bf16_has_no_kernel() -> None:
    recurrent = capture(NETWORKS["recurrent"](), example_of("recurrent"))
    assert not passes_in_bf16(recurrent, "bf16", 2)


def test_a_real_pass_forward_takes_seconds(network: Network) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        assert forward_seconds(network, Precision(dtype), 3) > 0


def test_an_unknown_precision_is_refused(network: Network) -> None:
    with pytest.raises(OptionError, match="Precision 'fp16' is unknown: choose auto, fp32 or bf16"):
        choose_precision(network, "fp16")


def test_a_real_measurement_names_a_precision_and_its_seconds(network: Network) -> None:
    best, seconds = choose_precision(network)
    assert min(seconds, key=lambda name: seconds[name]) == f"{best.name} {best.layout}"
    assert all(value > 0 for value in seconds.values())


def test_a_tensor_takes_type_and_layout() -> None:
    image = torch.zeros(1, 2, 3, 4)
    changed = Precision(torch.bfloat16).apply(image)
    assert changed.dtype == torch.bfloat16 and changed.is_contiguous(memory_format=torch.channels_last)
    assert Precision(channels_last=False).apply(changed.float()).is_contiguous()
    assert Precision(torch.bfloat16).apply(torch.zeros(3, dtype=torch.int64)).dtype == torch.int64

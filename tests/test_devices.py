"""The machine: precision by measured steps, threads given back, names of processors."""

from __future__ import annotations

import pytest
import torch

from tests.networks import NETWORKS, example_of
from zeroq import devices
from zeroq.devices import Precision, choose_precision, integer_instructions, processor, threads
from zeroq.errors import OptionError
from zeroq.graph import Network, capture

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

    monkeypatch.setattr(devices, "step_seconds", step)
    return taken


def test_the_fastest_is_taken_and_the_hopeless_is_tried_once_on_one_image(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = dict(zip(CANDIDATES, (0.8, 1.0, 15.0, 15.0), strict=True))
    taken = pretend(monkeypatch, table)
    best, seconds = choose_precision(network)
    assert (best, set(seconds)) == (Precision(), set(table) - {"bf16 channels-first"})
    assert [step for step in taken if step[0].startswith("bf16")] == [("bf16 channels-last", 1)]


def test_bf16_is_taken_where_it_is_faster_and_where_it_was_asked_for(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = dict(zip(CANDIDATES, (0.8, 1.0, 0.3, 0.4), strict=True))
    pretend(monkeypatch, table)
    assert choose_precision(network)[0] == Precision(torch.bfloat16)
    assert choose_precision(network, "fp32")[0] == Precision()
    assert choose_precision(network, "bf16")[0] == Precision(torch.bfloat16)


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
    best = devices.usual_on_gpu(network, asked)
    assert (best.name, best.layout) == (expected, "channels-first")


def test_a_gpu_without_a_kernel_in_bf16_computes_in_fp32_unless_asked_otherwise(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_kernel(*_: object) -> float:
        raise NotImplementedError("no kernel for pooling")

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    monkeypatch.setattr(devices, "step_seconds", without_kernel)
    assert devices.usual_on_gpu(network, "auto").name == "fp32"
    with pytest.raises(OptionError, match="cannot be computed in bf16 .no kernel for pooling.: choose another"):
        devices.usual_on_gpu(network, "bf16")


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


@pytest.mark.parametrize(
    ("asked", "there", "limit", "place", "expected"),
    [
        ("cpu", True, None, 0, "cpu"),
        ("auto", False, None, 0, "cpu"),
        ("auto", True, None, 0, "cuda:0"),
        ("auto", True, 4.0, 0, "cpu"),
        ("cuda", True, None, 1, "cuda:1"),
        ("cuda", True, None, 2, "cuda:0"),
    ],
)
def test_a_device_is_the_gpu_where_there_is_one_and_of_several_each_process_has_its_own(
    monkeypatch: pytest.MonkeyPatch, asked: str, there: bool, limit: float | None, place: int, expected: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", str(place))
    assert str(devices.resolve(asked, memory_limit=limit)) == expected


def test_the_cpu_is_known_by_its_processor_and_has_always_finished() -> None:
    with devices.computing(devices.CPU):
        devices.finish(devices.CPU)
    assert devices.name_of(devices.CPU) == processor()


def test_threads_are_given_back_also_after_an_error() -> None:
    before = torch.get_num_threads()
    with pytest.raises(ZeroDivisionError), threads(before + 1):
        assert torch.get_num_threads() == before + 1
        raise ZeroDivisionError
    assert torch.get_num_threads() == before
    with threads(None):
        assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("information", "expected"),
    [
        ({"flags": "fpu avx2 avx512_vnni amx_int8"}, "amx"),
        ({"flags": "fpu avx2 avx512_vnni"}, "avx512-vnni"),
        ({"flags": "fpu avx2"}, "avx2"),
        ({"Features": "fp asimddp"}, "neon-dot"),
        ({}, "none"),
    ],
)
def test_integer_instructions(monkeypatch: pytest.MonkeyPatch, information: dict[str, str], expected: str) -> None:
    monkeypatch.setattr(devices, "_cpu_information", lambda: information)
    assert integer_instructions() == expected


def test_the_processor_has_a_name() -> None:
    assert processor()

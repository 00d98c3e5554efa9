"""The machine: its devices, threads given back, names of processors."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import torch

from zeroq import devices
from zeroq.devices import integer_instructions, processor, threads
from zeroq.errors import OptionError


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


def test_cuda_is_refused_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(OptionError, match="^--device cuda: PyTorch finds no CUDA device here, so choose auto or cpu.$"):
        devices.resolve("cuda")


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no process is bound to cores here")
def test_cores_are_those_that_a_process_may_use() -> None:
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert devices.cores() == 1
    finally:
        os.sched_setaffinity(0, before)
    assert devices.cores() == len(before)


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


@pytest.mark.parametrize(
    "around",
    [torch.no_grad, torch.inference_mode, lambda: torch.autocast("cpu"), lambda: torch.device("meta")],
    ids=["no_grad", "inference_mode", "autocast", "device"],
)
def test_what_a_caller_has_around_is_left_outside(around: Callable[[], Any]) -> None:
    factor = torch.ones(2, 2, requires_grad=True)
    torch.set_default_dtype(torch.float64)
    try:
        with around():
            with devices.undisturbed():
                product = torch.ones(2, 2) @ factor
                product.sum().backward()
                assert product.dtype == torch.float32 and product.device == devices.CPU and not product.is_inference()
                assert torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu")
            assert torch.get_default_dtype() == torch.float64
            outside = torch.is_grad_enabled(), torch.is_autocast_enabled("cpu"), torch.get_default_device()
            with suppress(ZeroDivisionError), devices.undisturbed():
                raise ZeroDivisionError
            assert outside == (
                torch.is_grad_enabled(), torch.is_autocast_enabled("cpu"), torch.get_default_device()
            )  # fmt: skip
    finally:
        torch.set_default_dtype(torch.float32)

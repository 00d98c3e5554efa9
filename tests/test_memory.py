"""Runs keep within --memory-limit: predictions hold, what cannot be met is refused, results stay what they are."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some
from torch import nn
from torch.utils import _pytree as pytree

import zeroq
import zeroq.demand as demands
import zeroq.memory as memory
import zeroq.resident as resident
from tests.networks import NETWORKS, block
from tests.runs import loaded, quick_run
from zeroq.demand import Demand, Learning, Rounding, demand_of
from zeroq.errors import OptionError
from zeroq.graph.blocks import Block
from zeroq.graph.replay import replay
from zeroq.graph.walk import Walk
from zeroq.memory import GB, NO_LIMIT, UNLIMITED, Amounts, plan_memory, predicted
from zeroq.models import from_module
from zeroq.options import Options
from zeroq.precision import Precision
from zeroq.preparation import prepare
from zeroq.ranks import Ranks
from zeroq.rounding.task import Task, task_of
from zeroq.whole_files import read_json

HELD = 400_000_000
SAME = ("model.safetensors", "frontier.json", "ranges.json", "sensitivity.json", "distilled.safetensors", "model.onnx")
BYTES = some.integers(1, 10**8)
DEMANDS = some.builds(
    Demand, images=some.integers(1, 300), rounded=some.integers(2, 128), widths=some.integers(1, 3), pixels=BYTES,
    values=BYTES, backward=BYTES, floating=BYTES, quantized=BYTES, gradients=BYTES, largest=BYTES, output=BYTES,
    integers=BYTES, weights=BYTES, bins=BYTES, binning=BYTES,
    layers=some.lists(some.builds(Rounding, BYTES, BYTES, BYTES), min_size=1, max_size=3).map(tuple),
    blocks=some.lists(some.builds(Learning, BYTES, BYTES, BYTES), max_size=3).map(tuple),
)  # fmt: skip


@given(DEMANDS, some.floats(0.1, 1e3))
def test_a_plan_keeps_within_its_limit_or_names_one_that_it_keeps_within(demand: Demand, limit: float) -> None:
    try:
        plan = plan_memory(demand, limit, HELD, HELD)
    except OptionError as error:
        limit = float(str(error).split(" needs ")[1].split(" GB")[0])
        plan = plan_memory(demand, limit, HELD, HELD)
        with pytest.raises(OptionError, match="cannot be met, as this run needs"):
            plan_memory(demand, limit - 0.11, HELD, HELD)
    assert plan.peak_mb is not None and plan.peak_mb <= limit * 1000 + 0.1


@given(DEMANDS)
def test_room_for_everything_changes_nothing(demand: Demand) -> None:
    assert plan_memory(demand, 1e9, HELD, HELD).amounts == UNLIMITED


@given(DEMANDS, some.floats(0.1, 100), some.floats(0.1, 100))
def test_more_room_is_never_used_worse_for_rounding(demand: Demand, one: float, other: float) -> None:
    """With chunks alike, more room keeps no fewer of them in memory."""
    least = max(predicted(demand, memory.limits_of(demand)[0], HELD).values()) / GB
    plans = [plan_memory(demand, least + each, HELD, HELD).amounts for each in sorted((one, other))]
    kept = [demand.rounded if plan.kept is None else plan.kept for plan in plans]
    assert plans[0].chunk <= plans[1].chunk
    assert plans[0].chunk < plans[1].chunk or kept[0] <= kept[1]


@pytest.mark.parametrize("name", ["plain", "residual", "concatenate_and_shuffle", "tokens"])
def test_values_at_borders_of_blocks_are_those_that_reconstruction_keeps(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[int] = []

    def noted(block: Block, quantized: Walk, floating: Walk, fitting: int) -> Task:
        task = task_of(block, quantized, floating, fitting)
        live = [*task.given, *(task.exact or ()), *task.wanted]
        every = [leaf for values in live for leaf in pytree.tree_leaves(values) if isinstance(leaf, torch.Tensor)]
        found.append(sum(each.numel() * each.element_size() for each in every) // sum(quantized.counts))
        return task

    monkeypatch.setattr("zeroq.rounding.reconstruction.task_of", noted)
    quick_run(name, weight_bits=4, activation_bits=4, reconstruct=1)
    demand = demand_of(prepare(loaded(name), Options.of(weight_bits=4, activation_bits=4, reconstruct=1)))
    assert [block.live for block in demand.blocks] == found
    plain = demand_of(prepare(loaded(name), Options.of(weight_bits=4, activation_bits=4)))
    assert plain.blocks == () and plain == replace(demand, blocks=())


def test_a_peak_of_the_capture_beyond_the_limit_is_refused() -> None:
    demand = demand_of(prepare(loaded("plain"), Options(images=4)))
    with pytest.raises(OptionError, match="--memory-limit 1 cannot be met, as this run needs 1.3 GB at least"):
        plan_memory(demand, 1.0, HELD, 1_250_000_000)


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_live_values_are_those_that_a_run_keeps(name: str) -> None:
    """Beside what `replay` itself keeps behind every node of a run of the folded network."""
    prepared = prepare(loaded(name), Options())
    folded = prepared.folded
    sizes = demands.sizes(folded.graph, folded.tensors, folded.example)
    inputs = dict(zip(folded.inputs, folded.example, strict=True))
    for node, bytes_left in demands.left(folded.graph, sizes):
        if node in sizes and node != "output":
            live = replay(folded.graph, folded.tensors, inputs, until=node)
            unread = {node} if not folded.node(node).users else set()
            late = {each for each in folded.inputs if position(folded, each) > position(folded, node)}
            assert bytes_left == sum(sizes[each] for each in live.keys() - unread - late)
    assert demands.most_live(folded.graph, sizes) >= max(sizes.values())


def position(network: Any, name: str) -> int:
    return [node.name for node in network.graph.nodes].index(name)


def test_the_process_that_holds_most_decides_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    class Two(Ranks):
        def gathered(self, items: Sequence[Any]) -> list[Any]:
            return [*items, 2 * HELD]

    prepared = prepare(loaded("plain"), Options(memory_limit=1000))
    monkeypatch.setattr("zeroq.resident.held", lambda: HELD)
    monkeypatch.setattr("zeroq.resident.peak", lambda: HELD)
    assert memory.plan_of(prepared, Two()) == plan_memory(demand_of(prepared), 1000, 2 * HELD, 2 * HELD)
    assert memory.plan_of(prepared) == plan_memory(demand_of(prepared), 1000, HELD, HELD)


def test_a_process_without_the_run_directory_uses_the_nearest_folder_above(tmp_path: Path) -> None:
    assert UNLIMITED.room(tmp_path).folder == UNLIMITED.room(tmp_path / "runs" / "net").folder == tmp_path


def test_a_gpu_is_given_as_much_at_a_time_as_a_part_of_its_memory_holds() -> None:
    prepared = prepare(loaded("plain"), Options(average_bits=4))
    image = 4 * sum(math.prod(shape) for shape in prepared.network.shapes.values())
    found = memory.on_gpu(prepared, 40 * image)
    assert (found.chunk, found.probed, found.widened, found.batch_bytes) == (10, 10, 3, 10 * image)
    assert memory.on_gpu(prepared, 1).chunk == memory.on_gpu(prepared, 1).widened == 1
    assert memory.on_gpu(prepared, 10**12).chunk == memory.GPU_CHUNK


def test_without_a_limit_nothing_is_decided() -> None:
    assert memory.plan_of(prepare(loaded("plain"), Options())) == NO_LIMIT


@given(DEMANDS, some.floats(1e6, 1e12))
def test_a_run_takes_what_it_is_used_to_or_keeps_within_what_is_free(demand: Demand, free: float) -> None:
    room = HELD + memory.FREE_SHARE * free
    least, usual = (
        max(HELD, *predicted(demand, amounts, HELD).values())
        for amounts in (memory.limits_of(demand)[0], UNLIMITED)
    )
    try:
        plan = memory.plan_within(demand, free, HELD, HELD)
    except OptionError as error:
        assert least > room - 0.1 * GB and "GB of memory at least" in str(error)
        return
    assert plan.limited is bool(plan.warnings) is (usual > room)
    if plan.limited:
        assert max(predicted(demand, plan.amounts, HELD).values()) <= room


def test_a_run_for_which_too_little_is_free_says_so_and_keeps_within_it(monkeypatch: pytest.MonkeyPatch) -> None:
    network = nn.Sequential(block(3, 32), block(32, 32), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    example = torch.randn(2, 3, 64, 64)
    held, demand = resident.held(), demand_of(prepare(from_module(network, example), Options(images=256)))
    least, usual = (
        max(predicted(demand, amounts, held).values()) for amounts in (memory.limits_of(demand)[0], UNLIMITED)
    )
    assert usual - least > 0.4 * GB
    free = ((least + usual) / 2 - held) / memory.FREE_SHARE
    monkeypatch.setattr("zeroq.resident.available", lambda: free)
    run = zeroq.quantize(network, example, images=256, iterations=1, threads=1)
    (warning,) = (each for each in run.result["warnings"] if "GB of memory" in each)
    assert "it keeps within these, as with --memory-limit" in warning
    assert run.result["predicted_memory_mb"] < usual / 1e6
    assert Amounts(**read_json(run.directory / "run.json")["memory"]["amounts"]) != UNLIMITED


def test_a_run_that_cannot_but_hold_more_than_is_free_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zeroq.resident.available", lambda: 1e6)
    with pytest.raises(OptionError, match="This run needs .* GB of memory at least, and .* GB are free for it: ask"):
        quick_run("plain", out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_processes_have_what_is_free_between_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where each has a run of its own, as of several models."""
    monkeypatch.setattr("zeroq.resident.available", lambda: 8e9)
    monkeypatch.setattr(memory, "plan_within", lambda demand, free, *_: free)
    prepared = prepare(loaded("plain"), Options())
    assert memory.plan_of(prepared) == 8e9
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert memory.plan_of(prepared) == 2e9


def contents(directory: Path) -> dict[str, bytes]:
    return {name: (directory / name).read_bytes() for name in SAME}


def test_a_generous_limit_and_values_on_disk_change_no_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    # Layout is timed even for fp32, and images depend on it.
    monkeypatch.setattr("zeroq.stages.choose_precision", lambda *_: (Precision(), {}))
    asked: dict[str, Any] = {"average_bits": 4, "precision": "fp32"}
    free = quick_run("residual", **asked)
    generous = quick_run("residual", **asked, memory_limit=1000)
    assert contents(generous.directory) == contents(free.directory)
    assert free.result["predicted_memory_mb"] is None and "memory" not in read_json(free.directory / "run.json")
    assert generous.result["predicted_memory_mb"] < 1e6

    def all_on_disk(demand: Demand, *given: Any) -> memory.MemoryPlan:
        plan = plan_memory(demand, *given)
        return replace(plan, amounts=replace(plan.amounts, kept=0))

    monkeypatch.setattr(memory, "plan_memory", all_on_disk)
    narrow = quick_run("residual", **asked, memory_limit=1000)
    assert read_json(narrow.directory / "run.json")["memory"]["amounts"]["kept"] == 0
    assert contents(narrow.directory) == contents(free.directory)


def test_the_least_of_everything_still_gives_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def least(demand: Demand, *given: Any) -> memory.MemoryPlan:
        return replace(plan_memory(demand, *given), amounts=memory.limits_of(demand)[0])

    monkeypatch.setattr(memory, "plan_memory", least)
    run = quick_run("shared_head", average_bits=4, memory_limit=1000)
    amounts = Amounts(**read_json(run.directory / "run.json")["memory"]["amounts"])
    assert (amounts.chunk, amounts.widened, amounts.kept, amounts.verified, amounts.probed) == (1, 1, 0, 1, 1)
    assert run.result["verification"]["largest_steps"] <= 1


def test_a_resumed_run_keeps_its_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {"out": tmp_path / "run", "memory_limit": 1000}
    quick_run("plain", **asked)
    before = read_json(tmp_path / "run" / "run.json")["memory"]
    monkeypatch.setattr("zeroq.resident.held", lambda: HELD + 1)
    quick_run("plain", **asked)
    assert read_json(tmp_path / "run" / "run.json")["memory"] == before
    quick_run("plain", **asked | {"memory_limit": 999})
    assert read_json(tmp_path / "run" / "run.json")["memory"] != before


MEASURE = """
import json, sys, torch, zeroq
from torch import nn
from tests.networks import block
from zeroq.errors import OptionError
torch.manual_seed(0)
network = nn.Sequential(block(3, 32), block(32, 32), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10)).eval()
count, limit = int(sys.argv[1]), float(sys.argv[2])
asked = dict(iterations=1, threads=1, weight_bits=4, precision="fp32") | json.loads(sys.argv[3])
try:
    zeroq.quantize(network, torch.randn(2, 3, 64, 64), images=count, memory_limit=0.01, **asked)
except OptionError as error:
    least = float(str(error).split(" needs ")[1].split(" GB")[0])
run = zeroq.quantize(network, torch.randn(2, 3, 64, 64), images=count, memory_limit=limit or least, **asked)
plan = json.loads((run.directory / "run.json").read_text())["memory"]
print(json.dumps([least, run.result["peak_memory_mb"], run.result["predicted_memory_mb"], plan["amounts"]]))
"""


def measured(images: int, limit: float, **further: Any) -> list[Any]:
    """Least limit in GB, peak and prediction in MB, and amounts of a run in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(images), str(limit), json.dumps(further)], capture_output=True, text=True,
        cwd=Path(__file__).parent.parent,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return list(json.loads(done.stdout))


def test_the_least_limit_is_kept_and_memory_is_flat_over_the_images() -> None:
    """256 images in place of 64: 9 MB more of pixels, and all values that distillation keeps would be 0.5 GB more."""
    least, peak, prediction, amounts = measured(64, 0.0)
    assert peak <= prediction <= least * 1000 < 2 * peak
    assert amounts["batch_bytes"] < UNLIMITED.batch_bytes
    _, more, prediction, amounts = measured(256, least + 0.05)
    assert more <= prediction <= least * 1000 + 50 and more < peak + 80
    assert amounts["batch_bytes"] < UNLIMITED.batch_bytes


def test_reconstruction_keeps_within_the_least_limit() -> None:
    least, peak, prediction, _ = measured(64, 0.0, activation_bits=4, reconstruct=3)
    assert peak <= prediction <= least * 1000 < 2 * peak


def test_a_limit_that_cannot_be_met_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(
        OptionError, match=r"--memory-limit 0.01 cannot be met, as this run needs \d+\.?\d* GB at least"
    ):
        quick_run("plain", memory_limit=0.01, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()

"""The table of the paper's networks: one of them measured as all are, resumed, and shown."""

from __future__ import annotations

import argparse
import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks import network_row, networks, published_networks
from benchmarks.document import STAGES
from benchmarks.networks_document import document
from benchmarks.published_networks import Built
from tests.networks import block, classifier
from zeroq.preprocessing import imagenet

ASKED = {"images": 8, "iterations": 1, "threads": 1}


@cache
def measured() -> dict[str, Any]:
    """What a row's process finds of a tiny network."""
    torch.manual_seed(0)
    module = classifier(block(3, 4), block(4, 8)).eval()
    return network_row.measure(Built(module, imagenet((8, 8)), "classification"), "resnet18", ASKED)


def test_a_row_says_what_there_is_to_say() -> None:
    found = json.loads(json.dumps({"network": "resnet18", **ASKED, "error": None} | measured()))
    assert (found["layers"], found["layers_quantized"], found["integer_share"]) == (3, 3, 1.0)
    assert found["verification"]["largest_steps"] == 0 and found["held_out_images"] == 2
    assert found["peak_memory_mb"].keys() == set(STAGES) <= found["seconds"].keys()
    assert found["average_bits"] <= 4 and sum(found["layers_by_bits"].values()) == 3
    text = document(["resnet18", "resnet50"], {"resnet18": found}, {"resnet18"})
    assert "| resnet18 `stale` | 3 x 8 x 8 | 3 | 3 | 100.0% |" in text and "| resnet50 | – |" in text


def test_a_failure_is_shown_and_nothing_is_no_table_of_machines() -> None:
    text = document(["resnet18"], {"resnet18": {"error": "it took longer than 1 s"}}, set())
    assert "## Failed\n\n- resnet18: it took longer than 1 s" in text and "Nothing was measured yet." in text


def test_a_network_is_measured_once_until_the_setting_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networks, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(networks, "DOCUMENT", tmp_path / "networks.md")
    ran, outcomes = [], [({}, "out of memory"), (measured(), None), (measured(), None)]

    def run_apart(module: str, words: list[str], time_limit: float) -> tuple[dict[str, Any], str | None]:
        ran.append([module, *words])
        return outcomes.pop(0)

    monkeypatch.setattr(networks, "run_apart", run_apart)
    asked = argparse.Namespace(**ASKED, time_limit=1)
    assert not networks.bring_up_to_date("resnet18", asked)
    assert "out of memory" in (tmp_path / "networks.md").read_text()
    assert networks.bring_up_to_date("resnet18", asked) and networks.bring_up_to_date("resnet18", asked)
    asked.iterations = 2
    assert networks.bring_up_to_date("resnet18", asked) and not outcomes
    last = ["benchmarks.network_row", "resnet18", "--images", "8", "--iterations", "2", "--threads", "1"]
    assert ran[-1] == last and len(ran) == 3


def test_all_networks_of_the_paper_are_there() -> None:
    assert set(published_networks.NETWORKS) == {
        "resnet18", "resnet50", "resnet152", "mobilenetv2_w1", "shufflenet_g1_w1", "sqnxt23_w2", "inceptionv3",
        "retinanet_resnet50_fpn",
    }  # fmt: skip


def test_statistics_are_made_up_the_same_way_every_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        published_networks.NETWORKS,
        "resnet18",
        lambda: Built(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), imagenet((16, 16)), "classification"),
    )
    one, other = (published_networks.build("resnet18", pictures=2).module.state_dict() for _ in range(2))
    assert all(torch.equal(one[name], other[name]) for name in one) and one["1.running_var"].min() != 1

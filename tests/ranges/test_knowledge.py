"""Spans that BatchNorms hold outputs in, and the outputs that none knows."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.networks import NETWORKS, example_of
from zeroq.graph import Network, capture, fold, replay
from zeroq.ranges import Histogram, Knowledge, knowledge_of, observe, range_of
from zeroq.ranges.knowledge import DEVIATIONS
from zeroq.repair import families, scaled
from zeroq.simulate import place

BLOCK = ["residual", "shared_head", "relu6", "plain", "grouped"]


def captured(name: str) -> Network:
    return capture(NETWORKS[name](), example_of(name))


@pytest.mark.parametrize("name", BLOCK)
def test_folded_outputs_lie_within_their_spans(name: str) -> None:
    network = captured(name)
    knowledge, folded = knowledge_of(network), fold(network)
    assert set(knowledge.spans) == {norm.site for norm in network.norms}
    values: dict[str, torch.Tensor] = {}
    replay(
        folded.graph, folded.tensors, {folded.inputs[0]: example_of(name, 32)},
        visit=lambda node, value: values.update({node.name: value}) if node.name in knowledge.spans else None,
    )  # fmt: skip
    for site, (low, high) in knowledge.spans.items():
        assert low < values[site].min() and values[site].max() < high


def test_a_span_is_shift_and_gain_times_deviations() -> None:
    module = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2)).eval()
    with torch.no_grad():
        module[1].weight.copy_(torch.tensor([-2.0, 0.5]))  # type: ignore[operator,union-attr]
        module[1].bias.copy_(torch.tensor([1.0, 30.0]))  # type: ignore[operator,union-attr]
    network = capture(module, torch.randn(2, 3, 4, 4))
    (span,) = knowledge_of(network).spans.values()
    assert span == pytest.approx((1 - 2 * DEVIATIONS, 30 + 0.5 * DEVIATIONS))


def test_a_batch_norm_that_is_doubted_holds_nothing() -> None:
    network = captured("residual")
    every, others = knowledge_of(network), knowledge_of(network, {"stem.1"})
    assert len(others.spans) == len(every.spans) - 1 and others.bare == every.bare


@pytest.mark.parametrize("normed", [True, False])
def test_what_is_known_passes_a_ceiling_of_channels(normed: bool) -> None:
    """Factors make a ReLU6 a limit of each channel; of 1 they change nothing that is known of its value."""
    given: list[nn.Module] = [nn.Conv2d(256, 8, 1), nn.BatchNorm2d(8)] if normed else [nn.Conv2d(256, 8, 1)]
    module = nn.Sequential(*given, nn.ReLU6(), nn.Conv2d(8, 8, 3, groups=8), nn.BatchNorm2d(8)).eval()
    with torch.no_grad():
        if normed:
            given[1].weight.fill_(0.1)  # type: ignore[operator,union-attr]
        given[0].weight[:, 128:] = 0.1 * torch.tensor([1.0, -1.0]).repeat(64)[:, None, None]  # type: ignore[index]
    network = capture(module, torch.randn(2, 256, 8, 8))
    plain = fold(network)
    (family,) = families(plain)
    images = torch.randn(16, 256, 8, 8)
    images[:, 128:] = 1  # weights and inputs of some length, of which the output has nothing
    images[0] *= 40 if normed else 1
    known, found = knowledge_of(network), []
    for folded in (plain, scaled(plain, {family.name: torch.ones(8, dtype=torch.float64)})):
        placement, bits = place(folded), {layer.name: 8 for layer in folded.layers}
        quantizer = placement.of_value[family.values[-1]].name
        found.append(observe(folded, placement, images, bits, knowledge=known)[quantizer])
        assert observe(folded, placement, images, bits)[quantizer] != found[-1], "what is known changes nothing here"
    assert found[0] == found[1]


def test_a_second_batch_norm_leaves_no_span_of_the_first() -> None:
    module = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2), nn.ReLU(), nn.BatchNorm2d(2)).eval()
    assert knowledge_of(capture(module, torch.randn(2, 3, 4, 4))).spans == {}


@pytest.mark.parametrize(
    ("name", "bare"),
    [
        ("plain", {"4"}),
        ("no_norm", {"0", "2", "6"}),
        ("norm_after_relu", {"8"}),
        ("pre_activation", {"body.2", "head"}),
    ],
)
def test_outputs_without_a_batch_norm_are_found(name: str, bare: set[str]) -> None:
    network = captured(name)
    found = {layer.name for layer in network.layers if knowledge_of(network).bare.intersection(layer.sites)}
    assert found == bare


def test_a_range_is_cut_at_the_span_and_says_so() -> None:
    histogram = Histogram()
    histogram.update(torch.linspace(-1, 5, 2000)[None])
    plain, cut, loose = (
        range_of(histogram, 8, "distilled", unsigned=False, span=span) for span in (None, (-9.0, 3.0), (-9.0, 9.0))
    )
    assert plain.source == loose.source == "distilled" and plain == loose
    assert (
        cut.source == "batchnorm" and cut.high == pytest.approx(3, rel=0.02) and cut.low == pytest.approx(-1, rel=0.1)
    )


def test_a_span_that_leaves_nothing_is_ignored() -> None:
    histogram = Histogram()
    histogram.update(torch.linspace(0, 5, 2000)[None])
    assert range_of(histogram, 8, "distilled", unsigned=True, span=(-3.0, -1.0)).high == pytest.approx(5, rel=0.02)


def test_outliers_of_images_are_held_by_the_batch_norm_alone() -> None:
    """One pixel of an image is far beyond anything that training saw."""
    network = captured("plain")
    folded, images = fold(network), example_of("plain", 8)
    images[0, :, 3:5, 3:5] = 2000.0
    placement, bits = place(folded), {layer.name: 8 for layer in folded.layers}
    knowledge = knowledge_of(network)
    free, held = (observe(folded, placement, images, bits, knowledge=each) for each in (Knowledge(), knowledge))
    of_value = placement.of_value
    first = of_value[next(node.name for node in folded.graph.nodes if "relu" in node.name)].name
    assert held[first].source == "batchnorm" and held[first].high < 0.5 * free[first].high
    assert {free[name].source for name in free.by_name} == {"distilled"}

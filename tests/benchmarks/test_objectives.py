"""Objectives that the study of images compares, each against its definition."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from benchmarks import objectives
from benchmarks.objectives import OBJECTIVES, WHITE, Setup, beyond, shifted_by_chance, tolerated
from tests.runs import loaded
from zeroq.distillation import distill
from zeroq.distillation.images import prepare as matching_of
from zeroq.options import Options
from zeroq.precision import Precision
from zeroq.preparation import Prepared, prepare

IMAGES = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def prepared() -> Prepared:
    return prepare(loaded("plain"), Options.of())


def setup(prepared: Prepared) -> Setup:
    matching = matching_of(prepared.network, prepared.statistics[0], Precision(), prepared.trust)
    return Setup(prepared.network, matching, torch.Generator().manual_seed(0))


def images_of(prepared: Prepared, count: int) -> Tensor:
    shape = prepared.network.example[0].shape[1:]
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("made", OBJECTIVES)
def test_each_gives_images_with_a_gradient_of_their_own(made: str, prepared: Prepared) -> None:
    found = objectives.distilled(made, prepared, 4, 2, Precision())
    plain = distill(prepared.network, prepared.statistics[0], count=4, iterations=2, trust=prepared.trust)
    assert found.shape == plain.shape and bool(found.isfinite().all())
    assert not torch.equal(found, plain)


def test_with_the_products_objective_they_are_the_products(prepared: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OBJECTIVES, "none", lambda setup: setup.matching.loss)
    found = objectives.distilled("none", prepared, 4, 3, Precision())
    assert torch.equal(
        found, distill(prepared.network, prepared.statistics[0], count=4, iterations=3, trust=prepared.trust)
    )
    assert not torch.equal(found, objectives.distilled(WHITE, prepared, 4, 3, Precision()))


def test_of_each_image_is_the_mean_over_batches_of_one(prepared: Prepared) -> None:
    made, images = setup(prepared), images_of(prepared, 3)
    each = [made.matching.loss(images[index : index + 1]) for index in range(3)]
    torch.testing.assert_close(objectives.of_each_image(made)(images), sum(each) / 3)


def test_slack_leaves_what_is_near_alone(prepared: Prepared) -> None:
    made, images = setup(prepared), images_of(prepared, 4)
    targets, found = made.matching.targets, made.matching.measure(images)
    near = tolerated(found, targets)
    sizes = [len(mean) for mean, _ in found]
    rows = zip(found, near, *(part.split(sizes) for part in (targets.mean, targets.deviation)), strict=True)
    for (mean, _), (close, _), wanted, deviation in rows:
        missed = (mean - wanted).abs() - objectives.TOLERANCE * deviation
        torch.testing.assert_close((close - wanted).abs(), missed.clamp(min=0), rtol=1e-4, atol=1e-5)
    assert objectives.slack(made)(images) < made.matching.loss(images)


def test_beyond() -> None:
    assert beyond(torch.tensor([-3.0, -1.0, 0.5, 2.0]), torch.full((4,), 1.5)).tolist() == [-1.5, 0.0, 0.0, 0.5]


def test_shifted_values_are_those_of_a_place_near_by() -> None:
    places = set()
    generator = torch.Generator().manual_seed(0)
    for _ in range(40):
        shifted = shifted_by_chance(IMAGES, 2, generator)
        assert shifted.shape == IMAGES.shape
        (place,) = (
            (up, left) for up in (0, 1) for left in (0, 1)
            if torch.equal(shifted[:, :, 1 - up :, 1 - left :], IMAGES[:, :, : 7 + up, : 7 + left])
        )  # fmt: skip
        places.add(place)
    assert len(places) == 4


@pytest.mark.parametrize("further", [objectives.normal_channels, objectives.uncorrelated_channels])
def test_further_statistics_are_added(further: Callable[[Setup], objectives.Loss], prepared: Prepared) -> None:
    made, images = setup(prepared), images_of(prepared, 4)
    flat = images.mean(0, keepdim=True).expand_as(images)  # of one image, channels are more alike
    assert further(made)(images) > made.matching.loss(images)
    assert further(made)(flat).isfinite()

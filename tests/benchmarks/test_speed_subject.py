"""What is measured of a network with real pictures, and of one without."""

from __future__ import annotations

import pytest
import torch

from benchmarks import recipe, speed_stages
from benchmarks.speed_subject import NETWORKS, UNTRAINED, quality, reference_of, sensitivities
from tests.benchmarks.subjects import tiny

PICTURES = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def test_without_real_pictures_images_have_their_statistics_alone() -> None:
    subject = tiny()
    assert reference_of(subject) is None
    assert list(quality(subject, PICTURES, sensitivities(subject, PICTURES), None)) == ["statistics_loss"]


def test_real_pictures_themselves_are_as_good_as_can_be() -> None:
    subject = tiny(PICTURES)
    found = quality(subject, PICTURES, sensitivities(subject, PICTURES, ()), reference_of(subject))
    assert found["range_error"] == 0 and found["rank_correlation"] == 1 and 0.1 <= found["confidence"] <= 1


def test_names_of_trained_networks_and_others_do_not_meet() -> None:
    assert len(set(NETWORKS)) == len(NETWORKS) and {"resnet18", "resnet50", "mobilenetv2_w1"} == set(UNTRAINED)


@pytest.mark.parametrize("whole", [False, True])
def test_stages_have_times_memory_and_the_quality_of_what_was_made(
    whole: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipe, "ITERATIONS", 8)
    found = speed_stages.measured(tiny(PICTURES), whole=whole)
    assert set(found["quality"]) == ({"ours", "recipe"} if whole else {"ours"})
    assert list(found["seconds"]) == ["images", "sensitivity", "frontier"]
    assert all(value > 0 for both in found["seconds"].values() for value in both.values())
    assert all(value > 50 for both in found["peak_mb"].values() for value in both.values())
    assert found["whole"] == whole and found["images"] == 32 and found["layers"] == 3

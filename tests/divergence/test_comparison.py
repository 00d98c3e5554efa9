"""Divergence and agreement by what an output means, over batches."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from zeroq.divergence import Comparison, Meaning, agreement, kl_divergence, places_of, same_class
from zeroq.divergence.channels import ChannelErrors
from zeroq.errors import ModelError


def boxes_of(outputs: tuple[Tensor, ...]) -> list[Tensor]:
    """One box for each image, of the class that scores most."""
    scores = outputs[1].softmax(dim=1)
    corners = torch.tensor([0.1, 0.1, 0.9, 0.9]).expand(len(scores), 4)
    found = torch.cat([corners, scores.amax(dim=1)[:, None], scores.argmax(dim=1)[:, None].float()], dim=1)
    return [each[None] for each in found]


@pytest.mark.parametrize(
    ("meaning", "shapes", "places"),
    [
        (Meaning("classification"), [(2, 5), (2, 8, 16, 16)], 1),
        (Meaning("classification"), [(2, 5, 7)], 7),
        (Meaning("segmentation"), [(2, 5, 4, 6), (2, 5)], 24),
        (Meaning("segmentation", divergence=lambda one, other: one[:, 0, 0, 0]), [(2, 5, 4, 6)], 1),
        (Meaning("detection"), [(2, 9, 4), (2, 8, 16, 16)], 9),
        (Meaning("regression"), [(2,), (2, 8, 16, 16)], 1),
        (Meaning("regression"), [(2, 8, 16, 16)], 256),
    ],
)
def test_places_are_those_that_a_divergence_is_the_mean_over(
    meaning: Meaning, shapes: list[tuple[int, ...]], places: int
) -> None:
    assert places_of(meaning, [torch.zeros(2, dtype=torch.int64), *map(torch.zeros, shapes)]) == places


SHAPES = {"classification": (9, 5), "segmentation": (9, 5, 4, 6), "regression": (9, 5, 4)}


def compared(meaning: Meaning, reference: object, outputs: object, *parts: slice) -> Comparison:
    """In batches."""
    found = Comparison(meaning)
    for part in parts or (slice(None),):
        pick = lambda each: tuple(x[part] for x in each) if isinstance(each, tuple) else each[part]  # noqa: E731, B023
        found.add(pick(reference), pick(outputs))
    return found


def pair(task: str) -> tuple[Tensor, Tensor]:
    reference = 2 * torch.randn(SHAPES[task])
    return reference, reference + torch.randn(SHAPES[task])


def test_classification_is_the_mean_kl_and_the_share_of_equal_classes() -> None:
    reference, outputs = pair("classification")
    found = compared(Meaning("classification"), reference, outputs, slice(0, 4), slice(4, 9))
    assert found.divergence == pytest.approx(float(kl_divergence(reference, outputs).mean()))
    assert found.agreement == pytest.approx(agreement(reference, outputs)) and 0 < found.agreement < 1


def test_segmentation_is_the_same_at_each_pixel() -> None:
    reference, outputs = pair("segmentation")
    found = compared(Meaning("segmentation"), reference, outputs, slice(0, 8), slice(8, 9))
    places = [each.movedim(1, -1).reshape(-1, 5) for each in (reference, outputs)]
    assert found.divergence == pytest.approx(float(kl_divergence(*places).mean()))
    assert found.agreement == pytest.approx(float(same_class(*places).double().mean())) and 0 < found.agreement < 1


def test_all_outputs_are_read_as_the_reference_is() -> None:
    """Probabilities of few bits, whose sum is near 1 alone, stay probabilities."""
    reference = torch.randn(9, 20).softmax(1)
    found = compared(Meaning("classification"), reference, 0.99 * reference)
    assert found.divergence == pytest.approx(0, abs=1e-9) and found.agreement == 1


@pytest.mark.parametrize("task", ["classification", "segmentation"])
def test_probabilities_diverge_as_the_scores_that_they_are_made_of(task: str) -> None:
    reference, outputs = pair(task)
    plain = compared(Meaning(task), reference, outputs)
    behind = compared(Meaning(task), reference.softmax(1), outputs.softmax(1))
    assert behind.divergence == pytest.approx(plain.divergence, rel=1e-4)
    assert behind.agreement == plain.agreement


def test_regression_is_the_squared_error_over_the_variance() -> None:
    reference, outputs = pair("regression")
    errors = ChannelErrors()
    errors.add(reference, outputs)
    found = compared(Meaning("regression"), reference, outputs, slice(0, 3), slice(3, 9))
    assert found.divergence == pytest.approx(errors.value())
    assert found.agreement == pytest.approx(1 - errors.value())


def test_detection_diverges_like_regression_and_agrees_by_its_boxes() -> None:
    reference = (torch.randn(9, 3, 2, 2), 8 * torch.eye(3).repeat(3, 1))
    outputs = (reference[0] + 0.1, torch.cat([reference[1][:6], reference[1][6:].roll(1, dims=1)]))
    meaning = Meaning("detection", decode=boxes_of)
    found = compared(meaning, reference, outputs, slice(0, 2), slice(2, 9))
    assert found.divergence == pytest.approx(compared(Meaning("regression"), reference, outputs).divergence)
    assert found.agreement == pytest.approx(6 / 9)


@pytest.mark.parametrize("task", SHAPES)
def test_equal_outputs_do_not_diverge(task: str) -> None:
    reference, _ = pair(task)
    found = compared(Meaning(task), reference, reference)
    assert (found.divergence, found.agreement) == (pytest.approx(0, abs=1e-15), 1.0)


def test_the_first_of_several_outputs_is_the_scores() -> None:
    reference, outputs = pair("classification")
    beside = torch.randn(9, 2)
    found = compared(Meaning("classification"), (reference, beside), (outputs, beside + 1))
    assert found.divergence == pytest.approx(float(kl_divergence(reference, outputs).mean()))


def test_an_own_divergence_takes_the_task_s_place_and_agreement_stays() -> None:
    reference, outputs = pair("classification")

    def largest(one: Tensor, other: Tensor) -> Tensor:
        return (one - other).abs().amax(dim=1)

    found = compared(Meaning("classification", divergence=largest), reference, outputs, slice(0, 4), slice(4, 9))
    assert found.divergence == pytest.approx(float(largest(reference, outputs).mean()))
    assert found.agreement == pytest.approx(agreement(reference, outputs))


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (torch.zeros(()), r"divergence gives \[\] for 9 images: give a tensor \[9\]\."),
        (0.5, r"divergence gives a float for 9 images: give a tensor \[9\]\."),
        (torch.full((9,), math.inf), "divergence gives NaN or infinity: it must be finite for every image."),
    ],
)
def test_a_wrong_divergence_is_refused(given: object, sentence: str) -> None:
    reference, outputs = pair("classification")
    meaning = Meaning("classification", divergence=lambda one, other: given)  # type: ignore[arg-type, return-value]
    with pytest.raises(ModelError, match=f"^{sentence}$"):
        compared(meaning, reference, outputs)


def test_without_agreement_nothing_is_decoded() -> None:
    found = Comparison(Meaning("detection"), agreement=False)
    found.add(torch.zeros(2, 3), torch.zeros(2, 3))
    assert found.divergence == 0

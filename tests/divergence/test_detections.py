"""Which detections of two networks are the same."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from zeroq.divergence.detections import DetectionAgreement, detections_of, intersection_over_union, same_detections
from zeroq.errors import ModelError

LEFT, RIGHT = (0.0, 0.0, 0.4, 1.0), (0.6, 0.0, 1.0, 1.0)


def boxes(*rows: tuple[float, ...]) -> Tensor:
    return torch.tensor(rows).reshape(-1, 6)


def test_overlap_equals_a_count_of_cells() -> None:
    generator = torch.Generator().manual_seed(0)
    corners = torch.randint(0, 21, (2, 30, 4), generator=generator).float()
    first, second = (torch.cat([c[:, :2].minimum(c[:, 2:]), c[:, :2].maximum(c[:, 2:])], dim=1) for c in corners)

    def cells(box: list[float]) -> set[tuple[int, int]]:
        x0, y0, x1, y1 = map(int, box)
        return {(x, y) for x in range(x0, x1) for y in range(y0, y1)}

    for i, one in enumerate(first.tolist()):
        for j, other in enumerate(second.tolist()):
            union = cells(one) | cells(other)
            expected = len(cells(one) & cells(other)) / len(union) if union else 0.0
            assert float(intersection_over_union(first, second)[i, j]) == pytest.approx(expected, abs=1e-6)


def test_the_same_are_paired_and_those_of_low_score_do_not_count() -> None:
    reference = boxes((*LEFT, 0.9, 0), (*RIGHT, 0.8, 1), (*RIGHT, 0.29, 2))
    assert same_detections(reference, reference) == (2, 2, 2)
    assert same_detections(reference, reference[:0]) == (0, 2, 0)
    assert same_detections(reference[:0], reference) == (0, 0, 2)


def test_another_class_and_too_little_overlap_are_not_the_same() -> None:
    reference = boxes((*LEFT, 0.9, 0))
    assert same_detections(reference, boxes((*LEFT, 0.9, 1))) == (0, 1, 1)
    half = (0.0, 0.0, 0.25, 0.9)
    assert same_detections(reference, boxes((*half, 0.9, 0))) == (1, 1, 1)
    assert same_detections(reference, boxes((0.0, 0.0, 0.19, 1.0, 0.9, 0))) == (0, 1, 1)


def test_one_detection_is_paired_once_and_the_best_score_chooses_first() -> None:
    near = (0.0, 0.0, 0.35, 1.0)
    assert same_detections(boxes((*LEFT, 0.9, 0)), boxes((*near, 0.5, 0), (*LEFT, 0.4, 0))) == (1, 1, 2)
    wide = (0.0, 0.0, 0.5, 1.0)
    reference = boxes((*LEFT, 0.9, 0), (*wide, 0.8, 0))
    assert same_detections(reference, boxes((*wide, 0.9, 0), (*LEFT, 0.3, 0))) == (2, 2, 2)


def test_agreement_is_f1_over_all_images() -> None:
    answers = {1.0: boxes((*LEFT, 0.9, 0)), 2.0: boxes((*LEFT, 0.9, 0), (*RIGHT, 0.9, 0)), 0.0: boxes()}
    agreement = DetectionAgreement(lambda outputs: [answers[float(each)] for each in outputs[0]])
    agreement.add((torch.tensor([1.0, 0.0]),), (torch.tensor([1.0, 1.0]),))
    agreement.add((torch.tensor([2.0]),), (torch.tensor([1.0]),))
    assert agreement.counts.tolist() == [2, 3, 3] and agreement.value() == 2 / 3
    nothing = DetectionAgreement(lambda outputs: [boxes()])
    nothing.add((torch.zeros(1),), (torch.zeros(1),))
    assert nothing.value() == 1.0


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (torch.zeros(2, 6), "decode gives a Tensor for 2 images: give a list with one tensor [k, 6] for each image."),
        ([boxes()], "decode gives 1 values for 2 images: give a list with one tensor [k, 6] for each image."),
        (
            [boxes(), torch.zeros(3, 5)],
            "decode gives [3, 5] for an image: give a tensor [k, 6] of x0, y0, x1, y1, score, class.",
        ),
        ([boxes(), 1], "decode gives a int for an image: give a tensor [k, 6] of x0, y0, x1, y1, score, class."),
        (
            [boxes(), torch.full((1, 6), torch.nan)],
            "decode gives boxes that are NaN or infinite: clamp what overflows there.",
        ),
    ],
)
def test_a_wrong_decode_is_refused(given: object, sentence: str) -> None:
    with pytest.raises(ModelError) as caught:
        detections_of(lambda outputs: given, (torch.zeros(2, 3),))  # type: ignore[arg-type, return-value]
    assert str(caught.value) == sentence


def test_no_decode_is_refused() -> None:
    with pytest.raises(ModelError) as caught:
        detections_of(None, torch.zeros(2, 3))
    assert str(caught.value) == (
        "TASK is detection and no decode(outputs) says what the boxes are: write it beside the network's function, "
        "or give decode= in Python."
    )

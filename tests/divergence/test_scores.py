"""Divergence and agreement of class scores."""

from __future__ import annotations

import math

import pytest
import torch

from zeroq.divergence import agreement, kl_divergence
from zeroq.divergence.scores import are_probabilities, scores_of
from zeroq.errors import NumericalError


def literal_kl(reference: list[float], other: list[float]) -> float:
    """The definition, term by term."""
    p = [math.exp(value) / sum(map(math.exp, reference)) for value in reference]
    q = [math.exp(value) / sum(map(math.exp, other)) for value in other]
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def test_equals_the_definition() -> None:
    generator = torch.Generator().manual_seed(0)
    reference = 3 * torch.randn(20, 7, generator=generator, dtype=torch.float64)
    other = reference + torch.randn(20, 7, generator=generator, dtype=torch.float64)
    expected = [literal_kl(p, q) for p, q in zip(reference.tolist(), other.tolist(), strict=True)]
    assert kl_divergence(reference, other).tolist() == pytest.approx(expected, rel=1e-12)


def test_is_one_number_per_image_in_64_bits() -> None:
    result = kl_divergence(torch.randn(5, 3), torch.randn(5, 3))
    assert result.shape == (5,) and result.dtype == torch.float64


def test_resolves_what_32_bits_cannot() -> None:
    reference = torch.tensor([[0.0, 0.0]], dtype=torch.float64)
    shift = 1e-6
    # KL of two equal classes against a shift of one logit is shift^2 / 8 to first order.
    result = kl_divergence(reference, reference + torch.tensor([shift, 0])).item()
    assert result == pytest.approx(shift**2 / 8, rel=1e-3)


def test_never_negative_and_zero_for_a_shift_of_all_scores() -> None:
    reference = 10 * torch.randn(1000, 10, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    result = kl_divergence(reference, reference + 1e-9 * torch.randn(1000, 10, dtype=torch.float64))
    assert (result >= 0).all()
    assert kl_divergence(reference, reference + 5).max().item() < 1e-12


def test_large_scores_do_not_overflow() -> None:
    result = kl_divergence(torch.tensor([[1e4, 0.0]]), torch.tensor([[0.0, 1e4]]))
    assert result.item() == pytest.approx(1e4)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_names_whose_scores_are_no_numbers(bad: float) -> None:
    good, spoilt = torch.zeros(3, 2), torch.zeros(3, 2)
    spoilt[1, 0] = bad
    sentence = "scores are NaN or infinite for 1 of 3 images: its values overflow, or its weights hold such values."
    for function in (kl_divergence, agreement):
        with pytest.raises(NumericalError, match=f"^The reference's {sentence}$"):
            function(spoilt, good)
        with pytest.raises(NumericalError, match=f"^The network's {sentence}$"):
            function(good, spoilt)


def test_behind_a_softmax_scores_are_logarithms_of_probabilities() -> None:
    logits, others = torch.randn(6, 5), torch.randn(6, 5, 3, 3)
    for scores in (logits, others):
        found = scores_of((scores.softmax(1), torch.zeros(6)))
        torch.testing.assert_close(found.log_softmax(1), scores.log_softmax(1), rtol=1e-4, atol=1e-5)
        assert scores_of(scores) is scores
    certain = torch.eye(5)
    assert torch.isfinite(scores_of(certain)).all() and torch.equal(scores_of(certain).argmax(1), torch.arange(5))
    for no_probabilities in (torch.full((2, 1), 1.0), torch.tensor([[1.5, -0.5]]), torch.tensor([[0.5, 0.4]])):
        assert not are_probabilities(no_probabilities)


def test_agreement_counts_equal_classes_and_takes_the_lowest_among_equals() -> None:
    reference = torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 2.0], [0.0, 3.0]])
    other = torch.tensor([[5.0, 0.0], [1.0, 0.0], [1.0, 0.0], [7.0, 7.0]])
    assert agreement(reference, other) == 0.5


def test_scores_of_other_shapes_are_a_defect_of_the_caller() -> None:
    for reference, other in ((torch.zeros(2, 3), torch.zeros(2, 4)), (torch.zeros(3), torch.zeros(3))):
        with pytest.raises(ValueError, match="not both"):
            kl_divergence(reference, other)

"""The probe's gradients against squared errors of the output, by definition."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from zeroq.divergence import Comparison, Meaning
from zeroq.ranges.probe import Probe

DRAWS = 4000


def mean_square(probe: Probe, matrix: Tensor, inputs: Tensor, error: Tensor) -> float:
    """E[(g . e)^2] of a linear network, over the signs."""
    found = []
    for _ in range(DRAWS):
        value = inputs.clone().requires_grad_()
        probe.backward(value @ matrix)
        assert value.grad is not None
        found.append(float((value.grad * error).sum()) ** 2)
    return sum(found) / DRAWS


def test_of_scores_it_is_the_squared_error_apart_from_what_all_have_in_common() -> None:
    matrix, error = torch.randn(5, 3), torch.randn(1, 5)
    changed = error @ matrix
    expected = float((changed - changed.mean(1, keepdim=True)).square().sum())
    probe = Probe(Meaning("classification"))
    assert mean_square(probe, matrix, torch.randn(1, 5), error) == pytest.approx(expected, rel=0.1)


def test_behind_a_softmax_it_is_that_of_the_scores() -> None:
    scores = torch.randn(4, 6)
    found = []
    for function in (nn.Identity(), nn.Softmax(1)):
        value = scores.clone().requires_grad_()
        Probe(Meaning("classification")).backward(function(value))
        assert value.grad is not None
        found.append(value.grad)
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-5)


def test_of_other_outputs_it_is_the_divergence() -> None:
    """The normalized squared error, of which the probe knows the variances of the first batch."""
    matrix, inputs = torch.randn(5, 3) * torch.tensor([1.0, 10.0, 0.1]), torch.randn(40, 5)
    error = torch.randn(40, 5)
    comparison = Comparison(Meaning("regression"))
    comparison.add(inputs @ matrix, (inputs + error) @ matrix)
    found = mean_square(Probe(Meaning("regression")), matrix, inputs, error)
    assert found / 40 == pytest.approx(comparison.divergence, rel=0.1)


def test_it_is_the_same_in_every_run_however_the_images_are_split() -> None:
    network, images = nn.Linear(4, 6), torch.randn(6, 4)

    def gradients(*sizes: int) -> Tensor:
        probe, found = Probe(Meaning("classification")), []
        for part in images.split(list(sizes)):
            value = part.clone().requires_grad_()
            probe.backward(network(value))
            assert value.grad is not None
            found.append(value.grad)
        return torch.cat(found)

    assert torch.allclose(gradients(6), gradients(4, 2), atol=1e-6)


def test_an_output_that_depends_on_nothing_is_left_alone() -> None:
    Probe(Meaning("classification")).backward(torch.zeros(2, 3))
    Probe(Meaning("regression")).backward((torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64)))
    Probe(Meaning("regression")).backward(torch.zeros(2, dtype=torch.int64))

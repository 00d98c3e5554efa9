import pytest
import torch
from torch import nn

from zeroq.distillation.statistics import (
    InputStatistic,
    NormaliseAndMeasure,
)

GREY = InputStatistic((0.0,), (1.0,), (-2.0,), (2.0,))
COLOUR = InputStatistic((0.1, 0.2, 0.3), (1.0, 1.1, 0.9), (-2.0,) * 3, (2.0,) * 3)


@pytest.mark.parametrize("shape", [(4, 3), (4, 3, 5), (4, 3, 5, 6), (2, 3, 2, 3, 2), (1, 3, 1, 1)])
def test_normalise_and_measure_has_the_gradient_of_the_plain_formulas(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    value = torch.randn(shape).requires_grad_()
    weight, bias, mean, variance = torch.randn(3), torch.randn(3), torch.randn(3), torch.rand(3) + 0.5
    axes = [axis for axis in range(len(shape)) if axis != 1]
    expected = [
        nn.functional.batch_norm(value, mean, variance, weight, bias, False, 0.0, 1e-5),
        value.mean(axes),
        value.var(axes, correction=0),
    ]
    found = NormaliseAndMeasure.apply(value, weight, bias, mean, variance, 1e-5)
    factors = [torch.randn_like(part) for part in expected]
    gradients = []
    for parts in (expected, found):
        total = sum((factor * part).sum() for factor, part in zip(factors, parts, strict=True))
        gradients.append(torch.autograd.grad(total, value, retain_graph=True)[0])
    for one, other in zip(expected, found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)

"""Corrected weights against the regression that they are, and against data that they were not fitted to."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from zeroq.graph import capture
from zeroq.rounding import MomentSum
from zeroq.rounding.targets import JUDGED, KEPT, MOST, RIDGES, bounded, chosen_ridge, corrected, error, solution


def noisy(images: int, inputs: int, filters: int, noise: float, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """A linear layer's weight, inputs of which a part is lost, and the outputs of the whole ones; means are not 0."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(filters, inputs, generator=generator)
    mixing = torch.randn(inputs, inputs, generator=generator)
    whole = torch.randn(images, inputs, generator=generator) @ mixing + 3
    lossy = whole + noise * torch.randn(images, inputs, generator=generator)
    return weight, lossy, whole @ weight.T + 1


def taken_in(weight: Tensor, inputs: Tensor, outputs: Tensor) -> MomentSum:
    """Moments of a linear layer."""
    network = capture(nn.Linear(weight.shape[1], weight.shape[0]), torch.zeros(2, weight.shape[1]))
    total = MomentSum(network.layers[0])
    for first in range(0, len(inputs), 7):
        total.add(network.node(network.layers[0].sites[0]), inputs[first : first + 7], outputs[first : first + 7])
    return total


@settings(max_examples=25, deadline=None)
@given(st.integers(20, 60), st.integers(1, 9), st.integers(1, 4), st.sampled_from([0.01, 0.3, 3.0]))
def test_the_solution_is_the_ridge_regression(images: int, inputs: int, filters: int, ridge: float) -> None:
    weight, lossy, wanted = noisy(images, inputs, filters, noise=0.5)
    found = solution(weight[None], taken_in(weight, lossy, wanted).moments(), ridge)[0].double()
    a, y = ((each - each.mean(0)).double() for each in (lossy, wanted))
    strength = ridge * a.square().mean()
    # As least squares with one more row for each column: sqrt(N strength) (v - w).
    rows = torch.cat([a, (len(a) * strength).sqrt() * torch.eye(inputs, dtype=torch.float64)])
    goal = torch.cat([y, (len(a) * strength).sqrt() * weight.T.double()])
    expected = torch.linalg.lstsq(rows, goal).solution.T
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_the_error_is_that_of_the_outputs_about_their_means() -> None:
    weight, lossy, wanted = noisy(50, 6, 3, noise=0.5)
    moments = taken_in(weight, lossy, wanted).moments()
    a, y = lossy - lossy.mean(0), wanted - wanted.mean(0)
    expected = (y - a @ weight.T).square().mean(0).sum() - y.square().mean(0).sum()
    assert error(weight[None], moments) == pytest.approx(float(expected), rel=1e-3)


def test_what_is_lost_in_the_inputs_is_made_up_for_on_other_data() -> None:
    weight, lossy, wanted = noisy(400, 8, 5, noise=2.0)
    fitted = taken_in(weight, lossy[:300], wanted[:300])
    better = corrected(weight[None], *fitted.halves(), fitted.moments())
    others = taken_in(weight, lossy[300:], wanted[300:]).moments()
    assert error(better, others) < error(weight[None], others) - 0.02 * float(wanted.var(0).sum())


@pytest.mark.parametrize("noise", [1.0, 3.0, 10.0])
def test_a_filter_changes_by_no_more_than_a_share_of_its_length(noise: float) -> None:
    """In the direction that it would change in without a bound; those that change by less are left alone."""
    weight, lossy, wanted = noisy(400, 8, 40, noise=noise)
    total = taken_in(weight, lossy, wanted)
    ridge = chosen_ridge(weight[None], *total.halves())
    assert ridge is not None
    free = solution(weight[None], total.moments(), ridge)[0] - weight
    found = corrected(weight[None], *total.halves(), total.moments())[0] - weight
    shares = (free.norm(dim=1) / weight.norm(dim=1)).clamp(min=MOST)
    assert (shares > MOST).any()
    torch.testing.assert_close(found, free * (MOST / shares)[:, None], rtol=1e-3, atol=1e-5)


def test_the_bound_leaves_what_is_within_it_and_filters_of_zeros_alone() -> None:
    filters = torch.tensor([[[3.0, 4.0], [0.0, 0.0], [30.0, 40.0]]])
    wanted = torch.tensor([[[3.0, 5.0], [1.0, 1.0], [30.0, 41.0]]])
    expected = torch.tensor([[[3.0, 4.5], [0.0, 0.0], [30.0, 41.0]]])
    torch.testing.assert_close(bounded(filters, wanted), expected)


def test_exact_inputs_leave_the_weight() -> None:
    weight, whole, wanted = noisy(60, 8, 5, noise=0.0)
    total = taken_in(weight, whole, wanted)
    torch.testing.assert_close(
        corrected(weight[None], *total.halves(), total.moments()), weight[None], rtol=1e-3, atol=1e-3
    )


def test_where_nothing_is_gained_on_the_images_to_check_on_the_weight_stays() -> None:
    """Images to fit on ask for another weight than those to check on, which have the outputs of its own."""
    generator = torch.Generator().manual_seed(5)
    weight, other = torch.randn(2, 2, 4, generator=generator)
    inputs = torch.randn(20, 4, generator=generator)
    fitted, checked = (taken_in(weight, inputs, inputs @ each.T) for each in (other, weight))
    both = taken_in(weight, torch.cat([inputs] * 2), torch.cat([inputs @ other.T, inputs @ weight.T]))
    found = corrected(weight[None], fitted.moments(), checked.moments(), both.moments())
    assert torch.equal(found, weight[None])
    assert not torch.equal(corrected(weight[None], *both.halves(), both.moments()), weight[None])


@pytest.mark.parametrize("noise", [0.1, 0.5, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("seed", range(3))
def test_the_ridge_is_the_strongest_with_nearly_the_best_gain(noise: float, seed: int) -> None:
    """As all of them tried on all filters have it, where gains rise and fall once."""
    weight, lossy, wanted = noisy(300, 8, JUDGED, noise=noise, seed=seed)
    fitted, checked = taken_in(weight, lossy, wanted).halves()
    own = error(weight[None], checked)
    gains = {ridge: own - error(solution(weight[None], fitted, ridge), checked) for ridge in RIDGES}
    near = [ridge for ridge, gain in gains.items() if gain >= KEPT * max(gains.values())]
    assert chosen_ridge(weight[None], fitted, checked) == (max(near) if max(gains.values()) > 0 else None)


def test_some_filters_say_which_ridge() -> None:
    """Of two sets of filters that follow one another, the first in each pair alone is judged."""
    weight, lossy, wanted = noisy(300, 8, 2 * JUDGED, noise=1.0)
    fitted, checked = taken_in(weight, lossy, wanted).halves()
    judged = [replace(each, cross=each.cross[:, ::2]) for each in (fitted, checked)]
    assert chosen_ridge(weight[None], fitted, checked) == chosen_ridge(weight[None, ::2], *judged)


def test_without_wanted_outputs_or_inputs_the_weight_stays() -> None:
    weight = torch.randn(1, 2, 3)
    network = capture(nn.Linear(3, 2), torch.zeros(2, 3))
    total = MomentSum(network.layers[0])
    assert torch.equal(corrected(weight, *total.halves(), total.moments()), weight)
    total.add(network.node(network.layers[0].sites[0]), torch.zeros(4, 3), torch.zeros(4, 2))
    assert torch.equal(corrected(weight, *total.halves(), total.moments()), weight)

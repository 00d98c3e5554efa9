"""Random mixtures over patches."""

from __future__ import annotations

import pytest
import torch

from zeroq.distillation.mixtures import mixtures, patch_places


@pytest.mark.parametrize(("tokens", "patches"), [(16, 16), (17, 16), (198, 196), (12, 12), (2, 2), (1, 1)])
def test_mixtures_are_shares_of_the_patches(tokens: int, patches: int) -> None:
    found = mixtures(50, tokens, torch.Generator().manual_seed(0))
    assert found.shape == (50, patches) and bool((found > 0).all())
    assert torch.allclose(found.sum(1), torch.ones(50), atol=1e-5)
    assert patches < 4 or len({tuple(row.tolist()) for row in found}) == 50


def test_tokens_before_a_square_of_patches_have_no_place() -> None:
    assert patch_places(5).tolist() == [[0.25, 0.25], [0.25, 0.75], [0.75, 0.25], [0.75, 0.75]]


def test_neighbours_are_attended_together() -> None:
    found = mixtures(400, 64, torch.Generator().manual_seed(0)).reshape(400, 8, 8)
    centred = found - found.mean((1, 2), keepdim=True)
    near = (centred[:, :, 1:] * centred[:, :, :-1]).mean()
    far = (centred[:, :, 4:] * centred[:, :, :-4]).mean()
    assert near > 0.5 * centred.square().mean() and near > 3 * far.abs()


def test_a_seed_gives_the_same_again() -> None:
    one, other = (mixtures(3, 9, torch.Generator().manual_seed(4)) for _ in range(2))
    assert torch.equal(one, other)

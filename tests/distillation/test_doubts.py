"""Which running statistics are believed: broken ones, contradicted ones, and what is said of them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tests.networks import NETWORKS, example_of
from zeroq.distillation import Doubt, InputStatistic, Trust, examine, few_batches, warnings_of
from zeroq.distillation.doubts import IMAGES, doubtful, outside
from zeroq.distillation.measuring import moments_by_autograd
from zeroq.distillation.starts import natural_noise
from zeroq.graph import capture

STATISTIC = InputStatistic((0.0,) * 3, (1.0,) * 3, (-2.0,) * 3, (2.0,) * 3)


def kinds_of(mean: list[float], variance: list[float], epsilon: float = 1e-5) -> dict[str, list[int]]:
    """Channels by kind, where the network's own statistics are those of training."""
    measured = torch.nan_to_num(torch.tensor(mean), 0, 0, 0), torch.nan_to_num(torch.tensor(variance), 1, 1, 1)
    found = doubtful(torch.tensor(mean), torch.tensor(variance), epsilon, measured)
    return {kind: channels.nonzero().flatten().tolist() for kind, channels in found.items() if channels.any()}


def test_dead_and_extreme_channels_are_told_apart() -> None:
    nan, inf = float("nan"), float("inf")
    variance = [1.0, 3.0, 0.0, 1e-45, inf, 1e9, 1.0, nan]
    mean = [0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1e20, 0.0]
    assert kinds_of(mean, variance) == {"dead": [2, 3], "extreme": [4, 5, 6, 7]}


def test_statistics_that_were_never_measured_are_known_by_their_start() -> None:
    assert kinds_of([0.0] * 8, [1.0] * 8) == {"unmeasured": list(range(8))}
    assert kinds_of([0.0] * 8, [1.0] * 7 + [1.1]) == {}


def test_a_channel_far_from_the_common_ratio_is_outside() -> None:
    generator = torch.Generator().manual_seed(0)
    variance, mean = torch.rand(32, generator=generator) + 0.5, torch.randn(32, generator=generator)
    found = variance * 3 * torch.exp(0.1 * torch.randn(32, generator=generator))  # all have three times the variance
    distorted, moved = variance.clone(), mean.clone()
    distorted[5] *= 50
    distorted[9] /= 50
    moved[20] += 5
    assert outside(moved, distorted, mean, found).nonzero().flatten().tolist() == [5, 9, 20]
    assert not outside(mean, variance, mean, found).any()


def network_with(change: str) -> nn.Module:
    """A network whose second BatchNorm remembers what natural noise gives, but for one channel."""
    module = NETWORKS["plain"]()
    norms = [part for part in module.modules() if isinstance(part, nn.BatchNorm2d)]
    images = natural_noise((IMAGES, 3, 8, 8), STATISTIC, torch.Generator().manual_seed(1))
    for norm in norms:
        seen: list[Tensor] = []
        handle = norm.register_forward_pre_hook(lambda _, inputs, seen=seen: seen.append(inputs[0]))  # type: ignore[misc]
        with torch.no_grad():
            module(images)
        handle.remove()
        mean, variance = moments_by_autograd(seen[0])
        norm.running_mean.copy_(mean)  # type: ignore[union-attr]
        norm.running_var.copy_(variance)  # type: ignore[union-attr]
    with torch.no_grad():
        if change == "variance":
            norms[1].running_var[3] *= 100  # type: ignore[index]
            norms[1].weight[3] *= 10
    return module


def test_only_the_contradicted_channel_of_a_network_is_left_out() -> None:
    sound, distorted = (
        examine(capture(network_with(change), example_of("plain")), STATISTIC) for change in ("", "variance")
    )
    assert sound.doubts == () and all(believed.all() for believed in sound.believed.values())
    assert distorted.doubts == (Doubt("1.1", "inconsistent", (3,), 8),)
    assert distorted.believed["1.1"].tolist() == [True] * 3 + [False] + [True] * 4
    assert distorted.believed["0.1"].all()


def test_the_sites_of_one_norm_are_one_entry() -> None:
    trust = examine(capture(NETWORKS["shared_head"](), example_of("shared_head")), STATISTIC)
    assert set(trust.believed) == {"stem.1", "head.1"}


def test_doubts_are_named_with_counts() -> None:
    believed = {f"layer{index}.bn": torch.ones(100, dtype=torch.bool) for index in range(7)}
    dead = tuple(Doubt(f"layer{index}.bn", "dead", tuple(range(index + 1)), 100) for index in range(7))
    few, many = (Doubt("layer0.bn", "inconsistent", tuple(range(count)), 100) for count in (21, 22))
    assert warnings_of(Trust(believed, dead)) == [
        "28 of 700 BatchNorm channels have a running variance of 0, or nearly: they give a constant; images are not "
        "matched to them (7 of 100 in layer6.bn, 6 of 100 in layer5.bn, 5 of 100 in layer4.bn, 4 of 100 in layer3.bn, "
        "3 of 100 in layer2.bn and 2 BatchNorms more)."
    ]
    assert warnings_of(Trust(believed, (few,))) == []
    assert warnings_of(Trust(believed, (many,)))[0].startswith(
        "22 of 700 BatchNorm channels have running statistics that the network contradicts on pictures of natural"
    )


def test_a_variance_of_zero_tiny_or_infinite_is_legal() -> None:
    module = NETWORKS["dead_channels"]()
    module[1][1].running_var[0] = float("inf")  # type: ignore[index]
    network = capture(module, example_of("dead_channels"))
    assert torch.isfinite(network.run(*network.example)).all()


def test_few_batches_are_told_and_missing_counters_not() -> None:
    module = nn.Sequential(nn.BatchNorm2d(2), nn.BatchNorm2d(2), nn.BatchNorm2d(2))
    assert few_batches(module.state_dict()) == []
    for norm, count in zip(module, (7, 12, 30), strict=True):
        norm.num_batches_tracked.fill_(count)  # type: ignore[union-attr, operator]
    assert few_batches(module.state_dict()) == [
        "2 of 3 BatchNorms saw fewer than 30 batches of training (0: 7): their running statistics are rough; "
        "zeroq restatistic measures them again on pictures of yours."
    ]


def test_few_batches_of_what_restatistic_does_not_take_are_told_without_it() -> None:
    module = nn.Sequential(nn.BatchNorm2d(2))
    module[0].num_batches_tracked.fill_(7)  # type: ignore[union-attr, operator]
    (sentence,) = few_batches(module.state_dict(), measurable=False)
    assert sentence.endswith("(0: 7): their running statistics are rough.")

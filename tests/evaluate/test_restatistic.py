"""BatchNorm statistics measured batch by batch, against those that torch's own training keeps."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from tests.networks import NETWORKS, example_of
from zeroq.errors import DataError
from zeroq.evaluate import measure_statistics
from zeroq.evaluate.restatistic import Moments
from zeroq.graph import capture


def pictures(name: str, count: int) -> Tensor:
    shape = example_of(name).shape[1:]
    return 2 * torch.randn(count, *shape, generator=torch.Generator().manual_seed(5)) + 1


def trained(module: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """Running statistics after one batch of training at momentum 1: those of the batch."""
    module = copy.deepcopy(module).train()
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.momentum = 1.0
    with torch.no_grad():
        module(images)
    return {name: tensor for name, tensor in module.state_dict().items() if "running" in name}


@pytest.mark.parametrize("name", ["residual", "pre_activation", "norm_after_relu", "one_pixel_maps", "one_channel"])
def test_one_batch_gives_what_training_keeps_of_it(name: str) -> None:
    module, images = NETWORKS[name](), pictures(name, 16)
    found = measure_statistics(capture(module, example_of(name)), [images])
    expected = trained(module, images)
    assert set(found) == set(expected) and found
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=1e-4, atol=1e-5)


def test_the_first_norm_has_the_exact_statistics_of_all_batches_together() -> None:
    module, images = NETWORKS["plain"](), pictures("plain", 23)
    with torch.no_grad():
        values = module[0][0](images)  # type: ignore[index]
    found = measure_statistics(capture(module, example_of("plain")), images.split([3, 16, 4]))
    torch.testing.assert_close(found["0.1.running_mean"], values.mean((0, 2, 3)), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found["0.1.running_var"], values.var((0, 2, 3)), rtol=1e-5, atol=1e-6)


def test_a_norm_at_several_places_has_the_mean_of_both() -> None:
    module, images = NETWORKS["shared_head"](), pictures("shared_head", 8)
    seen: list[Tensor] = []
    module.head[1].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))  # type: ignore[index]
    trained_copy = copy.deepcopy(module).train()
    with torch.no_grad():
        trained_copy(images)
    found = measure_statistics(capture(NETWORKS["shared_head"](), example_of("shared_head")), [images])
    expected = torch.stack([value.mean((0, 2, 3)) for value in seen[-2:]]).mean(0)
    torch.testing.assert_close(found["head.1.running_mean"], expected, rtol=1e-4, atol=1e-5)


def test_merging_is_exact_for_a_large_mean() -> None:
    values = torch.randn(1000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 1e6
    parts = values.split([1, 699, 300])
    merged = Moments.of(parts[0]).merged(Moments.of(parts[1])).merged(Moments.of(parts[2]))
    torch.testing.assert_close(merged.mean, values.mean(0))
    torch.testing.assert_close(merged.variance, values.var(0), rtol=1e-9, atol=0)


def test_a_single_value_per_channel_is_refused() -> None:
    network = capture(NETWORKS["linear_only"](), example_of("linear_only"))
    with pytest.raises(DataError, match="A single picture has no variance"):
        measure_statistics(network, [pictures("linear_only", 1)])

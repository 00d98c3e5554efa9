"""The evaluation of a network on labelled data."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from zeroq.divergence import Meaning, agreement, kl_divergence
from zeroq.errors import DataError, NumericalError, OptionError
from zeroq.evaluate import LabelledData, evaluate, open_data
from zeroq.preprocessing import Preprocessing

GREY = Preprocessing((4, 4), (0.0,), (1.0,), "L")
IMAGES = np.random.default_rng(0).integers(0, 256, (23, 4, 4, 1), dtype=np.uint8)
LABELS = np.arange(23) % 7


@pytest.fixture
def data() -> LabelledData:
    return open_data((IMAGES, LABELS), GREY, 7)


def classifier(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 7)).eval()


@pytest.mark.parametrize("batch", [1, 5, 23, 100])
def test_figures_equal_those_of_all_images_at_once(data: LabelledData, batch: int) -> None:
    network, reference = classifier(0), classifier(1)
    inputs = next(iter(data.batches(23)))[0]
    with torch.no_grad():
        outputs, expected = network(inputs), reference(inputs)
    result = evaluate(network, data, batch=batch, reference=reference)
    right = (outputs.argmax(1) == data.labels).double().mean().item()
    assert list(result) == [
        *("images", "task", "top1", "top5", "standard_error", "float"),
        *("agreement", "mean_divergence", "images_per_second"),
    ]
    of_float = evaluate(reference, data)
    assert result["float"] == {name: of_float[name] for name in ("top1", "top5", "standard_error")}
    assert (result["images"], result["task"]) == (23, "classification")
    assert result["top1"] == right
    best_five = outputs.topk(5).indices == data.labels[:, None]
    assert result["top5"] == pytest.approx(best_five.any(1).double().mean().item())
    assert result["standard_error"] == pytest.approx((right * (1 - right) / 23) ** 0.5)
    assert result["agreement"] == pytest.approx(agreement(expected, outputs))
    assert result["mean_divergence"] == pytest.approx(kl_divergence(expected, outputs).mean().item())
    assert json.loads(json.dumps(result)) == result


def test_keys_of_the_reference_are_null_without_one(data: LabelledData) -> None:
    result = evaluate(classifier(0), data)
    assert result["float"] is None and result["agreement"] is None and result["mean_divergence"] is None


def test_a_network_agrees_with_itself(data: LabelledData) -> None:
    result = evaluate(classifier(0), data, reference=classifier(0))
    assert result["agreement"] == 1 and result["mean_divergence"] == 0


def test_only_the_network_is_timed(data: LabelledData) -> None:
    def slow(inputs: Tensor) -> Tensor:
        time.sleep(0.02)
        return torch.zeros(len(inputs), 7)

    def slower(inputs: Tensor) -> Tensor:
        time.sleep(0.2)
        return torch.zeros(len(inputs), 7)

    rate = evaluate(slow, data, batch=23, reference=slower)["images_per_second"]
    assert 23 / 0.1 < rate <= 23 / 0.02


def test_progress_counts_the_images(data: LabelledData) -> None:
    steps: list[int] = []
    evaluate(classifier(0), data, batch=10, on_step=steps.append)
    assert steps == [10, 10, 3]


def test_outputs_carry_no_gradients(data: LabelledData) -> None:
    seen: list[Tensor] = []

    def watched(inputs: Tensor) -> Tensor:
        seen.append(network(inputs))
        return seen[-1]

    network = classifier(0)
    evaluate(watched, data)
    assert not seen[0].requires_grad


def test_a_module_in_training_mode_is_refused_unchanged(data: LabelledData) -> None:
    network = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(16), nn.Linear(16, 7))
    for arguments in ({"predict": network}, {"predict": classifier(0), "reference": network}):
        with pytest.raises(OptionError, match=r"^The module is in training mode: call its eval\(\) first\.$"):
            evaluate(data=data, **arguments)  # type: ignore[arg-type]
    assert network[1].num_batches_tracked == 0


def test_outputs_that_do_not_fit_are_refused(data: LabelledData) -> None:
    with pytest.raises(DataError) as caught:
        evaluate(lambda inputs: torch.zeros(len(inputs), 10), data, batch=4)
    assert str(caught.value) == (
        "The network gives [4, 10] for 4 images and the labels have 7 classes: classification needs scores [4, 7]."
    )
    with pytest.raises(NumericalError) as overflow:
        evaluate(lambda inputs: torch.full((len(inputs), 7), torch.nan), data)
    assert str(overflow.value) == (
        "The network gives scores that are NaN or infinite: its values overflow on these data."
    )


def test_impossible_questions_are_refused(data: LabelledData) -> None:
    with pytest.raises(OptionError, match=r"^A batch of 0 images was asked for: give at least 1\.$"):
        evaluate(classifier(0), data, batch=0)


def test_a_reference_of_other_outputs_is_refused(data: LabelledData) -> None:
    with pytest.raises(DataError) as caught:
        evaluate(classifier(0), data, batch=4, reference=lambda inputs: (torch.zeros(len(inputs), 8),))
    assert str(caught.value) == (
        "The network gives [[4, 7]] and its reference [[4, 8]]: name the network that it was made from."
    )


def test_what_the_output_means_decides_the_comparison(data: LabelledData) -> None:
    meaning = Meaning("classification", divergence=lambda one, other: (one - other).abs().amax(dim=1))
    network, reference = classifier(0), classifier(1)
    with torch.no_grad():
        outputs, expected = (each(next(iter(data.batches(23)))[0]) for each in (network, reference))
    result = evaluate(network, data, meaning=meaning, batch=5, reference=reference)
    assert result["mean_divergence"] == pytest.approx(float((outputs - expected).abs().amax(dim=1).mean()))
    assert result["agreement"] == pytest.approx(agreement(expected, outputs))


def test_a_real_network_has_its_known_accuracy(shared_data: Path) -> None:
    """300 of the README's 1,500 pictures, of which it gets 91.87 % right."""
    import importlib.util

    path = shared_data / "networks" / "resnet20_cifar10.py"
    specification = importlib.util.spec_from_file_location("resnet20_cifar10", path)
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    with np.load(shared_data / "cifar10_test_a.npz") as archive:
        data = open_data(
            (archive["images"][:300], archive["labels"][:300]), Preprocessing.from_dict(module.PREPROCESS), 10
        )
    assert evaluate(module.resnet20_cifar10(), data)["top1"] == pytest.approx(0.9187, abs=0.04)

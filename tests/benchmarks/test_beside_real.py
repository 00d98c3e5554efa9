"""The page of distilled images beside real pictures, from results of any origin."""

from __future__ import annotations

from benchmarks.beside_real import ROWS, SETTINGS, document
from benchmarks.rows import DISTILLED, FAMILIES, REAL, W6A6, W8, Row
from tests.benchmarks.test_without import result


def test_rows_are_every_network_in_every_setting_with_both() -> None:
    assert len(ROWS) == len({row.name for row in ROWS}) == len(FAMILIES) * len(SETTINGS) * 2


def test_means_are_over_networks_that_have_both_and_have_a_limit() -> None:
    found = {
        Row("vgg_cifar10", W8, DISTILLED): result(12), Row("vgg_cifar10", W8, REAL): result(10),
        Row("vit_cifar10", W8, DISTILLED): result(9), Row("vit_cifar10", W8, REAL): result(12),
        Row("vit_cifar10", W6A6, DISTILLED): result(12), Row("vit_cifar10", W6A6, REAL): result(12),
        Row("resnet20_cifar10", W8, DISTILLED): result(12),
    }  # fmt: skip
    text = document(found, {Row("vit_cifar10", W6A6, REAL)})
    assert "| W8A8 | 2 | -3.12 | -3.12 | **missed** |" in text  # of 16 pictures two more, three fewer
    assert "| W6A6 | 1 | +0.00 `stale` | +0.00 `stale` | met |" in text
    assert "| W4A4 | 0 | – | – | – |" in text and "resnet20_cifar10" not in text
    assert "| vgg_cifar10 | W8A8 | +12.50 [" in text and "0.0013; 0.0013" in text

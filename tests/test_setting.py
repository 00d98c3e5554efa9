"""What options say of each layer."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.networks import NETWORKS, example_of
from zeroq.errors import ModelError, OptionError
from zeroq.graph import capture, fold
from zeroq.numbers.values import BitSetting
from zeroq.options import Options
from zeroq.setting import LayerPlan, plan_layers


def planned(name: str = "residual", **options: Any) -> LayerPlan:
    """The plan of a tiny network: of residual, stem.0, body.0.0, body.1 and head."""
    return plan_layers(fold(capture(NETWORKS[name](), example_of(name))), Options(**options))


def test_uniform_settings_keep_the_edges_at_eight_bits() -> None:
    plan = planned(weight_bits=(4,), activation_bits=5)
    assert [layer.name for layer in plan.layers] == ["stem.0", "body.0.0", "body.1", "head"]
    assert plan.widths == {"stem.0": (8,), "body.0.0": (4,), "body.1": (4,), "head": (8,)}
    assert plan.input_bits == {"stem.0": 8, "body.0.0": 5, "body.1": 5, "head": 8}
    assert plan.floating == ()
    assert plan.parameters == {"stem.0": 216, "body.0.0": 576, "body.1": 576, "head": 32}


class Heads(nn.Module):
    """Two outputs, one of them a sum of what two layers give; sizes of a batch are no way to the output."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)
        self.boxes, self.scores, self.offsets = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 2, 1), nn.Conv2d(4, 2, 1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        stem = self.stem(images).relu()
        body = self.body(stem).relu()
        boxes = self.boxes(body).sigmoid().reshape(stem.shape[0], 4, -1)
        return boxes, self.scores(body) + self.offsets(stem)


def test_every_output_has_an_edge() -> None:
    plan = plan_layers(fold(capture(Heads(), torch.randn(2, 3, 4, 4))), Options(weight_bits=(4,), activation_bits=6))
    last = dict.fromkeys(("boxes", "scores", "offsets"), (8,))
    assert plan.widths == {"stem": (8,), "body": (4,)} | last
    assert plan.input_bits == dict.fromkeys(plan.widths, 8) | {"body": 6}


def test_edges_can_be_like_the_others_but_the_input_stays_at_eight_bits() -> None:
    plan = planned(weight_bits=(4,), activation_bits=5, edge_bits="same")
    assert set(plan.widths.values()) == {(4,)}
    assert plan.input_bits == {"stem.0": 8, "body.0.0": 5, "body.1": 5, "head": 5}


def test_a_target_gives_every_layer_the_candidates() -> None:
    plan = planned(average_bits=4)
    assert set(plan.widths.values()) == {(2, 4, 8)}
    plan = planned(average_bits=4, edge_bits=6)
    assert plan.widths == {"stem.0": (6,), "body.0.0": (2, 4, 8), "body.1": (2, 4, 8), "head": (6,)}


def test_what_the_edges_read_stays_wide_with_a_target_unless_it_is_asked_otherwise() -> None:
    narrow = {"stem.0": 8, "body.0.0": 5, "body.1": 5, "head": 5}
    assert planned(average_bits=4, activation_bits=5).input_bits == narrow | {"head": 8}
    assert planned(average_bits=4, activation_bits=5, edge_bits="same").input_bits == narrow
    assert planned(average_bits=4, activation_bits=5, edge_bits=6).input_bits == narrow | {"head": 6}


def test_inputs_have_a_choice_except_the_networks_own_and_those_of_edges() -> None:
    asked: dict[str, Any] = {"activation_bits": (4, 8), "bit_operations": 1.0}
    plan = planned(**asked)
    assert plan.input_widths == dict.fromkeys(("body.0.0", "body.1", "head"), (4, 8))
    assert plan.input_bits == dict.fromkeys(plan.widths, 8)
    assert plan.inputs == {"stem.0": (8,)} | plan.input_widths
    assert plan.options[0] == ((2, 8), (4, 8), (8, 8))
    assert plan.options[1] == ((2, 4), (2, 8), (4, 4), (4, 8), (8, 4), (8, 8))
    assert plan.sizes[1] == [576 * bits for bits in (2, 2, 4, 4, 8, 8)]
    assert plan.operations[1] == [64 * 576 * product for product in (8, 16, 16, 32, 32, 64)]
    assert "head" not in planned(edge_bits=8, **asked).input_widths
    setting = BitSetting(dict.fromkeys(plan.widths, 2), {"body.0.0": 4, "body.1": 8, "head": 4})
    assert plan.at(setting).input_bits == {"stem.0": 8, "body.0.0": 4, "body.1": 8, "head": 4}
    assert plan.at(setting).operations_of(setting.bits) == 2 * 8 * 64 * 216 + 2 * (4 + 8) * 64 * 576 + 2 * 4 * 32
    assert plan.at(BitSetting(setting.bits)) is plan


def test_layers_by_pattern() -> None:
    plan = planned(average_bits=4, layer_bits=(("body.*", 3), ("*.1", 5)), keep_float=("he*",))
    assert plan.widths == {"stem.0": (2, 4, 8), "body.0.0": (3,), "body.1": (5,)}
    assert plan.floating == ("head",)
    assert "head" not in plan.input_bits


def test_bits_of_a_layer_go_before_those_of_the_edges() -> None:
    assert planned(weight_bits=(4,), layer_bits=(("stem.0", 3),)).widths["stem.0"] == (3,)


def test_patterns_that_match_nothing_are_refused() -> None:
    with pytest.raises(OptionError) as error:
        planned(keep_float=("neck.*",))
    assert str(error.value) == (
        "--keep-float neck.* matches no layer: names are like stem.0, body.0.0, body.1, and * stands for any text."
    )
    with pytest.raises(OptionError, match=r"^--layer-bits neck matches no layer: "):
        planned(layer_bits=(("neck", 4),))


def test_a_network_without_layers_left_is_refused() -> None:
    sentence = "The network has no layer to quantize: it needs at least one convolution or linear layer."
    with pytest.raises(OptionError, match="^--keep-float leaves no layer to quantize: keep fewer of them in floating"):
        planned(keep_float=("*",))
    with pytest.raises(ModelError) as error:
        plan_layers(capture(nn.Flatten(), torch.randn(2, 3, 4)), Options())
    assert str(error.value) == sentence


def test_layers_are_in_order_of_execution_not_of_definition() -> None:
    class Backwards(nn.Module):
        """The last layer is defined first."""

        def __init__(self) -> None:
            super().__init__()
            self.head, self.stem = nn.Linear(4, 2), nn.Linear(3, 4)

        def forward(self, rows: Tensor) -> Tensor:
            return self.head(self.stem(rows))

    plan = plan_layers(capture(Backwards(), torch.randn(2, 3)), Options(weight_bits=(4,)))
    assert [layer.name for layer in plan.layers] == ["stem", "head"]


def test_a_layer_that_reads_the_moved_input_is_at_eight_bits_even_in_the_middle() -> None:
    class Late(nn.Module):
        """The input comes in again before the last layer but one."""

        def __init__(self) -> None:
            super().__init__()
            self.stem, self.again, self.head = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1)

        def forward(self, images: Tensor) -> Tensor:
            return self.head(self.stem(images) + self.again(images.transpose(2, 3)))

    plan = plan_layers(capture(Late(), torch.randn(2, 3, 4, 4)), Options(activation_bits=4, edge_bits="same"))
    assert plan.input_bits == {"stem": 8, "again": 8, "head": 4}


def test_a_single_layer_is_both_edges() -> None:
    assert planned("one_convolution", weight_bits=(2,)).widths == {"only": (8,)}

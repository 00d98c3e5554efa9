"""Einsums become products that quantizers know, of the same values; those that no product gives stay."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from zeroq.graph import Network, capture

aten = torch.ops.aten

SIZES = {"b": 2, "c": 3, "d": 4, "e": 5, "h": 2, "w": 3}


class Equation(nn.Module):
    """One einsum of its inputs, and of a stored tensor where there is one."""

    def __init__(self, equation: str, stored: Tensor | None = None, first: bool = False) -> None:
        super().__init__()
        self.equation, self.first = equation, first
        self.stored = None if stored is None else nn.Parameter(stored)

    def forward(self, *values: Tensor) -> Tensor:
        if self.stored is not None:
            values = (self.stored, *values) if self.first else (*values, self.stored)
        return torch.einsum(self.equation, *values)


def drawn(letters: str) -> Tensor:
    return torch.randn([SIZES[letter] for letter in letters], generator=torch.Generator().manual_seed(len(letters)))


def captured(equation: str, *values: str, stored: str | None = None, first: bool = False) -> Network:
    """The network, which `capture` has compared with the module."""
    module = Equation(equation, None if stored is None else drawn(stored), first)
    return capture(module, tuple(drawn(letters) for letters in values))


def steps(network: Network) -> list[Callable[..., Tensor]]:
    return [node.target for node in network.graph.nodes if node.op == "call_function"]


@pytest.mark.parametrize(
    ("equation", "values", "stored", "first"),
    [
        ("bhwc,dc->bhwd", "bhwc", "dc", False),
        ("bchw,cd->bdhw", "bchw", "cd", False),
        ("dc,bc->bd", "bc", "dc", True),
        ("bhc,cde->bhde", "bhc", "cde", False),
        ("bdec,dec->b", "bdec", "dec", False),
        ("...c,cd->...d", "bhwc", "cd", False),
        ("bc,cd", "bc", "cd", False),
    ],
)
def test_with_a_stored_tensor_it_is_a_linear_layer(equation: str, values: str, stored: str, first: bool) -> None:
    network = captured(equation, values, stored=stored, first=first)
    assert [layer.operator for layer in network.layers] == ["linear"] and network.layers[0].name == "stored"
    assert network.not_quantized == ()
    assert set(steps(network)) <= {aten.linear.default, aten.permute.default, aten.reshape.default}


@pytest.mark.parametrize(
    ("equation", "values"),
    [
        ("bhcd,bhed->bhce", ("bhcd", "bhed")),
        ("b h c d, b h d e -> b h c e", ("bhcd", "bhde")),
        ("...cd,...ed->...ce", ("bhcd", "bhed")),
        ("bchw,bdhw->bcd", ("bchw", "bdhw")),
        ("bd,bde->be", ("bd", "bde")),
        ("bcd,bd->bc", ("bcd", "bd")),
        ("bcd,bed->bec", ("bcd", "bed")),
        ("bc,bc->b", ("bc", "bc")),
    ],
)
def test_of_computed_values_it_is_one_product_of_matrices(equation: str, values: tuple[str, ...]) -> None:
    network = captured(equation, *values)
    assert steps(network).count(aten.matmul.default) == 1
    assert set(steps(network)) <= {aten.matmul.default, aten.permute.default, aten.reshape.default}


def test_weights_of_each_head_multiply_all_images_alike() -> None:
    network = captured("bchd,hde->bche", "bchd", stored="hde")
    (product,) = (node for node in network.graph.nodes if node.target == aten.matmul.default)
    assert network.not_quantized == (("stored", "matmul with a stored tensor has no integer kernel"),)
    with torch.inference_mode():
        assert network.run(drawn("bchd")[:1]).shape == (1, 3, 2, 5)
    assert product.args[0].args[1][0] == -1  # images stay the first axis


@pytest.mark.parametrize(
    ("equation", "values", "stored"),
    [
        ("bchw,bc->bchw", ("bchw", "bc"), None),
        ("bchw,c->bchw", ("bchw",), "c"),
        ("bc,bd->bcd", ("bc", "bd"), None),
        ("bchw,bchw->bchw", ("bchw", "bchw"), None),
    ],
)
def test_without_a_sum_it_is_a_product_of_values(equation: str, values: tuple[str, ...], stored: str | None) -> None:
    network = captured(equation, *values, stored=stored)
    assert steps(network).count(aten.mul.Tensor) == 1 and aten.einsum.default not in steps(network)


def test_of_one_value_it_is_another_order() -> None:
    assert steps(captured("bchw->bhwc", "bchw")) == [aten.permute.default]


@pytest.mark.parametrize(
    ("equation", "values"),
    [("bcd->bc", ("bcd",)), ("bcd,be->bce", ("bcd", "be")), ("bc,bd,be->bcde", ("bc", "bd", "be"))],
)
def test_others_stay(equation: str, values: tuple[str, ...]) -> None:
    assert steps(captured(equation, *values)) == [aten.einsum.default]


def test_a_diagonal_and_an_axis_repeated_for_the_other_stay() -> None:
    assert steps(capture(Equation("bcc->bc"), torch.randn(2, 3, 3))) == [aten.einsum.default]
    values = torch.randn(2, 3, 4), torch.randn(2, 1, 4)
    assert steps(capture(Equation("bcd,bcd->bc"), values)) == [aten.einsum.default]


@settings(max_examples=25, deadline=None)
@given(st.permutations("cdehw"), st.permutations("cdehw"), st.integers(0, 4), st.integers(0, 4), st.data())
def test_any_equation_of_two_values(one: list[str], other: list[str], few: int, many: int, data: st.DataObject) -> None:
    first, second = "".join(one[:few]), "".join(other[:many])
    assume(first and second)
    kept = [letter for letter in "cdehw" if (letter in first) != (letter in second)]
    shared = [letter for letter in "cdehw" if letter in first and letter in second]
    kept += data.draw(st.lists(st.sampled_from(shared), unique=True)) if shared else []
    result = "b" + "".join(data.draw(st.permutations(kept)))
    stored = data.draw(st.booleans())
    if stored:
        network = captured(f"b{first},{second}->{result}", f"b{first}", stored=second)
    else:
        network = captured(f"b{first},b{second}->{result}", f"b{first}", f"b{second}")
    assert aten.einsum.default not in steps(network)

"""Einsums of one or two values, in words that quantizers and integer kernels know."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor, fx

aten = torch.ops.aten

Sizes = Mapping[str, Any]  # letter -> size of its axis; that of the batch is symbolic


def split_einsums(graph: fx.Graph, tensors: Mapping[str, Tensor]) -> None:
    """einsum -> permute, reshape and matmul; mul, where no axis is summed over.

    One stays that has more than two operands, names an axis twice in one of them, sums over an axis of one alone, or
    repeats one for the other.
    """
    for node in list(graph.nodes):
        if node.target != aten.einsum.default:
            continue
        operands = list(node.args[1])
        values = [tensors[each.target] if each.op == "get_attr" else each.meta["val"] for each in operands]
        shapes = [tuple(value.shape) for value in values]
        *terms, result = letters(node.args[0], [len(shape) for shape in shapes])
        sizes = sizes_of(terms, shapes)
        if sizes is None or not can_be_split(terms, result):
            continue
        with graph.inserting_before(node):
            written = Writing(node, sizes)
            if len(operands) == 1:
                made = written.ordered(operands[0], terms[0], result)
            elif set(terms[0]) & set(terms[1]) <= set(result):
                made = written.elementwise(operands, terms, result)
            else:
                made = written.product(operands, terms, result)
        node.replace_all_uses_with(made)
        graph.erase_node(node)


def letters(equation: str, dimensions: Sequence[int]) -> list[str]:
    """The letters of each operand's axes and of the result's; an ellipsis gets letters of its own."""
    given, arrow, result = equation.replace(" ", "").partition("->")
    terms = given.split(",")
    free = [letter for letter in string.ascii_letters if letter not in equation]
    hidden = [size - len(term) + 3 if "..." in term else 0 for term, size in zip(terms, dimensions, strict=True)]
    dots = "".join(free[: max(hidden)])
    if not arrow:
        once = sorted(letter for letter in set(given) - set(",.") if given.count(letter) == 1)
        result = "".join(["..." if "..." in given else "", *once])
    return [
        *(term.replace("...", dots[len(dots) - count :]) for term, count in zip(terms, hidden, strict=True)),
        result.replace("...", dots),
    ]


def sizes_of(terms: Sequence[str], shapes: Sequence[tuple[Any, ...]]) -> Sizes | None:
    """The size of each letter's axis; None where operands disagree, as one is repeated for the other."""
    sizes: dict[str, Any] = {}
    for term, shape in zip(terms, shapes, strict=True):
        for letter, size in zip(term, shape, strict=True):
            if str(sizes.setdefault(letter, size)) != str(size):
                return None
    return sizes


def can_be_split(terms: Sequence[str], result: str) -> bool:
    """Whether one product of matrices, or of values, gives it."""
    if len(terms) > 2 or any(len(set(term)) < len(term) for term in terms):
        return False
    shared = set(terms[0]) & set(terms[-1]) if len(terms) == 2 else set()
    return all(letter in shared or letter in result for term in terms for letter in term)


class Writing:
    """The nodes that stand for an einsum."""

    def __init__(self, node: fx.Node, sizes: Sizes) -> None:
        self.node, self.sizes = node, sizes

    def step(self, operator: Any, *arguments: Any) -> fx.Node:
        """One more node, with what torch.export would say of its value."""
        made = self.node.graph.call_function(operator, arguments)
        values = fx.node.map_arg(arguments, lambda source: source.meta["val"])
        made.meta = {**self.node.meta, "val": operator(*values)}
        return made

    def ordered(self, value: fx.Node, term: str, order: str) -> fx.Node:
        """A value with its axes in another order."""
        return value if term == order else self.step(aten.permute.default, value, [term.index(each) for each in order])

    def grouped(self, value: fx.Node, term: str, groups: Sequence[str]) -> fx.Node:
        """A value with one axis for each group of letters; of none, an axis of one."""
        value = self.ordered(value, term, "".join(groups))
        return value if all(len(group) == 1 for group in groups) else self.reshaped(value, groups)

    def reshaped(self, value: fx.Node, groups: Sequence[str]) -> fx.Node:
        """A value with one axis for each group of letters, which it holds in order."""
        sizes = [prod(self.sizes[letter] for letter in group) for group in groups]
        return self.step(aten.reshape.default, value, [size if isinstance(size, int) else -1 for size in sizes])

    def elementwise(self, operands: Sequence[fx.Node], terms: Sequence[str], result: str) -> fx.Node:
        """No axis is summed over: each value in the order of the result, with an axis of one for what it lacks."""
        groups = ([letter if letter in term else "" for letter in result] for term in terms)
        parts = [self.grouped(*each) for each in zip(operands, terms, groups, strict=True)]
        return self.step(aten.mul.Tensor, *parts)

    def product(self, operands: Sequence[fx.Node], terms: Sequence[str], result: str) -> fx.Node:
        """[..., rows, summed] times [batch, summed, columns].

        Of a stored operand, which comes second, there is one for all images: axes of the other alone stand before
        its batch, the images' first. Without batch it is the weight of a linear layer.
        """
        (left, right), (first, second) = operands, terms
        if left.op == "get_attr":
            left, right, first, second = right, left, second, first
        shared = [letter for letter in first if letter in second]
        summed = "".join(letter for letter in shared if letter not in result)
        batch = [letter for letter in result if letter in shared]
        own, columns = ("".join(each for each in term if each not in shared) for term in (first, second))
        before, rows = ([], own) if right.op != "get_attr" else ([*own], "") if batch else ([*own[:-1]], own[-1])
        made = self.step(
            aten.matmul.default,
            self.grouped(left, first, [*before, *batch, rows, summed]),
            self.grouped(right, second, [*batch, summed, columns]),
        )
        order = [*before, *batch, *rows, *columns]
        if len(rows) != 1 or len(columns) != 1:
            made = self.reshaped(made, order)
        return self.ordered(made, "".join(order), result)

"""Every operator that users' networks have, from module to file: in integers, as its simulation, for any batch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.operators import IN_FLOAT, OPERATORS, noise
from tests.quantized import Stages, quantize
from zeroq.deploy import verify
from zeroq.deploy.verify import open_session, run
from zeroq.graph import as_inputs

leaves = torch.utils._pytree.tree_leaves


@pytest.mark.parametrize("name", OPERATORS)
def test_it_goes_the_whole_way(name: str) -> None:
    case = OPERATORS[name]
    module, images = case.make(), as_inputs(case.inputs(16))
    stages = quantize(module, images)
    model = stages.export()
    verification = verify(model, stages.quantized, images, threads=1)
    assert verification.largest_steps <= 1 and verification.compared == sum(verification.integer_nodes.values())
    assert set(stages.weights) == {layer.name for layer in stages.folded.layers}
    assert set(stages.weight_bits) <= verification.integer_weights
    names, operators = IN_FLOAT.get(name, ((), ()))
    assert {name for name, _ in stages.folded.not_quantized} == set(names)
    assert set(verification.float_nodes) == set(operators)
    answers_alike(model, stages, case.inputs(7, seed=3))
    with torch.inference_mode():
        expected = leaves(module(*case.inputs(16)))
        found = leaves(stages.quantized(*case.inputs(16)))
    for one, other in zip(expected, found, strict=True):
        assert noise(one, other) < case.noise


def answers_alike(model: object, stages: Stages, inputs: tuple[Tensor, ...]) -> None:
    """The file, optimised and not, for one image, two and seven."""
    sessions = [open_session(model, 1, optimised=each) for each in (True, False)]  # type: ignore[arg-type]
    for count in (1, 2, len(inputs[0])):
        part = as_inputs([value[:count] for value in inputs])
        with torch.inference_mode():
            expected = leaves(stages.quantized(*(value[:count] for value in inputs)))
        for session in sessions:
            for reference, output in zip(expected, run(session, part), strict=True):
                assert output.shape == reference.shape
                assert (output - reference).abs().mean() <= 0.01 * reference.abs().max()

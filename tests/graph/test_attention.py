"""Attention in its parts gives what PyTorch's gives: masks, scales, shared keys, modules that call it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from zeroq.graph import Network, capture

WIDTH = 8

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


class Attending(nn.Module):
    """Queries, keys and values of pictures' pixels as tokens, and a function of the three."""

    def __init__(self, attend: Attend, heads: tuple[int, int] = (2, 2)) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(3, WIDTH)
        self.key, self.value = (nn.Linear(3, WIDTH * heads[1] // heads[0]) for _ in range(2))
        self.attend = attend
        self.register_buffer("bias", torch.randn(1, 1, 16, 16))

    def forward(self, images: Tensor) -> Tensor:
        tokens = images.flatten(2).transpose(1, 2)
        query, key, value = (
            layer(tokens).unflatten(2, (heads, -1)).transpose(1, 2)
            for layer, heads in (
                (self.query, self.heads[0]),
                (self.key, self.heads[1]),
                (self.value, self.heads[1]),
            )  # fmt: skip
        )
        return self.attend(query, key, value)


def captured(module: nn.Module) -> Network:
    """The network of a module, compared with it on five pictures."""
    network = capture(module.eval(), torch.randn(2, 3, 4, 4))
    images = torch.randn(5, 3, 4, 4)
    with torch.inference_mode():
        torch.testing.assert_close(network.run(images), module(images), rtol=1e-4, atol=1e-5)
    return network


def operators(network: Network) -> list[str]:
    return [str(node.target).split(".")[1] for node in network.graph.nodes if node.op == "call_function"]


def test_attention_becomes_two_products_around_a_softmax() -> None:
    network = captured(Attending(functional.scaled_dot_product_attention))
    assert operators(network)[-5:] == ["transpose", "matmul", "mul", "softmax", "matmul"]


@pytest.mark.parametrize(
    "attend",
    [
        lambda q, k, v: functional.scaled_dot_product_attention(q, k, v, scale=0.3),
        lambda q, k, v: functional.scaled_dot_product_attention(q, k, v, is_causal=True),
        lambda q, k, v: functional.scaled_dot_product_attention(q, k, v, torch.ones(16, 16, dtype=torch.bool).triu()),
        lambda q, k, v: functional.scaled_dot_product_attention(q, k, v, torch.arange(256.0).reshape(16, 16) / 100),
    ],
    ids=["scale", "causal", "boolean mask", "added mask"],
)
def test_scales_and_masks(attend: Attend) -> None:
    network = captured(Attending(attend))
    assert "scaled_dot_product_attention" not in operators(network)


def test_several_queries_share_a_key() -> None:
    def grouped(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return functional.scaled_dot_product_attention(query, key, value, enable_gqa=True)

    assert operators(captured(Attending(grouped, heads=(4, 2)))).count("matmul") == 2


@pytest.mark.parametrize("weights", [True, False])
def test_multihead_attention_of_pytorch(weights: bool) -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(WIDTH, 2, batch_first=True)
            self.encoder = nn.TransformerEncoderLayer(WIDTH, 2, 16, batch_first=True, norm_first=True)
            self.embed = nn.Linear(3, WIDTH)

        def forward(self, images: Tensor) -> Tensor:
            tokens = self.embed(images.flatten(2).transpose(1, 2))
            return self.encoder(self.attention(tokens, tokens, tokens, need_weights=weights)[0])

    network = captured(Block())
    assert "scaled_dot_product_attention" not in operators(network)
    assert {"attention.out_proj", "encoder.self_attn.out_proj"} <= {layer.name for layer in network.layers}


def test_parts_of_an_unbound_value_are_selections() -> None:
    class Unbound(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qkv = nn.Linear(3, 12)

        def forward(self, images: Tensor) -> Tensor:
            parts = self.qkv(images.flatten(2).transpose(1, 2)).unflatten(2, (3, 4)).permute(2, 0, 1, 3).unbind(0)
            return parts[0] * parts[1] + parts[2]

    assert operators(captured(Unbound())).count("select") == 3

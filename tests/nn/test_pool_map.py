"""Attention pooling against timm's, and its starting values."""

import math
from functools import partial

import pytest
import torch
from torch import nn

from vitexp import torch_ops  # noqa: F401  (before timm)

from timm.layers import AttentionPoolLatent  # isort: skip

from vitexp.nn.init import initialise
from vitexp.nn.pool import Map
from vitexp.nn.vit import ViT, ViTConfig


def make(width: int = 16, heads: int = 4, mlp_width: int = 32) -> Map:
    pool = Map(width, heads, mlp_width)
    initialise(pool, 0)
    return pool


def to_timm(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    renamed = {name.replace("out.", "proj."): value for name, value in state.items()}
    renamed["latent"] = renamed.pop("probe")[None]
    return renamed


@pytest.mark.parametrize("tokens", [1, 6])
def test_equals_timm(tokens: int) -> None:
    theirs = AttentionPoolLatent(
        16, num_heads=4, mlp_ratio=2.0, norm_layer=nn.LayerNorm, act_layer=partial(nn.GELU, approximate="tanh")
    )
    theirs.norm.eps = 1e-6
    ours, norm = make(), nn.LayerNorm(16)
    torch.manual_seed(0)
    for parameter in (*ours.parameters(), *norm.parameters()):
        nn.init.normal_(parameter, std=0.5)
    theirs.load_state_dict(to_timm(ours.state_dict()))
    images = torch.randn(3, tokens, 16)
    read = ours.read(images, norm)
    assert read.std() > 0.1
    torch.testing.assert_close(read, theirs(norm(images)), rtol=0, atol=1e-5)


def test_order_of_tokens_does_not_matter_but_each_token_does() -> None:
    pool, tokens = make(), torch.randn(1, 6, 16, requires_grad=True)
    torch.testing.assert_close(pool.read(tokens.flip(1), nn.Identity()), pool.read(tokens, nn.Identity()))
    pool.read(tokens, nn.Identity())[0, 0].backward()
    assert tokens.grad is not None
    assert tokens.grad.abs().amax(dim=-1).min() > 0


def test_starting_values() -> None:
    pool = make(192, 3, 768)
    assert pool.probe.abs().max() <= math.sqrt(6 / 193)
    assert pool.probe.std().item() == pytest.approx(math.sqrt(2 / 193), rel=0.1)
    for matrix in (pool.q.weight, *pool.kv.weight.chunk(2), pool.out.weight):
        assert 0.99 < matrix.abs().max() / math.sqrt(3 / 192) <= 1
    assert not any(layer.bias.any() for layer in (pool.q, pool.kv, pool.out))
    assert 0.99 < pool.mlp.fc1.weight.abs().max() / math.sqrt(6 / 960) <= 1


def test_a_network_with_it_has_no_class_token() -> None:
    net = ViT(ViTConfig(arch="micro/2", image_size=8, classes=10, pool="map"))
    assert net.layout.prefix == 0
    assert net.features(torch.randn(2, 3, 8, 8)).shape == (2, 64)

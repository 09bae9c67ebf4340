"""Class attention against timm's CaiT, and sequence pooling against NumPy."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from vitexp import torch_ops  # noqa: F401  (before timm)

from timm.models.cait import Cait, ClassAttn  # isort: skip
from timm.models.vision_transformer import Block as TimmBlock

from vitexp.nn.init import initialise
from vitexp.nn.pool import POOLS
from vitexp.nn.pool_class import ClassAttention
from vitexp.nn.vit import ViT, ViTConfig

IMAGES = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def moved(module: nn.Module) -> nn.Module:
    """With every parameter far from its initial value."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return module.eval()


def joined(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """timm's values by our names, by hand."""
    found = {}
    for name, value in state.items():
        for old, new in {
            "blocks_token_only.": "pool.layers.", "cls_token": "pool.token", "patch_embed.proj": "stem.embedding",
            "attn.proj": "attention.out", "attn.q.": "attention.q.", "attn.k.": "attention.kv.",
            "attn.qkv": "attention.qkv", "gamma_1": "scale1.gamma", "gamma_2": "scale2.gamma",
            "ls1.": "scale1.", "ls2.": "scale2.",
        }.items():  # fmt: skip
            name = name.replace(old, new)
        if "attn.v." in name:
            name = name.replace("attn.v", "attention.kv")
            value = torch.cat([found[name], value])
        found["position.tables.0" if name == "pos_embed" else name] = value[0] if name == "pos_embed" else value
    return found


def test_class_attention_equals_timms() -> None:
    theirs, ours = moved(ClassAttn(16, num_heads=4, qkv_bias=True)), ClassAttention(16, 4)
    state = {f"attn.{name}": value for name, value in theirs.state_dict().items()}
    ours.load_state_dict({name.removeprefix("attention."): value for name, value in joined(state).items()})
    tokens = torch.randn(3, 7, 16)
    assert theirs(tokens).std() > 0.05
    torch.testing.assert_close(ours(tokens), theirs(tokens), rtol=0, atol=1e-5)


class PlainBlock(TimmBlock):
    """timm's, under the arguments of CaiT: what CaiT has besides, talking heads, is not here."""

    def __init__(self, dim: int, init_values: float, attn_block: Any, mlp_block: Any, **options: Any) -> None:
        super().__init__(dim, init_values=init_values, **options)


@torch.no_grad()
def test_the_network_equals_cait_with_plain_heads() -> None:
    theirs = moved(
        Cait(
            img_size=8, patch_size=2, embed_dim=64, depth=4, num_heads=4, num_classes=10, block_layers=PlainBlock,
            init_values=0.1, act_layer=partial(nn.GELU, approximate="tanh"),
        )
    )  # fmt: skip
    ours = ViT(ViTConfig(arch="micro/2", image_size=8, classes=10, pool="class_attention", layer_scale=0.1)).eval()
    ours.load_state_dict(joined(theirs.state_dict()))
    assert theirs(IMAGES).std() > 0.1
    torch.testing.assert_close(ours(IMAGES), theirs(IMAGES), rtol=0, atol=1e-5)


@torch.no_grad()
def test_the_encoder_does_not_see_the_token_and_the_other_weights_start_as_with_its_mean() -> None:
    nets = []
    for pool in ("gap", "class_attention"):
        torch.manual_seed(0)
        nets.append(ViT(ViTConfig(arch="micro/2", image_size=8, pool=pool)).eval())  # type: ignore[arg-type]
    gap, late = nets
    assert torch.equal(gap.encode(IMAGES), late.encode(IMAGES))
    assert {name.split(".")[0] for name in late.state_dict().keys() - gap.state_dict().keys()} == {"pool"}
    assert all(torch.equal(late.state_dict()[name], value) for name, value in gap.state_dict().items())
    assert 0.01 < late.pool.token.std() < 0.03


@pytest.mark.parametrize("word", ["class_attention", "seqpool"])
def test_order_of_tokens_does_not_matter_but_each_token_does(word: str) -> None:
    pool, tokens = POOLS[word](8, 2, 16), torch.randn(1, 6, 8, requires_grad=True)
    initialise(pool, 0)
    pool, norm = moved(pool), nn.LayerNorm(8)
    torch.testing.assert_close(pool.read(tokens.flip(1), norm), pool.read(tokens, norm))
    pool.read(tokens, norm)[0, 0].backward()
    assert tokens.grad is not None
    assert tokens.grad.abs().amax(dim=-1).min() > 0


def test_norm_and_layer_scale_reach_its_layers() -> None:
    net = ViT(ViTConfig(arch="micro/2", image_size=8, pool="class_attention", norm="rms", layer_scale=0.1))
    assert not any(isinstance(module, nn.LayerNorm) for module in net.modules())
    names = [name for name, _ in net.pool.named_parameters() if "scale" in name]
    assert names == [f"layers.{layer}.scale{branch}.gamma" for layer in (0, 1) for branch in (1, 2)]


def test_sequence_pooling_in_numpy() -> None:
    pool, norm, tokens = POOLS["seqpool"](8, 2, 16), nn.LayerNorm(8), 5 * torch.randn(2, 6, 8) + 3
    nn.init.normal_(pool.score)
    normed, score = norm(tokens).detach().double().numpy(), pool.score.detach().double().numpy()[0]
    for image, read in zip(normed, pool.read(tokens, norm), strict=True):
        weights = np.exp(image @ score)
        expected = sum(weight * token for weight, token in zip(weights / weights.sum(), image, strict=True))
        np.testing.assert_allclose(read.detach().numpy(), expected, rtol=0, atol=1e-5)


def test_sequence_pooling_without_a_score_is_the_mean() -> None:
    pool, norm, tokens = POOLS["seqpool"](8, 2, 16), nn.LayerNorm(8), torch.randn(2, 6, 8)
    nn.init.zeros_(pool.score)
    torch.testing.assert_close(pool.read(tokens, norm), POOLS["gap"](8, 2, 16).read(tokens, norm))

"""Rotary positions with learned frequencies: timm's rotation, timm's network, and that only offsets show."""

import itertools
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from vitexp import torch_ops  # noqa: F401  (before timm)

from timm.layers import RotaryEmbeddingMixed, apply_rot_embed_cat  # isort: skip
from timm.models.eva import Eva  # isort: skip

from vitexp.nn.init import initialise
from vitexp.nn.pos_mixed import RopeMixed
from vitexp.nn.position import Layout
from vitexp.nn.vit import ViT, ViTConfig


def make(grid: tuple[int, int], prefix: int = 0, at: str = "stem", head_width: int = 8, heads: int = 2) -> RopeMixed:
    position = RopeMixed(Layout(grid=grid, prefix=prefix, width=heads * head_width, heads=heads, depth=3), at)
    initialise(position, 0)
    return position


@pytest.mark.parametrize("grid", [(3, 4), (1, 1), (5, 2)])
def test_rotation_equals_timm(grid: tuple[int, int]) -> None:
    position, theirs = make(grid, prefix=1), RotaryEmbeddingMixed(16, depth=3, num_heads=2, feat_shape=list(grid))
    for layer in range(3):
        position.frequencies[layer].data = theirs.freqs[:, layer].flatten(0, 1).detach()
    heads = torch.randn(2, 2, 1 + grid[0] * grid[1], 8)
    for layer, table in enumerate(theirs.get_embed()):
        turned = position.rotate(heads, layer)
        torch.testing.assert_close(turned[:, :, 1:], apply_rot_embed_cat(heads[:, :, 1:], table), rtol=0, atol=1e-5)
        assert torch.equal(turned[:, :, 0], heads[:, :, 0]), "the class token has no place"


def test_frequencies_start_as_those_of_timm() -> None:
    """The same sizes, along two directions at right angles; one random direction a head."""
    ours, theirs = make((2, 2), head_width=16, heads=300), RotaryEmbeddingMixed(4800, depth=1, num_heads=300)
    mine, other = ours.frequencies[0].unflatten(0, (2, 300)), theirs.freqs[:, 0]
    sizes = [values.norm(dim=0) for values in (mine, other)]
    torch.testing.assert_close(sizes[0], sizes[1])
    torch.testing.assert_close(sizes[0][0], 10.0 ** -(torch.arange(4) / 4).repeat(2))
    for values in (mine, other):
        torch.testing.assert_close((values[..., :4] * values[..., 4:]).sum(0), torch.zeros(300, 4), rtol=0, atol=1e-6)
        directions = torch.atan2(values[1, :, 0], values[0, :, 0]).div(torch.pi).detach().sort().values
        assert (directions - torch.linspace(-1, 1, 300)).abs().max() < 0.15
    assert not torch.equal(ours.frequencies[0], ours.frequencies[1])


def test_shared_frequencies_are_those_of_every_layer() -> None:
    position, heads = make((3, 4), at="shared"), torch.randn(1, 2, 12, 8)
    assert torch.equal(position.rotate(heads, 0), position.rotate(heads, 2))
    own = make((3, 4))
    assert not torch.equal(own.rotate(heads, 0), own.rotate(heads, 2))


def test_products_depend_on_the_offset_alone_and_heads_differ() -> None:
    position = make((4, 5))
    query, key = (torch.randn(1, 1, 1, 8).expand(1, 2, 20, 8) for _ in range(2))
    logits = (position.rotate(query, 1) @ position.rotate(key, 1).transpose(-1, -2)).detach()
    assert not torch.allclose(logits[0, 0], logits[0, 1], atol=1e-2)
    by_offset: dict[tuple[int, int], list[float]] = {}
    for (r, c), (s, d) in itertools.product(itertools.product(range(4), range(5)), repeat=2):
        by_offset.setdefault((s - r, d - c), []).append(logits[0, 0, 5 * r + c, 5 * s + d].item())
    assert all(max(values) - min(values) < 1e-4 for values in by_offset.values())
    assert min(np.diff(sorted(np.mean(values) for values in by_offset.values()))) > 1e-5


def test_same_weights_same_logits_as_timm() -> None:
    torch.manual_seed(0)
    theirs = Eva(
        img_size=(8, 12), patch_size=2, embed_dim=64, depth=4, num_heads=4, num_classes=10, use_abs_pos_emb=False,
        use_rot_pos_emb=True, rope_type="mixed", rope_temperature=10.0, rope_grid_indexing="xy", global_pool="token",
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
    ).eval()  # fmt: skip
    for parameter in theirs.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    ours = ViT(
        ViTConfig(arch="micro/2", image_size=(8, 12), classes=10, pos_embed="rope_mixed", gelu="exact")  # type: ignore[arg-type]
    ).eval()
    state = {}
    for name, value in theirs.state_dict().items():
        for old, new in {"patch_embed.proj": "stem.embedding", "cls_token": "pool.cls", "attn.": "attention."}.items():
            name = name.replace(old, new)
        state[name.replace("attention.proj", "attention.out")] = value
    for name in [name for name in state if name.endswith("q_bias")]:
        start = name.removesuffix("q_bias")
        state[f"{start}qkv.bias"] = torch.cat([state.pop(name), torch.zeros(64), state.pop(f"{start}v_bias")])
    frequencies = state.pop("rope.freqs")
    state |= {f"position.frequencies.{layer}": frequencies[:, layer].flatten(0, 1) for layer in range(4)}
    ours.load_state_dict(state)
    images = torch.randn(3, 3, 8, 12)
    with torch.no_grad():
        expected = theirs(images)
        assert expected.std() > 0.1
        torch.testing.assert_close(ours(images), expected, rtol=0, atol=1e-5)


def test_heads_that_have_no_quarters_are_refused() -> None:
    with pytest.raises(ValueError, match="rope_mixed quarters the width of a head, and 6 will not do"):
        make((2, 2), head_width=6)

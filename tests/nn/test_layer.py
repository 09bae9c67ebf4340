"""The attention axis: its words, and what is refused beside them."""

from typing import Any

import pytest
import torch

from vitexp.nn.attention import LAYERS
from vitexp.nn.config import ViTConfig, resolve
from vitexp.nn.pool import POOLS
from vitexp.nn.pos_embed import POSITIONS
from vitexp.nn.vit import ViT


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("pos_embed", POSITIONS)
@pytest.mark.parametrize("attention", LAYERS)
def test_every_meaningful_pair_is_a_network(attention: Any, pos_embed: Any, pool: Any) -> None:
    config = ViTConfig(
        arch="micro/2", image_size=(8, 12), classes=10, attention=attention, pos_embed=pos_embed, pool=pool
    )
    offsets_of_patches = pos_embed == "relative2d" and pool == "cls"
    if offsets_of_patches or (POSITIONS[pos_embed].has_bias() and not LAYERS[attention].sees_all):
        other = f"pool {pool}" if offsets_of_patches else f"attention {attention}"
        with pytest.raises(ValueError, match=f"pos_embed {pos_embed} cannot be with {other}"):
            ViT(config)
        return
    net = ViT(config)
    torch.nn.init.normal_(net.head.weight)
    net(torch.randn(2, 3, 8, 12)).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in net.parameters())


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"attention": "sparse"}, "attention 'sparse' is unknown; allowed are full, local, axial, strided, fixed"),
        ({"window": 5}, "window 5 has no effect with attention full"),
        ({"attention": "axial", "pool": "gap", "window": 5}, "window 5 has no effect with attention axial"),
        ({"attention": "local", "window": 4}, "window is 4, and must be odd and at least 1"),
        ({"attention": "local", "window": -1}, "window is -1, and must be odd"),
        (
            {"attention": "axial", "pool": "gap", "pos_embed": "relative"},
            "pos_embed relative cannot be with .* axial: its",
        ),
        ({"attention": "strided", "window": 5}, "window 5 has no effect with attention strided; .* or use local"),
    ],
)
def test_mistakes_are_refused(choices: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        resolve(ViTConfig(**choices))


def test_what_is_meant_passes() -> None:
    resolve(ViTConfig(attention="local", window=1, pos_embed="relative"))
    resolve(ViTConfig(attention="axial", pos_embed="rope", registers=2))

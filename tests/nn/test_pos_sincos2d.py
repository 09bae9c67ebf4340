"""Fixed sines and cosines against NumPy by hand and against timm's table."""

import numpy as np
import pytest
import torch

from vitexp import torch_ops  # noqa: F401  (before timm)

from timm.layers import build_sincos2d_pos_embed  # isort: skip

from vitexp.nn.init import initialise
from vitexp.nn.pos_embed import SinCos2d, sincos2d
from vitexp.nn.position import Layout
from vitexp.nn.vit import ViT, ViTConfig

GRIDS = [(2, 3), (1, 1), (5, 4)]


def layout_of(grid: tuple[int, int] = (3, 4), prefix: int = 1, width: int = 16) -> Layout:
    return Layout(grid=grid, prefix=prefix, width=width, heads=2, depth=3)


def make(layout: Layout, at: str = "stem") -> SinCos2d:
    position = SinCos2d(layout, at)  # type: ignore[arg-type]
    initialise(position, 0)
    return position


@pytest.mark.parametrize("grid", GRIDS)
def test_table_by_numpy(grid: tuple[int, int]) -> None:
    expected = []
    for row in range(grid[0]):
        for column in range(grid[1]):
            omega = np.array([10000.0 ** (-j / 3) for j in range(4)])
            parts = [np.sin(column * omega), np.cos(column * omega), np.sin(row * omega), np.cos(row * omega)]
            expected.append(np.concatenate(parts))
    np.testing.assert_allclose(sincos2d(layout_of(grid)).numpy(), np.stack(expected), atol=1e-6)


@pytest.mark.parametrize("grid", GRIDS)
def test_table_equals_timm_at_its_own_base(grid: tuple[int, int]) -> None:
    # timm divides the exponent by n, where the source divides by n - 1, and keeps another order of the quarters.
    theirs = build_sincos2d_pos_embed(list(grid), dim=32, temperature=10000 ** (8 / 7))
    sin_y, sin_x, cos_y, cos_x = theirs.chunk(4, dim=1)
    expected = torch.cat([sin_x, cos_x, sin_y, cos_y], dim=1)
    torch.testing.assert_close(sincos2d(layout_of(grid, width=32)), expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("prefix", [0, 1, 3])
def test_prefix_gets_zeros_and_places_differ(prefix: int) -> None:
    position = make(layout_of(prefix=prefix))
    table = position.add(torch.zeros(1, prefix + 12, 16), 0)[0]
    assert not table[:prefix].any()
    assert len(table[prefix:].unique(dim=0)) == 12


def test_where_it_enters() -> None:
    tokens = torch.randn(2, 13, 16)
    stem, shared = make(layout_of()), make(layout_of(), "shared")
    assert stem.add(tokens, 1) is tokens
    assert torch.equal(shared.add(tokens, 2), stem.add(tokens, 0))


def test_nothing_is_learned_or_stored() -> None:
    torch.manual_seed(0)
    net = ViT(ViTConfig(arch="micro/2", image_size=8, classes=10, pos_embed="sincos2d"))
    assert not [name for name in net.state_dict() if name.startswith("position")]
    assert net.double().position.get_buffer("fixed").dtype == torch.float64


def test_network_from_the_meta_device_has_its_table() -> None:
    with torch.device("meta"):
        empty = SinCos2d(layout_of(), "stem")
    filled = empty.to_empty(device="cpu")
    initialise(filled, 0)
    assert torch.equal(filled.get_buffer("fixed"), make(layout_of()).get_buffer("fixed"))


@pytest.mark.parametrize("width", [4, 6, 18])
def test_widths_that_have_no_quarters_are_refused(width: int) -> None:
    with pytest.raises(ValueError, match=f"sincos2d quarters the width, at least 8, and {width} will not do"):
        SinCos2d(layout_of(width=width), "stem")

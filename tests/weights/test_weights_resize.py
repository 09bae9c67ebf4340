import numpy as np
import pytest
import scipy.ndimage
import torch

from vitexp.nn.pos_embed import Layout
from vitexp.weights.load import resize_grid, resize_position

GRIDS = [
    ((14, 14), (24, 24)),
    ((7, 7), (12, 12)),
    ((16, 16), (37, 37)),
    ((24, 24), (14, 14)),
    ((14, 14), (9, 21)),
    ((3, 5), (4, 4)),
]


def layout(grid, prefix=1):
    return Layout(grid=grid, prefix=prefix, width=8, heads=2, depth=2)


def random(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("old", "new"), GRIDS)
def test_resizing_equals_scipys_zoom_of_order_1(old, new):
    table = random(old[0] * old[1], 8)
    zoomed = scipy.ndimage.zoom(table.numpy().reshape(*old, 8), (new[0] / old[0], new[1] / old[1], 1), order=1)
    assert zoomed.shape == (*new, 8)
    np.testing.assert_allclose(resize_grid(table, old, new).numpy(), zoomed.reshape(-1, 8), rtol=0, atol=1e-6)


def test_corners_stay_corners():
    resized = resize_grid(random(16, 3), (4, 4), (7, 5)).unflatten(0, (7, 5))
    corners = random(16, 3).unflatten(0, (4, 4))
    torch.testing.assert_close(resized[::6, ::4], corners[::3, ::3])


@pytest.mark.parametrize("prefix", [0, 1])
def test_the_prefix_row_is_kept_and_a_square_is_assumed(prefix):
    table = random(prefix + 16, 8)
    resized = resize_position("position.tables.0", table, layout((3, 6), prefix), None)
    assert torch.equal(resized[:prefix], table[:prefix])
    assert torch.equal(resized[prefix:], resize_grid(table[prefix:], (4, 4), (3, 6)))


def test_a_table_of_the_right_length_is_taken_as_it_is_unless_its_grid_is_given():
    table = random(17, 8)
    assert resize_position("position.tables.1", table, layout((2, 8)), None) is table
    stretched = resize_position("position.tables.1", table, layout((2, 8)), (4, 4))
    assert torch.equal(stretched[1:], resize_grid(table[1:], (4, 4), (2, 8)))


@pytest.mark.parametrize("grid", [None, (4, 4)])
def test_a_table_of_unknown_grid_is_refused(grid):
    with pytest.raises(ValueError, match=r"table of 13 rows is not 1 for the prefix and a grid of .*: give grid"):
        resize_position("position.tables.0", random(13, 8), layout((5, 5)), grid)


def test_tables_of_rows_and_columns_resize_like_the_grid_they_span():
    x, y = random(4, 4), random(3, 4) + 1
    spanned = torch.cat([x.expand(3, 4, 4), y[:, None].expand(3, 4, 4)], dim=-1).flatten(0, 1)
    new = layout((5, 9))
    new_x, new_y = (resize_position(f"position.{kind}.0", table, new, None) for kind, table in [("x", x), ("y", y)])
    expected = torch.cat([new_x.expand(5, 9, 4), new_y[:, None].expand(5, 9, 4)], dim=-1).flatten(0, 1)
    torch.testing.assert_close(expected, resize_grid(spanned, (3, 4), (5, 9)))


def test_other_parameters_pass_through():
    weight = random(3, 8)
    assert resize_position("head.weight", weight, layout((5, 5)), None) is weight

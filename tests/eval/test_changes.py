"""Changed images against plain loops; the same for an image whatever its batch; and `none` does not see a shuffle."""

import numpy as np
import pytest
import torch

from vitexp.eval import changes
from vitexp.nn.vit import ViT, ViTConfig

SAMPLES = np.array([3, 4, 90, 91, 7])


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(1, 256, (5, 8, 8, 3), dtype=np.uint8)


def pieces(image, rows, columns):
    high, wide = image.shape[0] // rows, image.shape[1] // columns
    return [image[r * high : (r + 1) * high, c * wide : (c + 1) * wide] for r in range(rows) for c in range(columns)]


@pytest.mark.parametrize(("rows", "columns"), [(2, 2), (4, 4), (2, 4)])
def test_a_shuffle_is_a_permutation_of_whole_pieces(images, rows, columns):
    found = changes.shuffled(images, SAMPLES, rows, columns)
    orders = []
    for before, after in zip(images, found, strict=True):
        old, new = ([part.tobytes() for part in pieces(one, rows, columns)] for one in (before, after))
        orders.append(tuple(old.index(part) for part in new))
        assert sorted(orders[-1]) == list(range(rows * columns))
    assert len(set(orders)) > 1  # not one order for the whole batch


@pytest.mark.parametrize(
    "change",
    [
        lambda images, samples: changes.shuffled(images, samples, 4, 4),
        lambda images, samples: changes.blanked(images, changes.random_order(samples, 16), 50, 4),
        lambda images, samples: changes.translated(images, samples, 2),
        lambda images, samples: changes.rotated(images, samples, 30),
    ],
)
def test_an_image_is_changed_alike_in_any_batch(images, change):
    whole = change(images, SAMPLES)
    backwards = change(images[::-1], SAMPLES[::-1])[::-1]
    assert (whole == backwards).all()
    assert (whole[2:3] == change(images[2:3], SAMPLES[2:3])).all()
    assert (whole != images).any()


def test_more_blanked_patches_are_a_superset_and_nothing_else_changes(images):
    order = changes.random_order(SAMPLES, 16)
    before = np.zeros((5, 16), bool)
    for percent, count in ((10, 2), (30, 5), (50, 8), (90, 14)):
        found = changes.blanked(images, order, percent, 4)
        gone = np.array([[not part.any() for part in pieces(image, 4, 4)] for image in found])
        assert (gone.sum(axis=1) == count).all()
        assert (gone >= before).all()
        kept = found != 0
        assert (found[kept] == images[kept]).all()
        before = gone


def test_sums_over_pieces_equal_loops(images):
    values = images[..., 0].astype(float)
    expected = [[part.sum() for part in pieces(image[..., None], 4, 4)] for image in values]
    assert changes.piece_sums(values, 4) == pytest.approx(np.array(expected))


def test_a_moved_image_is_the_image_elsewhere_on_black(images):
    found, moves = changes.translated(images, SAMPLES, 2), set()
    for before, after in zip(images, found, strict=True):
        fits = []
        for down in (-2, 0, 2):
            for right in (-2, 0, 2):
                moved = np.zeros_like(before)
                for row in range(8):
                    for column in range(8):
                        if 0 <= row - down < 8 and 0 <= column - right < 8:
                            moved[row, column] = before[row - down, column - right]
                fits += [(down, right)] if (moved == after).all() else []
        assert len(fits) == 1
        assert fits != [(0, 0)]
        moves.update(fits)
    assert len(moves) > 1


def test_a_quarter_turn_is_that_of_numpy(images):
    found, turns = changes.rotated(images, np.arange(5), 90), set()
    for before, after in zip(images, found, strict=True):
        turns.add(next(k for k in (1, 3) if (np.rot90(before, k) == after).all()))
    assert turns == {1, 3}


def test_a_shrunk_image_is_the_mean_of_pixels_in_the_middle_of_black():
    even = np.repeat(np.repeat(np.arange(0, 160, 10, dtype=np.uint8).reshape(1, 4, 4, 1), 2, 1), 2, 2)
    images = np.repeat(
        np.kron(even[..., 0], np.ones((1, 2, 2), np.uint8))[..., None], 3, 3
    )  # 16 x 16, flat 4 x 4 parts
    found = changes.shrunk(images, 50)
    assert found.shape == images.shape
    assert not found[:, :4].any()
    assert not found[:, :, 12:].any()
    rows = np.arange(16)
    weights = np.maximum(1 - np.abs((rows + 0.5)[None] - 2 * (np.arange(8) + 0.5)[:, None]) / 2, 0)
    weights /= weights.sum(axis=1, keepdims=True)
    expected = np.einsum("ij,bjkc,lk->bilc", weights, images.astype(float), weights)
    assert np.abs(found[:, 4:12, 4:12].astype(float) - expected).max() <= 1


@pytest.mark.parametrize(("size", "side"), [(8, 4), (28, 14), (32, 8), (96, 12), (224, 14), (7, 1)])
def test_patches_divide_the_image(size, side):
    assert changes.pieces_of(size) == side


def test_images_that_cannot_be_cut_are_refused(images):
    with pytest.raises(ValueError, match="8 x 8 pixels cannot be cut into 3 x 3"):
        changes.shuffled(images, SAMPLES, 3, 3)


@pytest.mark.parametrize("pool", ["cls", "gap"])
@pytest.mark.parametrize("side", [2, 4])
def test_a_network_without_positions_does_not_see_a_shuffle_of_its_patches(images, pool, side):
    def change_of_logits(pos_embed):
        torch.manual_seed(0)
        network = ViT(ViTConfig(arch="micro/2", image_size=8, classes=10, pos_embed=pos_embed, pool=pool)).eval()
        with torch.no_grad():
            for parameter in network.parameters():  # also those that begin as zeros
                parameter.add_(0.05 * torch.randn_like(parameter))
            both = [
                network(torch.from_numpy(one).permute(0, 3, 1, 2) / 127.5 - 1)
                for one in (images, changes.shuffled(images, SAMPLES, side, side))
            ]
        return float((both[0] - both[1]).abs().max())

    assert change_of_logits("none") < 1e-5
    assert change_of_logits("1d") > 1e-3

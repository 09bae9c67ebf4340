import math

import pytest
import torch
from scipy.spatial.distance import cdist, cosine

from vitexp.eval.attention_maps import attention_rollout, mean_attention_distance, patch_distances, position_similarity

GRID = (2, 3)


def uniform(tokens, heads=1, images=1):
    return torch.full((images, heads, tokens, tokens), 1 / tokens)


def identity(tokens):
    return torch.eye(tokens)[None, None]


def test_patch_distances_are_euclidean_in_raster_order():
    places = [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]
    assert patch_distances(GRID).numpy() == pytest.approx(cdist(places, places))


def test_attention_to_oneself_has_distance_0_and_to_all_the_mean_distance():
    layers = [torch.cat([identity(6), uniform(6)], dim=1), uniform(6, heads=2)]
    found = mean_attention_distance(layers, GRID, prefix=0, patch_pixels=16)
    everywhere = 16 * float(patch_distances(GRID).mean())
    assert found.shape == (2, 2)
    assert found.flatten().tolist() == pytest.approx([0, everywhere, everywhere, everywhere])


def test_attention_to_one_patch_has_the_mean_distance_to_that_patch():
    weights = torch.zeros(1, 1, 6, 6)
    weights[..., 2] = 1  # everyone looks at the end of the first row
    by_hand = (2 + 1 + 0 + math.sqrt(5) + math.sqrt(2) + 1) / 6
    assert mean_attention_distance([weights], GRID, prefix=0, patch_pixels=1).item() == pytest.approx(by_hand)


def test_rows_are_queries_and_columns_are_keys():
    """One query looks far, all others at themselves; read the other way round, one key would be looked at from afar."""
    weights = identity(6).clone()
    weights[..., 0, :] = 0.25  # not a probability: only the row's own sum may matter
    weights[..., 0, 0] = 0
    row = (1 + 2 + 1 + math.sqrt(2) + math.sqrt(5)) / 4
    found = mean_attention_distance([weights], GRID, prefix=0, patch_pixels=1, renormalise=True)
    assert found.item() == pytest.approx(row * 4 / 5 / 6)


def test_the_prefix_is_dropped_and_its_weight_counts_as_distance_0_unless_shared_out():
    weights = uniform(7)
    everywhere = float(patch_distances(GRID).mean())
    plain = mean_attention_distance([weights], GRID, prefix=1, patch_pixels=1)
    shared = mean_attention_distance([weights], GRID, prefix=1, patch_pixels=1, renormalise=True)
    assert plain.item() == pytest.approx(everywhere * 6 / 7)
    assert shared.item() == pytest.approx(everywhere)


def test_distance_is_averaged_over_images():
    weights = torch.cat([identity(6), uniform(6)])
    found = mean_attention_distance([weights], GRID, prefix=0, patch_pixels=2)
    assert found.tolist() == [[pytest.approx(float(patch_distances(GRID).mean()))]]


def test_rollout_of_attention_to_oneself_stays_in_place():
    assert attention_rollout([identity(7)] * 3, GRID, prefix=1).tolist() == [[[0] * 3] * 2]
    assert attention_rollout([identity(6)] * 3, GRID, prefix=0).flatten().tolist() == pytest.approx([1 / 6] * 6)


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_rollout_of_uniform_attention_spreads_by_halves(depth):
    found = attention_rollout([uniform(7, heads=3, images=2)] * depth, GRID, prefix=1)
    assert found.shape == (2, 2, 3)
    assert found.flatten().tolist() == pytest.approx([(1 - 0.5**depth) / 7] * 12)


def test_rollout_follows_a_chain_of_single_looks_from_first_to_last_layer():
    first, last = identity(7).clone(), identity(7).clone()
    first[..., 3, :], last[..., 0, :] = torch.eye(7)[5], torch.eye(7)[3]  # token 3 reads 5, then cls reads 3
    assert attention_rollout([first, last], GRID, prefix=1)[0].tolist() == [[0, 0, 0.25], [0, 0.25, 0]]
    assert attention_rollout([last, first], GRID, prefix=1)[0].tolist() == [[0, 0, 0.5], [0, 0, 0]]


def test_rollout_averages_heads():
    looks = identity(7).clone()
    looks[..., 0, :] = torch.eye(7)[4]
    found = attention_rollout([torch.cat([looks, identity(7)], dim=1)], GRID, prefix=1)
    assert found[0].tolist() == [[0, 0, 0], [0.25, 0, 0]]


def test_position_similarity_is_the_cosine_per_pair_of_patches():
    table = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    found = position_similarity(table, GRID)
    assert found.shape == (2, 3, 2, 3)
    assert found[0, 2, 1, 0].item() == pytest.approx(1 - cosine(table[2].double(), table[3].double()))
    assert [found[r, c, r, c].item() for r in range(2) for c in range(3)] == pytest.approx([1] * 6)


def test_shapes_that_do_not_fit_the_grid_are_refused():
    with pytest.raises(ValueError, match=r"layer 1 has shape \(1, 1, 6, 6\), not \(images, heads, 7, 7\)"):
        mean_attention_distance([uniform(7), uniform(6)], GRID, prefix=1, patch_pixels=1)
    with pytest.raises(ValueError, match="layer 0 has shape"):
        attention_rollout([uniform(7)], GRID, prefix=0)
    with pytest.raises(ValueError, match="at least 1 layer"):
        attention_rollout([], GRID, prefix=0)
    with pytest.raises(ValueError, match=r"\(7, 4\) has no row for each of 2 x 3 patches"):
        position_similarity(torch.zeros(7, 4), GRID)

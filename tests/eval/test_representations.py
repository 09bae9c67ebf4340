from itertools import permutations

import numpy as np
import pytest
import torch

from vitexp.eval.representations import by_distance, hsic, linear_cka, match_heads, offset_profile


def u_statistic(one, other):
    """The unbiased HSIC from its definition: a mean over all ordered fours of different images."""
    k, l = one @ one.T, other @ other.T  # noqa: E741
    fours = list(permutations(range(len(k)), 4))
    return np.mean([k[i, j] * (l[i, j] + l[q, r] - 2 * l[i, q]) for i, j, q, r in fours])


def test_hsic_is_the_mean_over_all_fours_of_images():
    layers = np.random.default_rng(0).normal(size=(3, 7, 5)) + 3
    layers[2] = layers[0] ** 2
    expected = [[u_statistic(one, other) for other in layers] for one in layers]
    assert hsic(torch.from_numpy(layers)).numpy() == pytest.approx(np.array(expected), abs=1e-9)


def test_cka_of_many_images_is_that_of_kornblith():
    """||Y'X||^2 / (||X'X|| ||Y'Y||) of centred columns; its bias goes with the number of images."""
    random = np.random.default_rng(0)
    x = random.normal(size=(4000, 4)) @ random.normal(size=(4, 6))
    y = x[:, :3] + random.normal(size=(4000, 3))
    (x0, y0) = (one - one.mean(axis=0) for one in (x, y))
    norm = np.linalg.norm
    expected = norm(y0.T @ x0) ** 2 / (norm(x0.T @ x0) * norm(y0.T @ y0))
    padded = torch.from_numpy(np.stack([x, np.pad(y, ((0, 0), (0, 3)))]))
    assert float(linear_cka(hsic(padded))[0, 1]) == pytest.approx(expected, abs=2e-3)


def test_cka_sees_neither_rotation_nor_scale_nor_shift():
    x = torch.randn(20, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    turned = 3 * x @ torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64))[0] + 1
    torch.testing.assert_close(linear_cka(hsic(torch.stack([x, turned]))), torch.ones(2, 2, dtype=torch.float64))
    with pytest.raises(ValueError, match="3 images are given"):
        hsic(torch.randn(2, 3, 5))


def test_heads_that_were_shuffled_are_found_again():
    generator = torch.Generator().manual_seed(0)
    maps = torch.rand(3, 4, 5, 5, generator=generator).softmax(dim=-1)
    orders = torch.stack([torch.randperm(4, generator=generator) for _ in range(3)])
    shuffled = torch.stack([layer[order] for layer, order in zip(maps, orders, strict=True)])
    shuffled += 0.01 * torch.rand(3, 4, 5, 5, generator=generator)
    found = match_heads(maps, shuffled)
    assert torch.equal(orders.gather(1, found), torch.arange(4).expand(3, 4))


def test_the_best_assignment_is_not_the_greedy_one():
    """Head 0 is nearest to 0 of the other, but then head 1 would pay more than both save."""
    reference = torch.tensor([0.0, 0.4]).reshape(1, 2, 1, 1)
    other = torch.tensor([0.1, -10.0]).reshape(1, 2, 1, 1)
    assert match_heads(reference, other).tolist() == [[1, 0]]


def test_similarity_by_distance_is_the_mean_over_pairs():
    similarity = np.random.default_rng(0).normal(size=(2, 3, 2, 3))
    means, distances = by_distance(torch.from_numpy(similarity)[None])
    places = [(r, c) for r in range(2) for c in range(3)]
    pairs = {}
    for one in places:
        for other in places:
            apart = round(np.hypot(one[0] - other[0], one[1] - other[1]), 6)
            pairs.setdefault(apart, []).append(similarity[(*one, *other)])
    assert distances.numpy() == pytest.approx(sorted(pairs), abs=1e-6)
    assert means[0].numpy() == pytest.approx([np.mean(pairs[at]) for at in sorted(pairs)])


def test_offsets_are_key_minus_query_and_what_a_softmax_does_not_see_is_gone():
    by_offset = np.random.default_rng(0).normal(size=9)  # offsets -4 to 4
    bias = np.array([[by_offset[key - query + 4] + 7 * query for key in range(5)] for query in range(5)])
    padded = np.zeros((2, 6, 6))
    padded[:, 1:, 1:] = bias
    rows = bias - bias.mean(axis=1, keepdims=True)
    expected = [np.mean([rows[q, q + offset] for q in range(5) if 0 <= q + offset < 5]) for offset in range(-4, 5)]
    assert offset_profile(torch.from_numpy(padded), 1)[1].numpy() == pytest.approx(expected)

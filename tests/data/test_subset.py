from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitexp.data.opened import SubsetOptions, choose, fingerprint, hold_out, stratified_prefix
from vitexp.data.order import draw

COUNTS = st.lists(st.integers(1, 60), min_size=1, max_size=8)
LONG_TAILS = st.builds(
    lambda head, tail: [head * 10, *tail], st.integers(1, 100), st.lists(st.integers(1, 3), max_size=6)
)
SEEDS = st.integers(0, 2**32)


def data_of(counts: list[int], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Labels in a mixed order, and keys."""
    labels = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    mixed = np.random.default_rng(seed).permutation(len(labels))
    return labels[mixed], draw(seed, np.arange(len(labels)))


@given(COUNTS | LONG_TAILS, SEEDS, st.data())
@settings(deadline=None)  # the machine may be busy
def test_prefixes_are_websters_apportionment(counts, seed, data) -> None:
    """By what defines it: no class holds a place on which another has the larger claim, in exact fractions."""
    labels, keys = data_of(counts, seed)
    places = data.draw(st.integers(len(counts), len(labels)))
    held = np.bincount(labels[stratified_prefix(labels, keys, seed, places)], minlength=len(counts)).tolist()
    assert sum(held) == places
    assert min(held) >= 1
    kept = [Fraction(count, 2 * h - 1) for count, h in zip(counts, held, strict=True) if h > 1]
    claimed = [Fraction(count, 2 * h + 1) for count, h in zip(counts, held, strict=True) if h < count]
    assert not kept or not claimed or min(kept) >= max(claimed)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), SEEDS)
@settings(deadline=None)
def test_one_image_more_adds_one_image(counts, seed) -> None:
    labels, keys = data_of(counts, seed)
    before: set[int] = set()
    for images in range(len(labels) + 1):
        now = stratified_prefix(labels, keys, seed, images)
        assert len(now) == images
        assert before < set(now.tolist()) or images == 0
        before = set(now.tolist())


@given(st.lists(st.integers(20, 60), min_size=2, max_size=8), SEEDS, st.floats(0.2, 1))
@settings(deadline=None)  # the machine may be busy
def test_every_class_is_within_one_image_of_its_share(counts, seed, fraction) -> None:
    labels, keys = data_of(counts, seed)
    images = max(len(counts), round(fraction * len(labels)))
    held = np.bincount(labels[choose(labels, keys, np.arange(len(labels)), images, seed)], minlength=len(counts))
    assert np.abs(held - images * np.array(counts) / len(labels)).max() <= 1


@given(COUNTS | LONG_TAILS, SEEDS, st.data())
@settings(deadline=None)  # the machine may be busy
def test_smaller_subsets_lie_inside_larger_ones(counts, seed, data) -> None:
    labels, keys = data_of(counts, seed)
    rows, _ = hold_out(labels, keys, data.draw(st.integers(0, len(labels) // 2)))
    classes = len(np.unique(labels[rows]))
    small, large = sorted(data.draw(st.lists(st.integers(classes, len(rows)), min_size=2, max_size=2)))
    inner, outer = (choose(labels, keys, rows, images, seed) for images in (small, large))
    assert (len(inner), len(outer)) == (small, large)
    assert set(inner.tolist()) <= set(outer.tolist()) <= set(rows.tolist())
    assert np.array_equal(outer, np.sort(outer))


def test_a_thousand_to_one_keeps_the_rare_class_and_its_share() -> None:
    labels, keys = data_of([20_000, 20])
    held = [np.bincount(labels[choose(labels, keys, np.arange(len(labels)), n, 0)]) for n in (2, 100, 1001, 10_010)]
    assert [h.tolist() for h in held] == [[1, 1], [99, 1], [1000, 1], [10_000, 10]]


@given(COUNTS | LONG_TAILS, SEEDS, st.floats(0, 0.9))
@settings(deadline=None)  # the machine may be busy
def test_holding_out_parts_train_exactly_and_keeps_every_class(counts, seed, fraction) -> None:
    labels, keys = data_of(counts, seed)
    kept, held = hold_out(labels, keys, SubsetOptions(fraction, None, None, 0).held_out(len(labels)))
    assert np.array_equal(np.sort(np.concatenate([kept, held])), np.arange(len(labels)))
    assert len(held) == round(fraction * len(labels))
    if len(kept) >= len(counts):
        assert len(np.unique(labels[kept])) == len(counts)


def test_what_is_chosen_follows_the_keys_not_their_places() -> None:
    labels, keys = data_of([50, 30, 20])
    mixed = np.random.default_rng(1).permutation(100)
    rows = np.arange(100)
    here = set(keys[choose(labels, keys, rows, 17, 3)].tolist())
    there = set(keys[mixed][choose(labels[mixed], keys[mixed], rows, 17, 3)].tolist())
    assert here == there


def test_other_seeds_choose_other_images_but_hold_out_the_same() -> None:
    labels, keys = data_of([100] * 5)
    rows, _ = hold_out(labels, keys, len(labels) // 5)
    chosen = [set(choose(labels, keys, rows, 100, seed).tolist()) for seed in range(20)]
    overlap = np.mean([len(a & b) for i, a in enumerate(chosen) for b in chosen[:i]])
    assert overlap == pytest.approx(
        100 * 100 / 400, abs=3
    )  # as for independent draws: 4.3 standard deviations of 190 pairs


def test_every_image_is_chosen_equally_often() -> None:
    labels, keys = data_of([40, 40])
    counts = np.zeros(80)
    for seed in range(2000):
        counts[choose(labels, keys, np.arange(80), 20, seed)] += 1
    # 2000 draws of one in four: standard deviation 19.4
    assert np.abs(counts - 500).max() < 4.5 * 19.4
    assert counts.std() == pytest.approx(19.4, rel=0.3)


def test_fingerprints_tell_images_and_labels_but_not_order() -> None:
    labels, keys = data_of([50, 30])
    rows = np.arange(0, 80, 2)
    mixed = np.random.default_rng(1).permutation(80)
    same = fingerprint(labels[mixed], keys[mixed], np.flatnonzero(np.isin(mixed, rows)))
    assert fingerprint(labels, keys, rows) == same
    assert fingerprint(labels, keys, rows[1:]) != same
    relabelled = labels.copy()
    relabelled[rows[3]] += 1
    assert fingerprint(relabelled, keys, rows) != same


def test_impossible_subsets_are_refused_with_what_is_possible() -> None:
    with pytest.raises(ValueError, match=r"data\.train_images is 16, but there are 15 images to train on"):
        SubsetOptions(0.1, 16, None, 0).wanted(15, 3)
    with pytest.raises(ValueError, match="2 images cannot hold all 3 classes; ask for at least 3"):
        SubsetOptions(0.1, 2, None, 0).wanted(15, 3)
    for fraction in (-0.1, 1.0):
        with pytest.raises(ValueError, match=r"data\.val_fraction is"):
            SubsetOptions(fraction, None, None, 0)

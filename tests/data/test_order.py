import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from vitexp.data.order import EVALUATION, EpochOrder, part, steps

PINNED_SMALL = "0 3 8 7 9 6 2 1 5 4"
PINNED_LARGE = "13 15 14 10 12 11 16 18 22 20 21 19 23 17 24 26 25 29 28 1 27 0 5 6 3 9 7 8 2 4"
SHARDS = st.lists(st.integers(1, 40), min_size=1, max_size=12)


def starts_of(shards: list[int]) -> np.ndarray:
    return np.cumsum([0, *shards])


def whole(order: EpochOrder, epoch: int) -> np.ndarray:
    return order.samples(epoch, 0, len(order))


@given(SHARDS, st.integers(1, 50), st.integers(0, 3), st.integers(1, 5), st.integers(1, 64), st.data())
@settings(deadline=None)  # the machine may be busy
def test_each_image_exactly_once_over_shards_ranks_and_steps(shards, window, epoch, ranks, batch, data) -> None:
    total = sum(shards)
    rows = np.array(sorted(data.draw(st.sets(st.integers(0, total - 1), min_size=1))))
    order = EpochOrder(rows, starts_of(shards), seed=data.draw(st.integers(0, 9)), window=window)
    parts = []
    for step in range(steps(len(rows), batch)):
        start, stop = step * batch, min((step + 1) * batch, len(rows))
        mine = [order.samples(epoch, *part(start, stop, rank, ranks)) for rank in range(ranks)]
        assert np.array_equal(np.concatenate(mine), order.samples(epoch, start, stop))  # one global batch, on any ranks
        assert max(map(len, mine)) - min(map(len, mine)) <= 1
        parts += mine
    assert np.array_equal(np.sort(np.concatenate(parts)), rows)


@given(SHARDS, st.integers(1, 50), st.data())
@settings(deadline=None)  # the machine may be busy
def test_any_slice_is_the_slice_of_the_whole(shards, window, data) -> None:
    total = sum(shards)
    order = EpochOrder(np.arange(total), starts_of(shards), 5, window)
    start, stop = sorted(data.draw(st.tuples(st.integers(0, total), st.integers(0, total))))
    fresh = EpochOrder(np.arange(total), starts_of(shards), 5, window)
    assert np.array_equal(fresh.samples(2, start, stop), whole(order, 2)[start:stop])


@given(SHARDS, st.integers(1, 50), st.integers(-1, 3), st.data())
@settings(deadline=None)  # the machine may be busy
def test_a_place_lies_in_the_shards_that_are_announced_for_its_window(shards, window, epoch, data) -> None:
    starts = starts_of(shards)
    order = EpochOrder(np.arange(starts[-1]), starts, 5, window)
    place = data.draw(st.integers(0, int(starts[-1]) - 1))
    sample = order.samples(epoch, place, place + 1)
    announced = order.shards(epoch, order.window_of(place)).tolist()
    assert int(np.searchsorted(starts, sample, side="right")[0]) - 1 in announced
    assert len(announced) == len(set(announced))
    assert len(order.shards(epoch, order.windows)) == 0


def test_a_window_bounds_the_shards_that_are_read_at_a_time() -> None:
    order = EpochOrder(np.arange(100_000), starts_of([1000] * 100), 0, window=5000)
    assert order.windows == 20
    assert max(len(order.shards(0, window)) for window in range(20)) <= 6


def test_shards_without_a_chosen_image_are_never_read() -> None:
    order = EpochOrder(np.arange(300, 400), starts_of([100] * 10), 0, window=50)
    assert {int(s) for window in range(2) for s in order.shards(0, window)} == {3}


@given(SHARDS, st.integers(1, 50))
@settings(deadline=None)  # the machine may be busy
def test_evaluation_keeps_the_order_of_the_rows(shards, window) -> None:
    order = EpochOrder(np.arange(1, sum(shards) + 1), starts_of([1, *shards]), 5, window)
    assert np.array_equal(whole(order, EVALUATION), order.rows)


def test_seeds_and_epochs_give_other_orders_and_the_same_give_the_same() -> None:
    starts = starts_of([100] * 10)
    seen = [tuple(whole(EpochOrder(np.arange(1000), starts, seed), epoch)) for seed in (0, 1) for epoch in (0, 1, 2)]
    assert len(set(seen)) == 6
    assert seen[1] == tuple(whole(EpochOrder(np.arange(1000), starts, 0), 1))


def test_the_order_is_pinned() -> None:
    """It must not change with a version of anything: old runs are resumed, and new ones compared with them."""
    small = EpochOrder(np.arange(10), starts_of([4, 6]), 1)
    large = EpochOrder(np.arange(30), starts_of([10, 10, 10]), 1, window=8)
    assert whole(small, 0).tolist() == list(map(int, PINNED_SMALL.split()))
    assert whole(large, 3).tolist() == list(map(int, PINNED_LARGE.split()))


def test_a_set_of_one_window_is_shuffled_uniformly() -> None:
    """Every image comes equally often to every tenth of an epoch (chi-square over 600 epochs)."""
    order = EpochOrder(np.arange(100), starts_of([50, 50]), 7)
    table = np.zeros((100, 10))
    for epoch in range(600):
        table[whole(order, epoch), np.arange(100) // 10] += 1
    assert 0.001 < stats.chisquare(table.ravel(), ddof=0).pvalue < 0.999
    neighbours = np.mean([np.corrcoef(whole(order, e)[1:], whole(order, e)[:-1])[0, 1] for e in range(200)])
    assert neighbours == pytest.approx(-0.01, abs=0.03)  # of a random permutation: -1/n


def test_a_window_mixes_its_shards_as_a_complete_shuffle_of_them_would() -> None:
    """The measured randomness of the window, on the worst layout there is: classes in shards of their own."""
    shards, images, window, batch = 400, 250, 25_000, 250
    order = EpochOrder(np.arange(shards * images), starts_of([images] * shards), 0, window)
    labels = np.arange(shards * images) // (images * 4)  # 100 classes of 4 shards
    random = np.random.default_rng(0)

    def expected() -> int:
        """Classes in a batch drawn from that many shards chosen at random."""
        drawn = random.choice(shards, window // images, replace=False)
        pool = (drawn[:, None] * images + np.arange(images)).ravel()
        return len(np.unique(labels[random.choice(pool, batch, replace=False)]))

    batches = [labels[whole(order, epoch)].reshape(-1, batch) for epoch in range(5)]
    found = [len(np.unique(row)) for row in np.concatenate(batches)]
    wanted = [expected() for _ in range(400)]
    assert np.mean(found) == pytest.approx(np.mean(wanted), abs=1.0)  # about 64.6; a complete shuffle has 92


@pytest.mark.parametrize(("images", "batch", "expected"), [(1, 1, 1), (10, 3, 4), (9, 3, 3), (2, 5, 1)])
def test_steps_count_the_last_smaller_batch(images, batch, expected) -> None:
    assert steps(images, batch) == expected

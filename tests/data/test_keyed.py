"""Counted random numbers are SplitMix64's, and as good as numbers drawn in turn."""

import numpy as np
import pytest
from scipy.stats import kstest

from vitexp.data.order import draw, draws, key, mix, uniforms


def test_the_stream_is_splitmix64():
    """The published first outputs for the seed 1234567."""
    expected = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    assert draw(1234567, np.arange(5)).tolist() == expected
    assert draw(1234567, np.array([[4, 0]])).tolist() == [[expected[4], expected[0]]]


def test_a_key_is_chained_by_the_same_finaliser():
    state = 0
    for word in (3, 2**64 - 1, 0, 7):
        state = int(mix(np.array([(state + 0x9E3779B97F4A7C15 + word) % 2**64], np.uint64))[0])
    assert key(3, 2**64 - 1, 0, 7) == state
    assert key(3, -1, 0, 7) == state
    words = [(1, 2), (2, 1), (1,), (1, 2, 0), (0, 1, 2), ()]
    assert len({key(*some) for some in words}) == len(words)


def test_a_sample_alone_gets_what_it_gets_among_others():
    samples = np.array([5, 2**40, 0])
    for function in (draw, lambda k, s: draws(k, s, 4), lambda k, s: uniforms(k, s, 4)):
        whole = function(9, samples)
        for i in range(3):
            np.testing.assert_array_equal(function(9, samples[i : i + 1])[0], whole[i])
    np.testing.assert_array_equal(draws(9, samples, 7)[:, :4], draws(9, samples, 4))


@pytest.mark.parametrize(
    "other", [lambda: uniforms(1, np.arange(20_000) + 1, 3), lambda: uniforms(2, np.arange(20_000), 3)]
)
def test_numbers_are_uniform_and_neighbours_have_nothing_to_do_with_each_other(other):
    numbers = uniforms(1, np.arange(20_000), 3)
    assert ((numbers >= 0) & (numbers < 1)).all()
    assert kstest(numbers.ravel(), "uniform").pvalue > 1e-3
    everything = np.corrcoef(np.hstack([numbers, other()]).T)
    assert np.abs(everything[np.triu_indices(6, 1)]).max() < 5 / np.sqrt(20_000)

"""The bootstrap over seeds: every way of drawing n seeds from n with replacement."""

import math
from itertools import combinations_with_replacement

import numpy as np
from scipy import special

MOST_RESAMPLES = 1000


def resamples(n: int) -> tuple[np.ndarray, np.ndarray]:
    """How often each of `n` seeds is drawn (one row a resample), and the probability of each row.

    Up to 6 seeds these are all resamples there are (462), so that the bootstrap is exact and has no seed of its own;
    beyond, a fixed draw of 1,000.
    """
    if math.comb(2 * n - 1, n) > MOST_RESAMPLES:
        drawn = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=MOST_RESAMPLES)
        return drawn, np.full(MOST_RESAMPLES, 1 / MOST_RESAMPLES)
    rows = np.array([np.bincount(chosen, minlength=n) for chosen in combinations_with_replacement(range(n), n)])
    ways = math.factorial(n) / np.exp(special.gammaln(rows + 1).sum(axis=1))
    return rows, ways / n**n


def half_width(drawn: np.ndarray, probabilities: np.ndarray, n: int, level: float = 0.95) -> float:
    """Half of a bootstrap interval: Student's t times the spread of the resamples, corrected by n / (n - 1).

    Percentiles of so few resamples are too narrow: with 3 seeds they cover an exponent in 75 % of cases, this in 94 %.
    """
    mean = np.dot(probabilities, drawn)
    variance = np.dot(probabilities, (drawn - mean) ** 2) * n / (n - 1)
    return float(special.stdtrit(n - 1, (1 + level) / 2) * math.sqrt(variance))

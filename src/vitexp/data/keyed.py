"""Random numbers that belong to a sample: a function of a key, such as (seed, epoch, purpose), and of the sample alone.

A generator that is drawn from in turn gives a sample other numbers whenever the batch, the worker or the rank around it
changes. These are counted instead: any number can be computed alone, in any order, anywhere.

Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators" (2014): SplitMix64 and its gamma.
"""

import numpy as np

_GAMMA = 0x9E3779B97F4A7C15
_FACTORS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
_ALL = 0xFFFFFFFFFFFFFFFF


def mix(value: np.ndarray) -> np.ndarray:
    """SplitMix64's finaliser: every bit of the result depends on every bit of the value.

    Shapes: uint64, of one dimension at least (NumPy warns of overflow in single numbers) -> the same.
    """
    value = (value ^ (value >> np.uint64(30))) * np.uint64(_FACTORS[0])
    value = (value ^ (value >> np.uint64(27))) * np.uint64(_FACTORS[1])
    return value ^ (value >> np.uint64(31))


def key(*parts: int) -> int:
    """One number for several, in their order; other numbers, another stream."""
    state = 0
    for part in parts:
        state = (state + _GAMMA + part) & _ALL
        state = (state ^ (state >> 30)) * _FACTORS[0] & _ALL
        state = (state ^ (state >> 27)) * _FACTORS[1] & _ALL
        state ^= state >> 31
    return state


def draw(key: int, samples: np.ndarray) -> np.ndarray:
    """64 random bits for each sample: that number of SplitMix64's stream from `key`.

    Shapes: integers, of one dimension at least -> uint64 of the same shape.
    """
    return mix(np.uint64(key) + np.uint64(_GAMMA) * (np.asarray(samples).astype(np.uint64) + np.uint64(1)))


def draws(key: int, samples: np.ndarray, count: int) -> np.ndarray:
    """`count` times 64 random bits for each sample.

    Shapes: samples (B,) -> uint64 (B, count).
    """
    return draw(0, draw(key, samples)[:, None] + np.arange(count, dtype=np.uint64))


def uniforms(key: int, samples: np.ndarray, count: int) -> np.ndarray:
    """`count` numbers in [0, 1) for each sample, by the upper 53 bits; shapes as `draws`."""
    return (draws(key, samples, count) >> np.uint64(11)).astype(np.float64) * 2.0**-53

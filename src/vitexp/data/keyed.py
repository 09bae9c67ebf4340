"""Random numbers that belong to a sample: a function of a key, such as (seed, epoch, purpose), and of the sample alone.

A generator that is drawn from in turn gives a sample other numbers whenever the batch, the worker or the rank around it
changes. These are counted instead: any number can be computed alone, in any order, anywhere.

Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators" (2014): SplitMix64 and its gamma.
"""

import numpy as np

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_FACTORS = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_SHIFTS = (np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(11))


def mix(value: np.ndarray) -> np.ndarray:
    """SplitMix64's finaliser: every bit of the result depends on every bit of the value.

    Shapes: uint64, any shape -> the same.
    """
    with np.errstate(over="ignore"):
        value = (value ^ (value >> _SHIFTS[0])) * _FACTORS[0]
        value = (value ^ (value >> _SHIFTS[1])) * _FACTORS[1]
    return value ^ (value >> _SHIFTS[2])


def key(*words: int) -> int:
    """One number for several, in their order; other words, another stream."""
    state = np.zeros(1, np.uint64)
    with np.errstate(over="ignore"):
        for word in words:
            state = mix(state + _GAMMA + np.uint64(word & 0xFFFFFFFFFFFFFFFF))
    return int(state[0])


def draw(key: int, samples: np.ndarray) -> np.ndarray:
    """64 random bits for each sample.

    Shapes: samples integers of any shape -> uint64 of the same.
    """
    with np.errstate(over="ignore"):
        return mix(np.uint64(key) + _GAMMA * (np.asarray(samples).astype(np.uint64) + np.uint64(1)))


def draws(key: int, samples: np.ndarray, count: int) -> np.ndarray:
    """`count` times 64 random bits for each sample.

    Shapes: samples (B,) -> uint64 (B, count).
    """
    return draw(0, draw(key, samples)[:, None] + np.arange(count, dtype=np.uint64))


def uniform(key: int, samples: np.ndarray) -> np.ndarray:
    """A number in [0, 1) for each sample; shapes as `draw`."""
    return unit(draw(key, samples))


def uniforms(key: int, samples: np.ndarray, count: int) -> np.ndarray:
    """`count` numbers in [0, 1) for each sample; shapes as `draws`."""
    return unit(draws(key, samples, count))


def unit(bits: np.ndarray) -> np.ndarray:
    """64 bits as a number in [0, 1), by the upper 53."""
    return (bits >> _SHIFTS[3]).astype(np.float64) * 2.0**-53

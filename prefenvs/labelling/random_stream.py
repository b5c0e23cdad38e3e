"""Random numbers that depend on a seed and a query's number alone, for a batch of queries at once."""

from __future__ import annotations

import numpy as np

# Constants of Philox4x64-10, Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3", table 2 and sec. 4.3.
_MULTIPLIERS = (np.uint64(0xD2E7470EE14C6C93), np.uint64(0xCA5A826395121157))
_WEYL = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBB67AE8584CAA73B))
_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)


def _multiply(a: np.uint64, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """High and low 64 bits of the 128-bit product."""
    a_low, a_high, b_low, b_high = a & _LOW, a >> _HALF, b & _LOW, b >> _HALF
    low, middle_a, middle_b = a_low * b_low, a_high * b_low, a_low * b_high
    carry = (low >> _HALF) + (middle_a & _LOW) + (middle_b & _LOW)
    return a_high * b_high + (middle_a >> _HALF) + (middle_b >> _HALF) + (carry >> _HALF), a * b


def philox(counter: np.ndarray, key: tuple[int, int]) -> np.ndarray:
    """Ten rounds of Philox4x64.

    Args:
        counter: (n, 4) uint64.
        key: two words, each in [0, 2**64).

    Returns:
        (n, 4) uint64, uniform and independent for different counters.
    """
    c0, c1, c2, c3 = counter.astype(np.uint64).T
    k0, k1 = np.uint64(key[0]), np.uint64(key[1])
    with np.errstate(over="ignore"):
        for _ in range(10):
            high0, low0 = _multiply(_MULTIPLIERS[0], c0)
            high1, low1 = _multiply(_MULTIPLIERS[1], c2)
            c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
            k0, k1 = k0 + _WEYL[0], k1 + _WEYL[1]
    return np.stack([c0, c1, c2, c3], 1)


def open_interval(bits: np.ndarray) -> np.ndarray:
    """uint64 of any shape to float64 in (0, 1), both ends left out.

    52 bits and a half: with 53 the greatest would round to 1, and the logarithm of one minus it is taken.
    """
    return ((bits >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52


def uniforms(seed: int, numbers: np.ndarray, draws: int) -> np.ndarray:
    """Uniform numbers in (0, 1) for the answers to queries.

    Row i is a function of (seed, numbers[i]) alone, so no other query, batch size or generator can change an answer.

    Args:
        seed: the feedback seed, in [0, 2**64).
        numbers: (n,) numbers of the queries.
        draws: numbers a query.

    Returns:
        (n, draws) float64.
    """
    blocks = -(-draws // 4)
    counter = np.zeros((len(numbers), blocks, 4), np.uint64)
    counter[..., 0] = np.arange(blocks)
    counter[..., 1] = np.asarray(numbers)[:, None]
    bits = philox(counter.reshape(-1, 4), (seed, 0)).reshape(len(numbers), -1)[:, :draws]
    return open_interval(bits)

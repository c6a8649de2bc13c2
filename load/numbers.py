"""Numbers for events: random ones that need no predecessor, a bounded Zipf law, and digits by the column.

*Random numbers* come from splitmix64 used as a counter: number i of a stream is mix(key + (i + 1) * golden), so any
slice of any stream can be made again alone, and a stream needs no state. The constants are those of Steele, Lea and
Flood, "Fast splittable pseudorandom number generators" (OOPSLA 2014). All arithmetic is modulo 2**64.

*Digits* are written a column of four at a time, from a table of the 10,000 four-digit texts: about twenty times as
fast as formatting number by number.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

U64 = NDArray[np.uint64]

_GOLDEN = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1
_QUANTILE_BITS = 20

_FOUR_DIGITS = np.frombuffer(b"".join(b"%04d" % i for i in range(10_000)), dtype="<u4")


def mix(x: U64) -> U64:
    """The finaliser of splitmix64: a bijection of 64 bits in which every input bit moves half of the output bits."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _mix_one(x: int) -> int:
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
    return x ^ (x >> 31)


@lru_cache(maxsize=1024)
def _stream_key(seed: int, producer: int, lane: int) -> int:
    key = 0
    for part in (seed, producer, lane):  # chained, so that no two triples share a key by arithmetic accident
        key = _mix_one((key ^ part) + _GOLDEN & _MASK)
    return key


def random64(seed: int, producer: int, lane: int, sequence: U64) -> U64:
    """64 random bits for each number of `sequence`, from the stream of (seed, producer, lane)."""
    key = np.uint64(_stream_key(seed, producer, lane))
    return mix(key + (sequence + np.uint64(1)) * np.uint64(_GOLDEN))


def unit(bits: U64) -> NDArray[np.float64]:
    """Random bits as floats in [0, 1)."""
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


@lru_cache(maxsize=8)
def _zipf_table(size: int, skew: float) -> NDArray[np.uint32]:
    weights = np.arange(1, size + 1, dtype=np.float64) ** -skew
    cumulative = np.cumsum(weights)
    steps = (np.arange(1 << _QUANTILE_BITS) + 0.5) / (1 << _QUANTILE_BITS)
    return np.searchsorted(cumulative / cumulative[-1], steps).astype(np.uint32)


def zipf(bits: U64, size: int, skew: float) -> NDArray[np.uint32]:
    """Ranks 0 … size-1, rank r as often as (r + 1) ** -skew, from the top 20 bits of each number.

    A table of 2**20 quantiles: a rank rarer than one in a million may never be drawn.
    """
    return _zipf_table(size, skew)[(bits >> np.uint64(64 - _QUANTILE_BITS)).astype(np.int64)]


def choose(bits16: U64, table: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Codes from 16 random bits each, by a table from `choice_table`."""
    return table[bits16.astype(np.int64)]


def choice_table(shares: tuple[float, ...]) -> NDArray[np.uint8]:
    """2**16 codes, code i as often as shares[i] of their sum."""
    cumulative = np.cumsum(shares)
    steps = (np.arange(1 << 16) + 0.5) / (1 << 16)
    return np.searchsorted(cumulative / cumulative[-1], steps).astype(np.uint8)


def put_digits(rows: NDArray[np.uint8], column: int, width: int, numbers: NDArray[np.int64]) -> None:
    """Writes each number in decimal, zero-padded, into rows[:, column:column+width]. Numbers must fit the width."""
    fours = (width + 3) // 4
    digits = np.empty((len(numbers), fours), dtype="<u4")
    for place in range(fours - 1, -1, -1):
        if place:
            rest = numbers // 10_000
            low, numbers = numbers - rest * 10_000, rest
        else:
            low = numbers
        digits[:, place] = _FOUR_DIGITS[low]
    rows[:, column : column + width] = digits.view(np.uint8)[:, 4 * fours - width :]

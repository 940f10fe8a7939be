"""A small battery for random bits: of one stream, and of streams that a user takes to be independent.

Each test gives a number of standard deviations; five are allowed. The numbers are the same at each run, so a test
passes once and for all. ``python tests/test_random_quality.py`` prints the table of ``docs/random.md``.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest

import graphwright as gw

SIZE = 2**22
LIMIT = 5.0


def _bits(make):
    n = gw.placeholder("n", "int64", ("K",))
    return gw.function([n], gw.map(make, n))


def _one_stream(count):
    return gw.function([], gw.random.bits(gw.random.key(0), (count,)))()


def _neighbouring_keys(count):
    """64 words of each of the seeds 0, 1, 2, ..."""
    draw = _bits(lambda n: gw.random.bits(gw.random.key(n), (64,)))
    return draw(np.arange(count // 64)).ravel()


def _executions(count):
    """64 words of each execution."""
    key, n = gw.random.key(9), gw.placeholder("n", "int64", ("K",))
    words = gw.concat([gw.astype(gw.expand_dims(n, 1), "uint32"), gw.zeros((n.shape[0], 1), "uint32")], axis=1)
    draw = gw.function([n], gw.map(lambda c: gw.random.bits(gw.concat([key[:2], c]), (64,)), words))
    return draw(np.arange(count // 64)).ravel()


def _folded(count):
    """16 words of each of the keys with 0, 1, 2, ... folded in, side by side."""
    draw = _bits(lambda n: gw.random.bits(gw.random.fold_in(gw.random.key(1), n), (16,)))
    return draw(np.arange(count // 16)).T.ravel()


def _split(count):
    """The keys themselves that `split` gives."""
    return gw.function([], gw.random.split(gw.random.key(2), count // 4))().ravel()


def _steps(count):
    """A generator's words at each step of a loop, and of one execution after the other."""
    rng = gw.random.Generator(3)
    draw = gw.function([], gw.map(lambda _: rng.bits((16,)), gw.arange(count // 64)))
    return np.concatenate([draw().ravel() for _ in range(4)])


def _streams(count):
    """Alternating words of 16 draws of one generator."""
    rng = gw.random.Generator(4)
    return np.stack(gw.function([], [rng.bits((count // 16,)) for _ in range(16)])(), axis=1).ravel()


SOURCES = {
    "one stream": _one_stream, "neighbouring seeds": _neighbouring_keys, "executions": _executions,
    "folded keys": _folded, "split keys": _split, "steps of a loop": _steps, "draws side by side": _streams,
}


def chi_square(counts, expected):
    """A chi-square statistic as standard deviations, by Wilson and Hilferty's cube root (1931)."""
    k = len(counts) - 1
    statistic = float(np.sum((counts - expected) ** 2 / expected))
    return ((statistic / k) ** (1 / 3) - (1 - 2 / (9 * k))) / math.sqrt(2 / (9 * k))


def largest(values):
    """The largest of many independent standard deviations, as one with the same chance."""
    values = np.abs(np.ravel(values))
    chance = len(values) * math.erfc(values.max() / math.sqrt(2))
    return 0.0 if chance >= 1 else math.sqrt(-2 * math.log(max(chance, 1e-300)))


def frequency(words):
    """Each of the 32 bits is set in half of the words."""
    ones = [np.count_nonzero(words >> np.uint32(b) & np.uint32(1)) for b in range(32)]
    return largest((np.array(ones) - len(words) / 2) / math.sqrt(len(words) / 4))


def avalanche(words):
    """Neighbours, and words 16, 64 and 1024 apart, differ in half of their bits."""
    found = []
    for lag in (1, 16, 64, 1024):
        differ = words[lag:] ^ words[:-lag]
        for b in range(32):
            ones = np.count_nonzero(differ >> np.uint32(b) & np.uint32(1))
            found.append((ones - len(differ) / 2) / math.sqrt(len(differ) / 4))
    return largest(found)


def serial_correlation(words):
    """Of words 1 to 130 apart."""
    u = words / 2**32 - 0.5
    return largest([np.dot(u[lag:], u[:-lag]) * 12 / math.sqrt(len(u) - lag) for lag in range(1, 131)])


def serial_cells(words):
    """Triples fall evenly into 32**3 cells, by their highest bits and by their lowest."""
    found = []
    for shift in (27, 0):
        digits = (words >> np.uint32(shift) & np.uint32(31)).astype(np.int64)[: len(words) // 3 * 3].reshape(-1, 3)
        counts = np.bincount(digits @ [1024, 32, 1], minlength=32**3)
        found.append(chi_square(counts, len(digits) / 32**3))
    return largest(found)


def gaps(words):
    """The distances of words in the lowest sixteenth are geometrically distributed."""
    positions = np.flatnonzero(words < 2**28)
    lengths = np.minimum(np.diff(positions) - 1, 80)
    p = 1 / 16
    chances = np.append(p * (1 - p) ** np.arange(80), (1 - p) ** 80)
    return chi_square(np.bincount(lengths, minlength=81), chances * len(lengths))


def runs(words):
    """The number of runs up and down."""
    turns = np.count_nonzero(np.diff(np.sign(np.diff(words.astype(np.int64)))))
    n = len(words)
    return (turns + 1 - (2 * n - 1) / 3) / math.sqrt((16 * n - 29) / 90)


def birthday_spacings(words):
    """Among the spacings of 4096 sorted words, equal ones are Poisson distributed with mean 4 (Marsaglia, 1985)."""
    years = words[: len(words) // 4096 * 4096].reshape(-1, 4096)
    spacings = np.sort(np.diff(np.sort(years.astype(np.int64), axis=1), axis=1), axis=1)
    equal = np.count_nonzero(np.diff(spacings, axis=1) == 0, axis=1)
    k = np.arange(11)
    chances = np.exp(k * math.log(4) - 4 - np.array([math.lgamma(v + 1) for v in k]))
    chances[-1] = 1 - chances[:-1].sum()
    return chi_square(np.bincount(np.minimum(equal, 10), minlength=11), chances * len(years))


def rank_of_matrices(words):
    """Ranks of 32 x 32 matrices of bits: 32, 31, 30 or less with chances 0.2888, 0.5776, 0.1284, 0.0052."""
    rows = words[: 2**18].reshape(-1, 32).astype(np.int64).copy()
    ranks = np.zeros(len(rows), int)
    for bit in range(32):
        has = (rows >> bit & 1).astype(bool)
        pivot = has.argmax(axis=1)
        any_ = has.any(axis=1)
        row = rows[np.arange(len(rows)), pivot]
        rows = np.where(has & any_[:, None], rows ^ row[:, None], rows)
        ranks += any_
    chances = np.array([0.0052387, 0.1283502, 0.5775762, 0.2887881])
    chances[0] = 1 - chances[1:].sum()
    return chi_square(np.bincount(np.maximum(ranks, 29) - 29, minlength=4), chances * len(rows))


BATTERY = [
    frequency, avalanche, serial_correlation, serial_cells, gaps, runs, birthday_spacings, rank_of_matrices,
]


@functools.lru_cache(maxsize=2)
def words_of(source):
    return SOURCES[source](SIZE)


@pytest.mark.parametrize("source", SOURCES)
def test_battery(source):
    words = words_of(source)
    assert words.dtype == np.uint32 and len(words) == SIZE
    found = {test.__name__: test(words) for test in BATTERY}
    assert all(abs(v) < LIMIT for v in found.values()), found


@pytest.mark.parametrize("test", BATTERY)
def test_the_battery_finds_a_poor_generator(test):
    """A linear congruential generator modulo 2**32 fails most tests; its counter alone fails every one."""
    counter = (np.arange(SIZE, dtype=np.uint64) * 5 & 0xFFFFFFFF).astype(np.uint32)
    with np.errstate(all="ignore"):
        assert not abs(test(counter)) < LIMIT


def main() -> None:
    print("| |", " | ".join(t.__name__.replace("_", " ") for t in BATTERY), "|")
    print("|---|" + "---:|" * len(BATTERY))
    for source in SOURCES:
        print(f"| {source} |", " | ".join(f"{t(words_of(source)):.2f}" for t in BATTERY), "|", flush=True)


if __name__ == "__main__":
    main()

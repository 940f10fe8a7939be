"""Distributions: moments, Kolmogorov-Smirnov distances, ranges, gradients, broadcasting, and wrong parameters.

Numbers are the same at each run, so a limit is passed or not once and for all: limits are set at five standard
deviations of what is measured, or a chance of 1e-6.
"""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest

import graphwright as gw
from graphwright.ir.ops.random import gamma_slope

random = gw.random
N = 200_000
KEY = random.key(20)
FLOATS = pytest.mark.parametrize("dtype", ["float32", "float64"])
LIMIT = math.sqrt(-math.log(1e-6 / 2) / 2)
"""Of the Kolmogorov-Smirnov distance times the root of the sample's size: exceeded with a chance of 1e-6."""


def run(outputs, inputs=(), *arrays):
    return gw.function(list(inputs), outputs)(*arrays)


def phi(x):
    return 0.5 * np.array([math.erfc(-v * math.sqrt(0.5)) for v in np.ravel(x)])


def distance(sample, cdf):
    """The Kolmogorov-Smirnov statistic of a sample."""
    x = np.sort(np.ravel(sample).astype(float))
    p, n = cdf(x), len(x)
    return max(np.max(np.arange(1, n + 1) / n - p), np.max(p - np.arange(n) / n)) * math.sqrt(n)


def distance_of_two(a, b):
    """The same of two samples of equal size."""
    a, b = np.sort(np.ravel(a)), np.sort(np.ravel(b))
    both = np.concatenate([a, b])
    difference = np.searchsorted(a, both, side="right") / len(a) - np.searchsorted(b, both, side="right") / len(b)
    return np.max(np.abs(difference)) * math.sqrt(len(a) / 2)


def has_moments(sample, mean, variance, fourth=3.0):
    """Mean and variance within five standard deviations; `fourth` is the kurtosis."""
    sample, n = np.asarray(sample, float).ravel(), sample.size
    assert abs(sample.mean() - mean) < 5 * math.sqrt(variance / n)
    assert abs(sample.var() - variance) < 5 * variance * math.sqrt((fourth - 1) / n)


# name: (draw, distribution function, mean, variance, kurtosis)
CONTINUOUS = {
    "uniform": (lambda **o: random.uniform(KEY, **o), lambda x: np.clip(x, 0, 1), 0.5, 1 / 12, 1.8),
    "uniform -2 3": (lambda **o: random.uniform(KEY, low=-2, high=3, **o), lambda x: (x + 2) / 5, 0.5, 25 / 12, 1.8),
    "normal": (lambda **o: random.normal(KEY, **o), phi, 0, 1, 3),
    "normal 3 2": (lambda **o: random.normal(KEY, loc=3, scale=2, **o), lambda x: phi((x - 3) / 2), 3, 4, 3),
    "exponential": (lambda **o: random.exponential(KEY, **o), lambda x: -np.expm1(-x), 1, 1, 9),
    "exponential 4": (lambda **o: random.exponential(KEY, rate=4, **o), lambda x: -np.expm1(-4 * x), 1 / 4, 1 / 16, 9),
    "gumbel": (lambda **o: random.gumbel(KEY, **o), lambda x: np.exp(-np.exp(-x)), 0.577216, math.pi**2 / 6, 5.4),
    "laplace": (
        lambda **o: random.laplace(KEY, **o),
        lambda x: np.where(x < 0, np.exp(np.minimum(x, 0)) / 2, 1 - np.exp(-np.maximum(x, 0)) / 2), 0, 2, 6,
    ),
    "truncated_normal": (
        lambda **o: random.truncated_normal(KEY, **o),
        lambda x: (phi(x) - phi(-2)) / (phi(2) - phi(-2)), 0, 0.7737413, 2.4,
    ),
    "gamma 1": (lambda **o: random.gamma(KEY, 1.0, **o), lambda x: -np.expm1(-x), 1, 1, 9),
    "gamma 0.5": (
        lambda **o: random.gamma(KEY, 0.5, **o), lambda x: np.array([math.erf(math.sqrt(v)) for v in x]), 0.5, 0.5, 15,
    ),
    "gamma 3, 2": (
        lambda **o: random.gamma(KEY, 3.0, 2.0, **o),
        lambda x: 1 - np.exp(-2 * x) * (1 + 2 * x + 2 * x * x), 1.5, 0.75, 5,
    ),
    "beta 2 1": (lambda **o: random.beta(KEY, 2.0, 1.0, **o), lambda x: x * x, 2 / 3, 1 / 18, 2.4),
    "beta 1 3": (lambda **o: random.beta(KEY, 1.0, 3.0, **o), lambda x: 1 - (1 - x) ** 3, 1 / 4, 3 / 80, 3.1),
}


@FLOATS
@pytest.mark.parametrize("name", CONTINUOUS)
def test_continuous_distributions(name, dtype):
    draw, cdf, mean, variance, fourth = CONTINUOUS[name]
    sample = run(draw(shape=(N,), dtype=dtype))
    assert sample.dtype == dtype and np.isfinite(sample).all()
    has_moments(sample, mean, variance, fourth)
    assert distance(sample, cdf) < LIMIT


@FLOATS
def test_normal_tails_have_their_share(dtype):
    """Beyond 4 standard deviations, where a coarse uniform number would show: 63 in a million."""
    sample = run(random.normal(KEY, (4_000_000,), dtype=dtype))
    for limit in (3, 4, 4.5):
        expected = math.erfc(limit / math.sqrt(2)) * len(sample)
        assert abs((np.abs(sample) > limit).sum() - expected) < 5 * math.sqrt(expected)
    assert len(np.unique(sample)) > (3_700_000 if dtype == "float32" else 3_999_000)


@pytest.mark.parametrize("concentration", [0.1, 0.9, 20.0])
def test_gamma_agrees_with_numpy(concentration):
    wanted = np.random.default_rng(1).gamma(concentration, size=N)
    assert distance_of_two(run(random.gamma(KEY, concentration, shape=(N,), dtype="float64")), wanted) < LIMIT


@pytest.mark.parametrize("rate", [0.0, 0.3, 5.0, 9.99, 10.0, 40.0, 1e4])
def test_poisson_has_its_chances(rate):
    sample = run(random.poisson(KEY, rate, (N,)))
    assert sample.dtype == np.int64
    if rate == 0:
        assert not sample.any()
        return
    has_moments(sample, rate, rate, 3 + 1 / rate)
    k = np.arange(sample.max() + 1)
    chances = np.exp(k * math.log(rate) - rate - np.array([math.lgamma(v + 1) for v in k]))
    expected, found = chances * N, np.bincount(sample)
    often = expected > 20
    assert (np.abs(found - expected)[often] < 5.5 * np.sqrt(expected[often])).all()


def test_bernoulli_and_its_resolution():
    p = np.array([0, 2.0**-20, 0.3, 0.5, 1 - 2.0**-20, 1], np.float32)
    sample = run(random.bernoulli(KEY, (4 * N, 6), p))
    assert sample.dtype == bool
    expected = 4 * N * p.astype(float)
    assert (np.abs(sample.sum(0) - expected) <= 5 * np.sqrt(expected * (1 - p))).all()
    static = run([random.bernoulli(KEY, (N,), float(v)) for v in p])
    tensor = gw.placeholder("p", "float32")
    f = gw.function([tensor], random.bernoulli(KEY, (N,), tensor))
    assert all((f(v) == s).all() for v, s in zip(p, static, strict=True))


@pytest.mark.parametrize(
    ("low", "high", "dtype"),
    [(0, 7, "int64"), (-3, 4, "int8"), (0, 256, "uint8"), (5, 6, "int32"), (-(2**31), 2**31, "int32"),
     (0, 2**33 + 5, "int64"), (-(2**63), 2**63, "int64"), (0, 2**64, "uint64")],
)  # fmt: skip
def test_integers_are_spread_evenly(low, high, dtype):
    sample = run(random.integers(KEY, low, high, (N,), dtype))
    assert sample.dtype == dtype and sample.min() >= low and int(sample.max()) < high
    counts = np.bincount([(int(v) - low) * min(7, high - low) // (high - low) for v in sample])
    expected = N / len(counts)
    assert len(counts) == min(7, high - low) and (np.abs(counts - expected) < 5 * math.sqrt(expected)).all()


def test_integers_between_tensors():
    low, high = gw.placeholder("low", "int64", ("K",)), gw.placeholder("high", "int64", ("K",))
    f = gw.function([low, high], random.integers(KEY, low, high, (1000, low.shape[0])))
    a, b = np.array([0, -5, 2**40]), np.array([2, 5, 2**41])
    sample = f(a, b)
    assert ((sample >= a) & (sample < b)).all() and (sample[:, :2].max(0) == [1, 4]).all()


def test_categorical_draws_with_the_probabilities_of_softmax():
    logits = np.array([[0.0, 1.0, -np.inf, 2.0], [3.0, 0.0, 0.0, 0.0]], np.float32)
    sample = run(random.categorical(KEY, logits, shape=(N, 2)))
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    counts = np.stack([np.bincount(sample[:, k], minlength=4) for k in range(2)])
    assert (np.abs(counts - N * p) <= 5 * np.sqrt(N * p)).all()
    assert run(random.categorical(KEY, logits.T, axis=0)).shape == (2,)


def test_dirichlet_vectors_have_the_sum_1():
    alpha = np.array([0.5, 1.0, 3.5], np.float32)
    sample = run(random.dirichlet(KEY, alpha, (N,)))
    assert sample.shape == (N, 3)
    np.testing.assert_allclose(sample.sum(1), 1, rtol=1e-6)
    p = alpha / 5
    assert (np.abs(sample.mean(0) - p) < 5 * np.sqrt(p * (1 - p) / 6 / N)).all()


# --- order ---------------------------------------------------------------------------------------


def test_permutations_are_equally_likely():
    keys = random.split(KEY, 6000)
    found = run(gw.map(lambda k: random.permutation(k, 3), keys))
    assert (np.sort(found, 1) == [0, 1, 2]).all()
    counts = np.bincount(found @ [1, 3, 9])
    counts = counts[counts > 0]
    assert len(counts) == 6 and (np.abs(counts - 1000) < 5 * math.sqrt(1000)).all()


def test_a_permutation_keeps_parts_whole():
    x = gw.placeholder("x", "float32", ("N", 3))
    values = np.arange(300, dtype=np.float32).reshape(100, 3)
    rows, columns = run([random.permutation(KEY, x), random.permutation(KEY, x, axis=1)], [x], values)
    assert not (rows == values).all() and (rows[np.argsort(rows[:, 0])] == values).all()
    assert (np.sort(columns, 1) == values).all()


def test_choice():
    p = np.array([1.0, 0.0, 3.0], np.float32)
    even, weighted, some, likely, rows = run([
        random.choice(KEY, 5, (N,)), random.choice(KEY, 3, (N,), p=p), random.choice(KEY, 9, (3, 2), replace=False),
        random.choice(KEY, 3, (2,), replace=False, p=p), random.choice(KEY, np.eye(4, dtype=np.float32), (7,)),
    ])
    assert (np.abs(np.bincount(even) - N / 5) < 5 * math.sqrt(N / 5)).all()
    counts = np.bincount(weighted)
    assert counts[1] == 0 and abs(counts[0] - N / 4) < 5 * math.sqrt(N / 4)
    assert some.shape == (3, 2) and len(set(some.ravel())) == 6
    assert set(likely) == {0, 2}
    assert rows.shape == (7, 4) and (rows.sum(1) == 1).all()


# --- parameters ----------------------------------------------------------------------------------


def test_parameters_broadcast_and_give_shape_and_dtype():
    loc, scale = gw.placeholder("loc", "float64", ("N", 1)), gw.placeholder("scale", "float64", (3,))
    x = random.normal(KEY, loc=loc, scale=scale)
    assert x.dtype == gw.float64 and [str(d) for d in x.shape] == ["N", "3"]
    assert random.normal(KEY, ("M", "N", 3), loc, scale).ndim == 3
    z = run(random.normal(KEY, (2, 3), dtype="float64"))
    a, b = np.array([[1.0], [-5.0]]), np.array([0.1, 1.0, 0.0])
    np.testing.assert_allclose(run(x, [loc, scale], a, b), a + b * z)


PATHWISE = {
    "uniform": lambda a, b: random.uniform(KEY, (4,), a, a + b),
    "normal": lambda a, b: random.normal(KEY, (4,), a, b),
    "truncated_normal": lambda a, b: random.truncated_normal(KEY, (4,), loc=a, scale=b),
    "gumbel": lambda a, b: random.gumbel(KEY, (4,), a, b),
    "laplace": lambda a, b: random.laplace(KEY, (4,), a, b),
    "exponential": lambda a, b: random.exponential(KEY, (4,), a * b),
    "gamma": lambda a, b: random.gamma(KEY, 1.5, a * b, (4,)),
}


@pytest.mark.parametrize("name", PATHWISE)
def test_pathwise_gradients(name):
    a, b = gw.placeholder("a", "float64"), gw.placeholder("b", "float64")
    y = gw.sum(gw.sin(PATHWISE[name](a, b)))
    f, slopes = gw.function([a, b], y), gw.function([a, b], gw.grad(y, [a, b]))
    h = 1e-6
    numeric = [(f(0.7 + h, 1.3) - f(0.7 - h, 1.3)) / (2 * h), (f(0.7, 1.3 + h) - f(0.7, 1.3 - h)) / (2 * h)]
    np.testing.assert_allclose(slopes(0.7, 1.3), numeric, rtol=1e-6)


def exact_slope(x, a):
    """-(dF/da) / f of the gamma distribution at x."""
    with mpmath.workdps(30):
        x, a = mpmath.mpf(float(x)), mpmath.mpf(float(a))
        below = mpmath.diff(lambda c: mpmath.gammainc(c, 0, x, regularized=True), a)
        return float(-below * mpmath.gamma(a) * mpmath.exp(x - (a - 1) * mpmath.log(x)))


@pytest.mark.parametrize(("dtype", "most"), [("float32", 3e-4), ("float64", 4e-8)])
def test_slopes_by_the_concentration_are_those_of_the_distribution_function(dtype, most):
    a = np.array([0.01, 0.1, 0.1, 0.6, 0.9, 1, 1, 2, 2, 2, 7, 7, 30, 30, 150], dtype)
    x = np.array([1e-9, 1e-4, 0.8, 0.3, 1.46, 0.2, 1.61, 1e-3, 1.9, 12, 3, 11, 30.1, 17, 170], dtype)
    points = gw.placeholder("x", dtype, ("N",)), gw.placeholder("a", dtype, ("N",))
    found = run(gw.Tensor(gamma_slope(*(p._value for p in points))), points, x, a)
    np.testing.assert_allclose(found, [exact_slope(*p) for p in zip(x, a)], rtol=most)
    assert np.median(abs(found / [exact_slope(*p) for p in zip(x, a)] - 1)) < (1e-6 if dtype == "float32" else 1e-10)
    assert run(gw.Tensor(gamma_slope(*(p._value for p in points))), points, 0 * x, a).tolist() == [0] * len(x)


def test_gradients_by_a_concentration():
    """Of means of x^2, a (a + 1); of x^3, a (a + 1) (a + 2); of a share, a / (a + b)."""
    a, b = gw.placeholder("a", "float64"), gw.placeholder("b", "float64")
    for of_a, of_b in ((0.4, 1.7), (3.0, 0.8)):
        x = random.gamma(KEY, a, shape=(N,))
        first = gw.grad(gw.mean(x * x), a)
        second = gw.grad(gw.grad(gw.mean(x * x * x), a), a)
        tangent = gw.jvp(gw.mean(x * x), a, gw.ones_like(a))
        share, parts = random.beta(KEY, a, b, (N,)), random.dirichlet(KEY, gw.stack([a, b]), (N,))
        slopes = [gw.grad(gw.mean(share), [a, b]), gw.grad(gw.mean(parts[:, 0]), [a, b])]
        found = run([first, tangent, second, *slopes[0], *slopes[1]], [a, b], of_a, of_b)
        whole = (of_a + of_b) ** 2
        wanted = [2 * of_a + 1, 2 * of_a + 1, 6 * of_a + 6, *(2 * [of_b / whole, -of_a / whole])]
        np.testing.assert_allclose(found, wanted, rtol=0.03)


def test_parameters_that_are_wrong_only_when_it_runs():
    a = gw.placeholder("a", "float32", (3,))
    wrong = np.array([-1, np.nan, 2], np.float32)
    gamma, events, coins = run([random.gamma(KEY, a), random.poisson(KEY, a), random.bernoulli(KEY, p=a)], [a], wrong)
    assert np.isnan(gamma).tolist() == [True, True, False]
    assert events[:2].tolist() == [-1, -1] and events[2] >= 0
    assert not coins[0] and coins[2]

"""Reductions beside each other: what they read is read once; values as of each alone, whatever the threads."""

from __future__ import annotations

import numpy as np
import pytest

import graphwright as gw

RNG = np.random.default_rng(0)


def of_each_kind(x, y, axis):
    """Reductions of several kinds over the same axes."""
    finite = gw.where(gw.isfinite(x), 0.0, gw.nan)
    return [gw.sum(x, axis=axis), gw.max(x, axis=axis), gw.sum(x * y, axis=axis), gw.sum(finite, axis=axis)]


def expected(x, y, axis):
    return [x.sum(axis), x.max(axis), (x * y).sum(axis), np.where(np.isfinite(x), 0, np.nan).sum(axis)]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("axis", [0, 1, (0, 2), (1, 2), (0, 1, 2)])
@pytest.mark.parametrize("shape", [(33, 5, 40), (600, 3, 17), ("A", "B", "C"), (4, 32, 32)])
def test_values(shape, axis, dtype):
    x, y = gw.placeholder("x", dtype, shape), gw.placeholder("y", dtype, shape)
    f = gw.function([x, y], of_each_kind(x, y, axis))
    for sizes in [(9, 70, 65), (2, 1, 3), (1100, 2, 9)] if shape[0] == "A" else [shape]:
        a, b = (RNG.normal(size=sizes).astype(dtype) for _ in range(2))
        a.flat[a.size // 2] = np.inf
        for found, right in zip(f(a, b), expected(a, b, axis)):
            np.testing.assert_allclose(found, right, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("axis", [0, (0, 2)])
def test_one_loop_for_all(axis):
    x = gw.placeholder("x", "float32", (100, 64, 32))
    text = gw.function([x], [gw.sum(x, axis=axis), gw.sum(x * x, axis=axis), gw.max(x, axis=axis)]).ir("loops")
    assert text.count("for r") == 1
    assert text.count("] += load") + text.count(".acc[] += load") >= 2


def test_axes_one_behind_the_other_are_one():
    x = gw.placeholder("x", "float32", (8, 4, 32, 32))
    f = gw.function([x], gw.sum(x, axis=(0, 2, 3)))
    assert "load %in0[1024*i0 + " in f.ir("loops")
    data = RNG.normal(size=(8, 4, 32, 32)).astype(np.float32)
    np.testing.assert_allclose(f(data), data.sum((0, 2, 3)), rtol=1e-4, atol=1e-4)


def test_a_position_is_not_shared():
    """Where the first maximum is depends on the order of all axes."""
    x = gw.placeholder("x", "float32", ("N", 40, 4))
    f = gw.function([x], [gw.argmax(x, axis=1), gw.max(x, axis=1), gw.sum(x, axis=1)])
    data = RNG.integers(-3, 4, (5, 40, 4)).astype(np.float32)
    for found, right in zip(f(data), (data.argmax(1), data.max(1), data.sum(1))):
        np.testing.assert_array_equal(found, right)


@pytest.mark.parametrize("axis", [0, 1])
def test_threads_do_not_matter(axis):
    x, y = gw.placeholder("x", "float32", ("N", 700)), gw.placeholder("y", "float32", ("N", 700))
    f = gw.function([x, y], of_each_kind(x, y, axis))
    a, b = (RNG.normal(size=(900, 700)).astype(np.float32) for _ in range(2))
    before, found = gw.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            gw.set_num_threads(threads)
            found.append(f(a, b))
    finally:
        gw.set_num_threads(before)
    for again in found[1:]:
        for p, q in zip(again, found[0]):
            np.testing.assert_array_equal(p, q)


def test_the_depth_of_a_sum_of_terms_does_not_count():
    x, c = gw.placeholder("x", "float32", (4, 3)), gw.placeholder("c", "float32", (3,))
    long = x * c
    for _ in range(1200):
        long = long + x * c
    f = gw.function([x, c], gw.sum(long, axis=0))
    found = f(np.ones((4, 3), np.float32), np.ones(3, np.float32))
    np.testing.assert_array_equal(found, np.full(3, 4804, np.float32))

"""Transpositions in blocks: values at all sizes, threads, and what is left to other schedules."""

from __future__ import annotations

import numpy as np
import pytest

import graphwright as gw
from graphwright.ir.dims import symbol
from graphwright.ir.dtypes import float32
from graphwright.ir.loops import Buffer, For, Index, Store
from graphwright.ir.scalars import const
from graphwright.passes.schedule_cpu import independent

RNG = np.random.default_rng(0)


def blocked(f):
    """Whether the loops of a function exchange blocks in registers."""
    return "unroll" in f.ir("loops")


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "int64"])
@pytest.mark.parametrize("perm", [(1, 0), (0, 2, 1), (2, 0, 1), (1, 2, 0), (0, 2, 3, 1), (0, 3, 1, 2), (3, 2, 1, 0)])
def test_values(perm, dtype):
    names = [f"D{k}" for k in range(len(perm))]
    x = gw.placeholder("x", dtype, names)
    f = gw.function([x], gw.permute_dims(x, perm) * 2)
    assert blocked(f)
    for sizes in ([33, 70, 17, 9], [8, 16, 32, 8], [1, 40, 3, 65], [65, 1, 31, 2], [0, 20, 9, 9], [9, 100, 0, 4]):
        data = RNG.integers(-99, 99, sizes[: len(perm)]).astype(dtype)
        np.testing.assert_array_equal(f(data), data.transpose(perm) * 2)


@pytest.mark.parametrize("shape", [(8, 8), (16, 24), (17, 130), (300, 65), (9, 9)])
def test_known_sizes(shape):
    x = gw.placeholder("x", "float32", shape)
    f = gw.function([x], gw.permute_dims(x, (1, 0)) + 1)
    assert blocked(f)
    data = RNG.normal(size=shape).astype(np.float32)
    np.testing.assert_array_equal(f(data), data.T + 1)


def test_operands_along_either_axis():
    x = gw.placeholder("x", "float32", ("M", "N"))
    row, column = gw.placeholder("r", "float32", ("M",)), gw.placeholder("c", "float32", ("N", 1))
    f = gw.function([x, row, column], gw.tanh(gw.permute_dims(x, (1, 0)) * row) - column)
    assert blocked(f)
    for m, n in ((50, 21), (7, 90), (64, 64)):
        a, r, c = (RNG.normal(size=s).astype(np.float32) for s in ((m, n), (m,), (n, 1)))
        np.testing.assert_allclose(f(a, r, c), np.tanh(a.T * r) - c, rtol=1e-5, atol=1e-6)


def test_an_operand_that_runs_as_the_result_does():
    """Only what does not run so is exchanged; the rest reads the block."""
    x, y = gw.placeholder("x", "float32", ("M", "N")), gw.placeholder("y", "float32", ("N", "M"))
    row = gw.placeholder("r", "float32", ("M",))
    f = gw.function([x, y, row], y - 0.5 * gw.where(row < x.T, x.T, y))
    text = f.ir("loops")
    assert blocked(f) and "block0" in text and "parallel i0b" in text
    for m, n in ((40, 30), (8, 8), (7, 50), (129, 70), (0, 9)):
        a, b, r = (RNG.normal(size=s).astype(np.float32) for s in ((m, n), (n, m), (m,)))
        np.testing.assert_allclose(f(a, b, r), b - 0.5 * np.where(r < a.T, a.T, b), rtol=1e-6)


def test_a_variable_is_updated_by_what_is_transposed():
    x = gw.placeholder("x", "float32", (65, 33))
    w = gw.Variable(np.ones((33, 65), np.float32), name="w")
    f = gw.function([x], [], updates={w: w - 0.5 * x.T})
    assert blocked(f)
    data = RNG.normal(size=(65, 33)).astype(np.float32)
    f(data)
    np.testing.assert_allclose(w.value, 1 - 0.5 * data.T, rtol=1e-6)


@pytest.mark.parametrize("shape", [(3, 511, 515), ("K", "M", "N")])
def test_threads_do_not_matter(shape):
    x = gw.placeholder("x", "float32", shape)
    f = gw.function([x], gw.permute_dims(x, (0, 2, 1)))
    assert "parallel" in f.ir("loops")
    data = RNG.normal(size=(3, 511, 515)).astype(np.float32)
    before = gw.get_num_threads()
    try:
        for threads in (1, 2, 3):
            gw.set_num_threads(threads)
            np.testing.assert_array_equal(f(data), data.transpose(0, 2, 1))
    finally:
        gw.set_num_threads(before)


@pytest.mark.parametrize("extent, offset, apart", [(8, 8, True), (16, 0, True), (8, 9, False), (20, 1, False)])
def test_blocks_are_apart_if_none_reaches_into_the_next(extent, offset, apart):
    """16 places for each iteration: `extent` of them from the first on, and as many from another on."""
    out, b, i = Buffer("out", float32, (128,)), symbol("b"), symbol("i")

    def some(first):
        return For("i", extent, (Store(out, (Index(16 * b + i + first),), const(1, float32)),))

    assert independent(For("b", 4, (some(0), some(offset)))) is apart

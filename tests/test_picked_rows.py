"""Rows that data choose: read and added to as vectors, their columns shared out to threads."""

from __future__ import annotations

import numpy as np
import pytest

import graphwright as gw

RNG = np.random.default_rng(0)


def table(columns):
    w, i, g = (gw.placeholder(*spec) for spec in (
        ("w", "float32", ("V", columns)), ("i", "int64", ("N",)), ("g", "float32", ("N", columns)),
    ))
    rows = gw.take(w, i, axis=0)
    return gw.function([w, i, g], [rows * 2, gw.grad(gw.sum(rows * g), w)])


@pytest.mark.parametrize("columns", [1, 7, 16, 256, 257, 1030, "C"])
def test_values_whatever_the_threads(columns):
    f = table(columns)
    before = gw.get_num_threads()
    try:
        for width in (0, 5, 700) if columns == "C" else (columns,):
            for v, n in ((1, 3), (5, 400), (40, 0)):
                w, g = (RNG.normal(size=(k, width)).astype(np.float32) for k in (v, n))
                i = RNG.integers(-v, v, n)
                summed = np.zeros((v, width), np.float32)
                np.add.at(summed, i, g)
                found = []
                for threads in (1, 2, 3):
                    gw.set_num_threads(threads)
                    found.append(f(w, i, g))
                np.testing.assert_array_equal(found[0][0], w[i] * 2)
                np.testing.assert_array_equal(found[0][1], summed)  # rows are added in their order
                for again in found[1:]:
                    for a, b in zip(again, found[0]):
                        np.testing.assert_array_equal(a, b)
    finally:
        gw.set_num_threads(before)


def test_columns_of_wide_rows_are_shared_out():
    loops = table(1030).ir("loops")
    scatter = loops[loops.index("kernel @scatter_add"):]
    assert "parallel i" in scatter and "vector(" in scatter
    narrow = table(64).ir("loops")
    assert "parallel i" not in narrow[narrow.index("kernel @scatter_add"):].split("store %out0", 2)[1]

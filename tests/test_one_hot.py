"""Products with one-hot rows: rows picked and added up, with the values of the product, NaN and infinities included."""

from __future__ import annotations

import numpy as np
import pytest

import graphwright as gw

RNG = np.random.default_rng(0)
COUNT, COLUMNS = 5, 16
WILD = (np.inf, -np.inf, np.nan, -0.0)


def products(dtype="float32"):
    """Rows picked, and added up in both orders, by one function."""
    x = gw.placeholder("x", "int64", ("N",))
    w = gw.placeholder("w", dtype, (COUNT, COLUMNS))
    g = gw.placeholder("g", dtype, ("N", COLUMNS))
    hot = gw.nn.one_hot(x, COUNT, dtype=dtype)
    outputs = [hot @ w, gw.permute_dims(hot, (1, 0)) @ g, gw.permute_dims(g, (1, 0)) @ hot]
    return gw.function([x, w, g], outputs)


def multiplied(x, w, g):
    hot = (x[:, None] == np.arange(COUNT)).astype(w.dtype)
    with np.errstate(all="ignore"):
        picked, added = np.einsum("nv,vc->nc", hot, w), np.einsum("nv,nc->vc", hot, g)
    return [picked, added, added.T]


def arguments(n, dtype="float32", wild=0):
    w, g = (RNG.normal(size=(k, COLUMNS)).astype(dtype) for k in (COUNT, n))
    for a in (w, g):
        places = RNG.integers(0, max(a.size, 1), wild if a.size else 0)
        a.flat[places] = RNG.choice(WILD, len(places))
    return RNG.integers(-1, COUNT + 2, n), w, g


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_values_of_the_product(dtype):
    f = products(dtype)
    assert not any("dot" in line for line in str(f.ir("optimized")).splitlines())
    for n in (0, 1, 3, 70):
        given = arguments(n, dtype)
        for found, expected in zip(f(*given), multiplied(*given)):
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_nan_where_another_row_is_not_finite():
    f = products()
    for wild in (1, 1, 2, 3) * 40:
        given = arguments(RNG.integers(0, 9), wild=wild)
        for found, expected in zip(f(*given), multiplied(*given)):
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_a_row_that_alone_is_not_finite_keeps_it():
    f = products()
    x, w, g = arguments(2)
    x[:], w[3, 0], g[1, 0] = (3, 4), np.inf, -np.inf
    picked, added, _ = f(x, w, g)
    assert picked[0, 0] == np.inf and np.isnan(picked[1, 0])
    assert added[4, 0] == -np.inf and np.isnan(added[:4, 0]).all()
    assert np.isfinite(picked[:, 1:]).all() and np.isfinite(added[:, 1:]).all()


def test_zeros_are_positive_as_in_a_sum():
    f = products()
    x, w, g = np.arange(COUNT), np.full((COUNT, COLUMNS), -0.0, np.float32), np.full((COUNT, COLUMNS), -0.0, np.float32)
    assert not any(np.signbit(a).any() for a in f(x, w, g))


def test_counters_that_wrap_are_not_positions():
    """300 rows, counted in eight bits: positions below 44 are met twice."""
    x, w = gw.placeholder("x", "uint8", ("N",)), gw.placeholder("w", "float32", (300, 8))
    hot = gw.astype(gw.arange(300, dtype="uint8") == gw.expand_dims(x, axis=1), "float32")
    f = gw.function([x, w], hot @ w)
    rows, picks = RNG.normal(size=(300, 8)).astype(np.float32), np.array([3, 200], np.uint8)
    both = (np.arange(300).astype(np.uint8) == picks[:, None]).astype(np.float32) @ rows
    np.testing.assert_allclose(f(picks, rows), both, rtol=1e-6)


def test_a_loop_picks_rows_of_a_table_that_is_looked_at_before_it():
    """The state of the table does not change in the loop: only the picking is done at each step."""
    w, start = gw.placeholder("w", "float32", (COUNT, COUNT)), gw.placeholder("start", "int64", (1,))

    def step(char, _):
        scores = gw.nn.one_hot(char, COUNT, dtype="float32") @ w
        char = gw.argmax(scores, axis=-1)
        return char, char

    f = gw.function([w, start], gw.scan(step, start, length=7)[1])
    text = str(f.ir("optimized"))
    loop = text[text.index("scan %"):text.index("\n  }", text.index("scan %"))]
    assert "take" in loop and "sum" not in loop and "sum" in text
    table = RNG.permuted(np.tile(np.arange(COUNT, dtype=np.float32), (COUNT, 1)), axis=1)
    expected, char = [], 2
    for _ in range(7):
        char = int(table[char].argmax())
        expected.append([char])
    assert f(table, np.array([2])).tolist() == expected

"""Work along rows: groups that share rows are one kernel, whatever the shapes and the number of threads."""

from __future__ import annotations

import numpy as np
import pytest

import graphwright as gw

RNG = np.random.default_rng(7)
WIDTHS = (1, 3, 8, 13, 40, 1000)



def cross_entropy(rows, columns):
    x, y = gw.placeholder("x", "float32", (rows, columns)), gw.placeholder("y", "int64", (rows,))
    loss = gw.nn.cross_entropy(x, y)
    return gw.function([x, y], [loss, gw.grad(loss, x)])


def cross_entropy_reference(x, y):
    x = x.astype(np.float64)
    e = np.exp(x - x.max(1, keepdims=True))
    p = e / e.sum(1, keepdims=True)
    loss = -np.log(p[np.arange(len(y)), y]).mean()
    p[np.arange(len(y)), y] -= 1
    return loss, p / len(y)


@pytest.mark.parametrize("columns", WIDTHS)
@pytest.mark.parametrize("symbolic", [False, True])
def test_a_loss_and_its_gradient_read_each_row_in_one_kernel(columns, symbolic):
    x = RNG.standard_normal((33, columns), dtype=np.float32)
    y = RNG.integers(0, columns, 33)
    f = cross_entropy("N", "C") if symbolic else cross_entropy(33, columns)
    for got, wanted in zip(f(x, y), cross_entropy_reference(x, y)):
        np.testing.assert_allclose(got, wanted, rtol=2e-5, atol=1e-7)
    if columns > 8:
        assert f.ir("optimized").count("= fusion") == 2, f.ir("optimized")  # the rows, and the mean


def test_exponentials_of_a_row_are_computed_once():
    loops = cross_entropy(64, 1000).ir("loops")
    assert "alloc %r1.row0: f32[1000] local" in loops and loops.count("load %r1.row0[") == 3, loops


def test_a_picked_term_is_read_and_nothing_is_summed():
    x, y = gw.placeholder("x", "float32", (9, 50)), gw.placeholder("y", "int64", (9,))
    hot = gw.arange(50) == gw.expand_dims(y, 1)
    f = gw.function([x, y], gw.sum(gw.where(hot, x, 0), axis=1))
    values, at = RNG.standard_normal((9, 50), dtype=np.float32), np.array([0, 49, 3, -1, 50, 7, 7, 2**40, -(2**40)])
    values[0, 1] = np.nan  # not picked
    wanted = [values[i, k] if 0 <= k < 50 else 0 for i, k in enumerate(at)]
    np.testing.assert_array_equal(f(values, at), np.array(wanted, np.float32))
    assert "+=" not in f.ir("loops"), f.ir("loops")


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "uint8", "bool"])
@pytest.mark.parametrize("symbolic", [False, True])
@pytest.mark.parametrize("n", [1, 2, 5, 8, 15, 33, 100, 8193])
def test_what_is_left_of_a_vector_loop(n, dtype, symbolic):
    x = gw.placeholder("x", dtype, ("R", "N") if symbolic else (3, n))
    a = (RNG.standard_normal((3, n)) * 3).astype(dtype)
    if dtype == "bool":
        pairs = [(~x, ~a), (gw.any(x, axis=1), a.any(1)), (gw.all(x, axis=0), a.all(0))]
    else:
        pairs = [
            (x * x + x, a * a + a), (gw.max(x, axis=1), a.max(1)), (gw.min(x, axis=0), a.min(0)),
            (gw.flip(x, axis=1) + x, a[:, ::-1] + a),
            (gw.sum(x, axis=1, dtype="float64"), a.sum(1, dtype="float64")),
        ]
    f = gw.function([x], [p for p, _ in pairs])
    for got, (_, wanted) in zip(f(a), pairs):
        np.testing.assert_allclose(got, wanted, rtol=1e-6, atol=1e-6)


def test_results_do_not_depend_on_the_number_of_threads():
    x = gw.placeholder("x", "float32", ("N", 1000))
    y = gw.nn.layer_norm(gw.nn.gelu(x), (1000,))
    f = gw.function([x], [y, gw.nn.softmax(y, axis=1), gw.sum(y, axis=0), gw.mean(y)])
    a = RNG.standard_normal((300, 1000), dtype=np.float32)
    before, results = gw.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            gw.set_num_threads(threads)
            results.append(f(a))
    finally:
        gw.set_num_threads(before)
    for other in results[1:]:
        for first, second in zip(results[0], other):
            np.testing.assert_array_equal(first, second)


def test_groups_with_another_between_them_stay_apart():
    x, w = gw.placeholder("x", "float32", (64, 64)), gw.placeholder("w", "float32", (64, 64))
    s = gw.sum(gw.exp(x), axis=1, keepdims=True)
    f = gw.function([x, w], gw.tanh(x * s) + gw.sum(gw.tanh(x * s) @ w, axis=1, keepdims=True) + x)
    a, b = RNG.standard_normal((2, 64, 64)).astype(np.float32)
    t = np.tanh(a * np.exp(a).sum(1, keepdims=True))
    np.testing.assert_allclose(f(a, b), t + (t @ b).sum(1, keepdims=True) + a, rtol=1e-4, atol=1e-4)

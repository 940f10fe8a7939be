"""A dimension may have any name, also one that a schedule gives to its loops."""

from __future__ import annotations

import numpy as np
import pytest

import graphwright as gw
from graphwright.ir.loops import For, Kernel, Let, statements
from graphwright.passes.names_apart import with_names_apart


def _dense(n):
    x, w = gw.placeholder("x", "float32", (n, 48)), gw.placeholder("w", "float32", (48, 40))
    return [x, w], gw.tanh(x @ w + 1)


def _transposed(n):
    x, y = gw.placeholder("x", "float32", (n, 48)), gw.placeholder("y", "float32", (48, n))
    return [x, y], (x @ y, gw.sum(x, axis=1), y @ x)


def _softmax(n):
    x = gw.placeholder("x", "float32", (3, 48, n))
    return [x], (gw.nn.softmax(x), gw.sum(x, axis=(0, 1)), gw.argmax(x, axis=-1))


def _embedding(n):
    table, ids = gw.placeholder("table", "float32", (48, 4)), gw.placeholder("ids", "int64", (n,))
    return [table, ids], gw.grad(gw.sum(gw.take(table, ids, axis=0) ** 2), table)


def _convolution(n):
    x, w = gw.placeholder("x", "float32", (n, 3, 12, 12)), gw.placeholder("w", "float32", (8, 3, 3, 3))
    y = gw.nn.max_pool2d(gw.tanh(gw.nn.conv2d(x, w)), 2)
    return [x, w], tuple(gw.grad(gw.sum(y * y), [x, w]))


def _bound(kernel: Kernel) -> set[str]:
    return {s.var if isinstance(s, For) else s.name for s in statements(kernel.body) if isinstance(s, (For, Let))}


def _flat(results):
    return results if isinstance(results, (tuple, list)) else [results]


def _arguments(inputs, seed=0):
    rng = np.random.default_rng(seed)
    for t in inputs:
        shape = tuple(d if isinstance(d, int) else 19 for d in t.shape)
        yield rng.integers(0, 48, shape) if t.dtype.name == "int64" else rng.standard_normal(shape, np.float32)


@pytest.mark.parametrize("model", [_dense, _transposed, _softmax, _embedding, _convolution])
def test_a_dimension_may_have_the_name_of_any_loop(model):
    inputs, outputs = model("N")
    plain = gw.function(inputs, outputs)
    arrays = list(_arguments(inputs))
    expected = plain(*arrays)
    names = set().union(*map(_bound, plain.compiled.lowered.program.kernels))
    names = {n for n in names if "." not in n} | {"i0", "i0t", "i0b", "i0i1", "r0", "r1", "t0", "z0"}
    for name in sorted(names):
        inputs, outputs = model(name)
        named = gw.function(inputs, outputs)
        for a, b in zip(_flat(named(*arrays)), _flat(expected), strict=True):
            np.testing.assert_array_equal(a, b, err_msg=name)
        assert name in named.ir("loops")


def test_schedules_name_nothing_with_a_capital():
    for model in (_dense, _transposed, _softmax, _embedding, _convolution):
        kernels = gw.function(*model("n")).compiled.lowered.program.kernels
        assert not [n for k in kernels for n in _bound(k) if n[0].isupper()]


def test_the_dimension_keeps_its_name_and_the_loop_yields():
    kernel = Kernel("k", (), (), (For("i0", gw.ir.dims.symbol("lane"), ()),), ("lane",))

    def schedule(k):
        assert k.symbols == ("dim.lane",)
        return Kernel(k.name, (), (), (For("lane", k.body[0].extent, ()),), k.symbols)

    result = with_names_apart(kernel, schedule)
    assert result.symbols == ("lane",)
    assert result.body[0].var == "lane.1" and str(result.body[0].extent) == "lane"

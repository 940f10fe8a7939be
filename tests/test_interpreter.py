"""The graph interpreter: symbols from shapes, states, regions, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
from checks import graph, input_value, total

from graphwright.errors import ArgumentError, DimensionError, VerifyError
from graphwright.ir.dims import symbol
from graphwright.ir.dtypes import as_dtype
from graphwright.ir.graph import make
from graphwright.ir.interpreter import bind_symbols, evaluate_values, interpret
from graphwright.ir.op import OPS, Op
from graphwright.ir.types import TensorType

N, M = symbol("N"), symbol("M")


def tensor(*shape):
    return TensorType(as_dtype("float32"), shape)


@pytest.mark.parametrize("types, shapes, expected", [
    ([tensor(N, 4), tensor(M)], [(3, 4), (2,)], {"N": 3, "M": 2}),
    ([tensor(2 * N + 1)], [(7,)], {"N": 3}),
    ([tensor(N + M), tensor(M)], [(7,), (2,)], {"N": 5, "M": 2}),
    ([tensor(N), tensor(N * M)], [(3,), (6,)], {"N": 3, "M": 2}),
    ([tensor(N // 2), tensor(N)], [(3,), (7,)], {"N": 7}),
    ([tensor()], [()], {}),
])
def test_symbols_from_shapes(types, shapes, expected):
    assert bind_symbols(types, shapes) == expected


@pytest.mark.parametrize("types, shapes, words", [
    ([tensor(N), tensor(N)], [(3,), (4,)], "dimension N must be 3, got 4"),
    ([tensor(N, 4)], [(3, 5)], "dimension 4 must be 4, got 5"),
    ([tensor(2 * N)], [(3,)], r"dimension 2\*N must be 2, got 3"),
    ([tensor(N + 5)], [(3,)], "N would be negative"),
    ([tensor(N // 2)], [(3,)], "do not determine N"),
])
def test_contradicting_shapes(types, shapes, words):
    with pytest.raises(DimensionError, match=words):
        bind_symbols(types, shapes)


def test_states_and_updates():
    x, w = input_value("x", (N,)), make(
        OPS["state"], (), {"name": "w", "shape": (N,), "dtype": as_dtype("float64")}
    )
    still = make(OPS["state"], (), {"name": "s", "shape": (), "dtype": as_dtype("int64")})
    g = graph([x], [total(x * w)], states=(w, still), updates=((w, w - x),))
    outputs, states = interpret(g, [[1.0, 2.0]], [np.array([3.0, 4.0]), 5])
    assert outputs[0] == 11 and states[0].tolist() == [2, 2] and states[1] == 5


def test_regions_and_several_results():
    a = input_value("a", (N,))
    region = graph([a], [a + 1, a * a])
    x = input_value("x", (N,))
    group = make(OPS["fusion"], (x,), {"reason": "test"}, (region,))
    first, second = (make(OPS["item"], (group,), {"index": k}) for k in (0, 1))
    outputs, _ = interpret(graph([x], [first, second]), [np.array([2.0, 3.0])])
    assert [o.tolist() for o in outputs] == [[3, 4], [4, 9]]
    single = make(OPS["fusion"], (x,), {"reason": "test"}, (graph([a], [a * a * a]),))
    assert interpret(graph([x], [single]), [np.array([2.0])])[0][0].tolist() == [8]


def test_known_intermediate_values_hide_their_operands():
    x = input_value("x", (2,))
    y = x * x
    (z,) = evaluate_values([y + 1], {y: np.array([10.0, 20.0])}, {})
    assert z.tolist() == [11, 21]


def test_wrong_arguments():
    x = input_value("x", (2,), "float32")
    g = graph([x], [x + 1])
    with pytest.raises(ArgumentError, match=r"x: needs f32\[2\], got float64\[2\]"):
        interpret(g, [np.zeros(2)])
    with pytest.raises(ArgumentError, match="takes 1 arrays"):
        interpret(g, [])
    with pytest.raises(ArgumentError, match="got float32"):
        interpret(g, [np.zeros((2, 2), np.float32)])


def test_a_reference_that_contradicts_the_type_rule_is_found():
    wrong = Op("wrong", "map", lambda t: t.types[0], lambda x: x[:-1], arity=1)
    x = input_value("x", (3,))
    with pytest.raises(VerifyError, match=r"wrong: the reference gives shape \(2,\), the type f64\[3\]"):
        interpret(graph([x], [make(wrong, (x,))]), [np.zeros(3)])

"""Reverse-mode differentiation: values, safe branches, errors, source lines."""

from __future__ import annotations

import numpy as np
import pytest
from checks import check_gradient, constant, graph, input_value, total

from graphwright.errors import DifferentiationError, DTypeError, ShapeError
from graphwright.ir.dims import symbol
from graphwright.ir.graph import Loc, source_location, topological
from graphwright.ir.interpreter import interpret
from graphwright.ir.op import OPS
from graphwright.ir.ops.elementwise import (
    cast,
    cos,
    eq,
    exp,
    floor,
    log,
    nextafter,
    reciprocal,
    relu,
    sin,
    sqrt,
    stop_gradient,
    tanh,
    where,
)  # fmt: skip
from graphwright.ir.ops.linalg import dot
from graphwright.ir.ops.movement import broadcast, reshape
from graphwright.passes.differentiate import gradients


def value(outputs, inputs, arrays):
    return [r.tolist() for r in interpret(graph(inputs, outputs), arrays)[0]]


# --- values --------------------------------------------------------------------------------------


def test_contributions_add_up():
    x = input_value("x", ())
    y = x * x + sin(x) * x
    (g,) = gradients(y + y, [x])
    np.testing.assert_allclose(value([g], [x], [0.7]), [2 * (1.4 + np.cos(0.7) * 0.7 + np.sin(0.7))])


def test_any_order():
    x = input_value("x", ())
    y = x * x * x * x
    found = []
    for _ in range(5):
        (y,) = gradients(y, [x], on_disconnected="zero")
        found.append(y)
    assert value(found, [x], [2.0]) == [32.0, 48.0, 48.0, 24.0, 0.0]


@pytest.mark.parametrize("order", [1, 2, 3])
def test_a_network(order):
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=s) for s in ((4, 3), (3, 5), (5,), (5, 2))]

    def network(x, w, b, v):
        h = tanh(dot(x, w, contract=((1,), (0,))) + b)
        y = dot(h, v, contract=((1,), (0,)))
        shifted = exp(y - broadcast(OPS["amax"](y, axes=(1,)), shape=(4, 2), dims=(0,)))
        return shifted / broadcast(OPS["sum"](shifted, axes=(1,)), shape=(4, 2), dims=(0,))

    check_gradient(network, arrays, order, "network", tolerance=1e-4)


def test_symbolic_batch():
    n = symbol("N")
    x, w = input_value("x", (n, 3)), input_value("w", (3,))
    loss = total(relu(dot(x, w, contract=((1,), (0,)))))
    (gw,) = gradients(loss, [w])
    assert gw.tensor == w.tensor
    array = np.random.default_rng(0).normal(size=(6, 3))
    active = array @ np.ones(3) > 0
    np.testing.assert_allclose(value([gw], [x, w], [array, np.ones(3)])[0], array[active].sum(axis=0))


def test_cotangent_and_intermediate_values():
    x = input_value("x", (3,))
    y = x * x
    z = exp(y)
    ct = input_value("ct", (3,))
    gx, gy, gz = gradients(z, [x, y, z], cotangent=ct)
    assert gz is ct
    a, c = np.array([0.1, 0.2, 0.3]), np.array([1.0, 0.0, -2.0])
    got = value([gx, gy], [x, ct], [a, c])
    np.testing.assert_allclose(got, [c * np.exp(a * a) * 2 * a, c * np.exp(a * a)])


def test_constants_along_the_way_have_no_gradient():
    x = input_value("x", (3,))
    (g,) = gradients(total(stop_gradient(exp(x)) * x + floor(x) * x), [x])
    a = np.array([0.5, -1.5, 2.5])
    np.testing.assert_allclose(value([g], [x], [a])[0], np.exp(a) + np.floor(a))
    (g,) = gradients(total(floor(x)), [x])
    assert value([g], [x], [a]) == [[0, 0, 0]]


def test_casts_pass_between_floats_and_stop_at_integers():
    x = input_value("x", (2,), "float32")
    (g,) = gradients(total(cast(x, dtype=constant(1.0).dtype) * constant([2.0, 3.0])), [x])
    assert g.dtype == x.dtype and value([g], [x], [np.float32([1, 1])]) == [[2, 3]]
    whole = cast(cast(x, dtype=constant(1).dtype), dtype=x.dtype)
    (g,) = gradients(total(whole), [x])
    assert value([g], [x], [np.float32([1, 1])]) == [[0, 0]]


def test_deep_chains_do_not_recurse():
    x = input_value("x", ())
    y = x
    for _ in range(5000):
        y = sin(y)
    (g,) = gradients(y, [x])
    assert len(topological([g])) > 5000


def test_prepare_rewrites_the_loss_first():
    x = input_value("x", ())
    (g,) = gradients(sin(x), [x], prepare=lambda loss: cos(x))
    np.testing.assert_allclose(value([g], [x], [0.5]), [-np.sin(0.5)])


# --- a branch that is not taken ------------------------------------------------------------------

X = np.array([-2.0, 0.0, 0.5, 1.0, 3.0])


def _sum_of_roots(x):
    inner = broadcast(sqrt(x - 1), shape=(5, 2), dims=(0,))
    column = broadcast(x, shape=(5, 2), dims=(0,))
    return OPS["sum"](where(column <= 1, column, inner), axes=(1,)) / 2


SAFE = {
    "sqrt": (lambda x: where(x <= 1, x, sqrt(x - 1)),
             lambda x: np.where(x <= 1, 1, 0.5 * np.abs(x - 1) ** -0.5),
             lambda x: np.where(x <= 1, 0, -0.25 * np.abs(x - 1) ** -1.5)),
    "log": (lambda x: where(x > 0, log(x), x),
            lambda x: np.where(x > 0, 1 / x, 1), lambda x: np.where(x > 0, -1 / x**2, 0)),
    "division": (lambda x: where(eq(x, 0), 0, 1 / x),
                 lambda x: np.where(x == 0, 0, -1 / x**2), lambda x: np.where(x == 0, 0, 2 / x**3)),
    "reciprocal": (lambda x: where(eq(x, 0), x, reciprocal(x)),
                   lambda x: np.where(x == 0, 1, -1 / x**2), lambda x: np.where(x == 0, 0, 2 / x**3)),
    "pow": (lambda x: where(x > 0, x ** 0.5, 0),
            lambda x: np.where(x > 0, 0.5 * np.abs(x) ** -0.5, 0),
            lambda x: np.where(x > 0, -0.25 * np.abs(x) ** -1.5, 0)),
    "a long way": (lambda x: where(x > 0, exp(log(x) * 2) / sqrt(x), 0),
                   lambda x: np.where(x > 0, 1.5 * np.abs(x) ** 0.5, 0),
                   lambda x: np.where(x > 0, 0.75 * np.abs(x) ** -0.5, 0)),
    "through broadcast and sum": (_sum_of_roots,
                                  lambda x: np.where(x <= 1, 1, 0.5 * np.abs(x - 1) ** -0.5),
                                  lambda x: np.where(x <= 1, 0, -0.25 * np.abs(x - 1) ** -1.5)),
    "nested": (lambda x: where(x > 0, where(x < 1, sqrt(1 - x), log(x)), 0),
               lambda x: np.where(x > 0, np.where(x < 1, -0.5 * np.abs(1 - x) ** -0.5, 1 / x), 0),
               lambda x: np.where(x > 0, np.where(x < 1, -0.25 * np.abs(1 - x) ** -1.5, -1 / x**2), 0)),
}


@pytest.mark.parametrize("case", SAFE)
def test_a_branch_not_taken_contributes_exactly_zero(case):
    build, first, second = SAFE[case]
    x = input_value("x", X.shape)
    (g,) = gradients(total(build(x)), [x])
    (h,) = gradients(total(g), [x])
    with np.errstate(all="ignore"):
        expected = [first(X), second(X)]
    got = interpret(graph([x], [g, h]), [X])[0]
    np.testing.assert_allclose(got, expected, rtol=1e-12)
    assert np.isfinite(got).all()


def test_a_scalar_branch_through_a_reduction():
    x = input_value("x", (3,))
    norm = sqrt(total(x * x))
    (g,) = gradients(where(total(x) > 0, norm, 0), [x])
    assert value([g], [x], [np.zeros(3)]) == [[0, 0, 0]]
    np.testing.assert_allclose(value([g], [x], [np.array([3.0, 0, 4])]), [[0.6, 0, 0.8]])


def test_gradients_outside_where_keep_their_infinities():
    x = input_value("x", (1,))
    (g,) = gradients(total(sqrt(x)), [x])
    assert value([g], [x], [np.zeros(1)]) == [[np.inf]]
    assert not any(v.op.name == "where" for v in topological([g]))


# --- refusals and source lines -------------------------------------------------------------------


def test_refusals():
    x, n = input_value("x", (3,)), input_value("n", (3,), "int64")
    other = input_value("other", (2,))
    with pytest.raises(DifferentiationError, match=r"result of exp of type f64\[3\].*not a scalar"):
        gradients(exp(x), [x])
    with pytest.raises(DifferentiationError, match="'n' of type i64.*floating-point"):
        gradients(total(x), [n])
    with pytest.raises(DifferentiationError, match="only floating-point"):
        gradients(OPS["sum"](n, axes=(0,)), [x])
    with pytest.raises(DifferentiationError, match=r"does not depend on 'other' of type f64\[2\]"):
        gradients(total(x), [other])
    with pytest.raises(ShapeError, match="cotangent"):
        gradients(exp(x), [x], cotangent=other)
    with pytest.raises(DTypeError, match="cotangent"):
        gradients(exp(x), [x], cotangent=input_value("c", (3,), "float32"))


def test_disconnected_values_can_get_zeros():
    x, other = input_value("x", (3,)), input_value("other", (symbol("N"), 2), "float32")
    _, zeros = gradients(total(x), [x, other], on_disconnected="zero")
    assert zeros.tensor == other.tensor and zeros.op.name == "full" and zeros.attrs["value"] == 0


def test_an_op_without_derivative_is_named_with_its_line():
    x = input_value("x", (3,))
    with source_location(Loc("model.py", 7)):
        y = nextafter(x, 1)
    with pytest.raises(DifferentiationError, match=r"nextafter .* at model\.py:7 has no derivative"):
        gradients(total(y), [x])
    assert len(gradients(total(stop_gradient(y) * x), [x])) == 1


def test_gradients_know_the_forward_line():
    x = input_value("located", (3,))
    with source_location(Loc("model.py", 3)):
        y = tanh(reshape(x, shape=(3, 1)))
    with source_location(Loc("model.py", 4)):
        loss = total(y * 3)
    (g,) = gradients(loss, [x])
    forward = set(topological([loss]))
    made = [v for v in topological([g]) if v not in forward and v.op.name != "full"]
    assert {(v.loc.line, v.loc.role, v.loc.of) for v in made} <= {
        (3, "grad", "tanh"), (3, "grad", "reshape"), (4, "grad", "mul"), (4, "grad", "sum"), (4, "grad", "broadcast"),
    }
    assert any(v.loc == Loc("model.py", 3, "grad", "tanh") for v in made)

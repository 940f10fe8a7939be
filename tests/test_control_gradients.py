"""Gradients of loops and branches: of orders one and two, against unrolled graphs and finite differences."""

from __future__ import annotations

import numpy as np
import pytest
from checks import check_gradient
from control_forms import FORMS, INPUTS, NESTED

import graphwright as gw
from graphwright.frontends.tensor import Tensor
from graphwright.ir.parser import parse_graph
from graphwright.ir.printer import print_graph
from graphwright.ir.verify import verify_graph

RNG = np.random.default_rng(3)
ARRAYS = [RNG.normal(size=shape) * 0.5 for shape in INPUTS.values()]

ALL = {**FORMS, **NESTED}
every_form = pytest.mark.parametrize("name", ALL)


def placeholders():
    return [gw.placeholder(name, "float64", shape) for name, shape in INPUTS.items()]


def derivatives(make, inputs):
    """The value, its gradients, and the gradients of a function of these."""
    value = make(*inputs)
    first = gw.grad(value, inputs, disconnected="zero")
    mixed = sum(gw.sin(g * 1.3).sum() for g in first)
    return [value, *first, *gw.grad(mixed, inputs, disconnected="zero")]


def interpreted(inputs, outputs):
    f = gw.function(inputs, outputs, target="interpreter")
    verify_graph(f.graph)
    return f


@every_form
def test_derivatives_are_those_of_the_unrolled_graph(name):
    looped, unrolled = ALL[name]
    inputs = placeholders()
    f = interpreted(inputs, derivatives(looped, inputs))
    found = f(*ARRAYS)
    expected = interpreted(inputs, derivatives(unrolled, inputs))(*ARRAYS)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)
    text = f.ir()
    assert print_graph(parse_graph(text)) == text


@pytest.mark.parametrize(("name", "options"), [*((n, {}) for n in ALL), *((n, {"optimize": False}) for n in FORMS)])
def test_compiled_derivatives_are_the_interpreted(name, options):
    inputs = placeholders()
    outputs = derivatives(ALL[name][0], inputs)[: 4 if options else 7]
    found = gw.function(inputs, outputs, **options)(*ARRAYS)
    for a, b in zip(found, interpreted(inputs, outputs)(*ARRAYS), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


@every_form
@pytest.mark.parametrize("order", [1, 2])
def test_derivatives_are_the_differences(name, order):
    make = ALL[name][0]
    check_gradient(lambda *values: make(*map(Tensor, values))._value, ARRAYS, order, name, tolerance=2e-4)


@pytest.mark.parametrize("options", [{}, {"checkpoint": 2}, {"truncate_gradient": 2}], ids=str)
@pytest.mark.parametrize("length", [0, 1, 2, 5])
def test_a_symbolic_length(length, options):
    x, h = gw.placeholder("x", "float64", ("T", 2)), gw.placeholder("h", "float64", (2,))
    last, rows = gw.scan(lambda c, e: (gw.sin(c * e), c * e), h, x, **options)
    gradient = gw.grad((last * last).sum() + rows.sum(), [x, h])
    known = gw.placeholder("x", "float64", (length, 2))
    last, rows = gw.scan(lambda c, e: (gw.sin(c * e), c * e), h, known, **options)
    expected = gw.grad((last * last).sum() + rows.sum(), [known, h], disconnected="zero")
    xs, start = RNG.normal(size=(length, 2)), RNG.normal(size=2)
    for a, b in zip(interpreted([x, h], gradient)(xs, start), interpreted([known, h], expected)(xs, start)):
        np.testing.assert_allclose(a, b, rtol=1e-12)


# --- truncated gradients -------------------------------------------------------------------------


@pytest.mark.parametrize("reverse", [False, True])
def test_a_truncated_gradient_is_that_of_the_last_steps(reverse):
    x, h = gw.placeholder("x", "float64", (5, 2)), gw.placeholder("h", "float64", (2,))

    def step(c, e):
        new = gw.sin(c * e) + c
        return new, new

    last, rows = gw.scan(step, h, x, truncate_gradient=2, reverse=reverse)
    found = interpreted([x, h], gw.grad((rows * rows).sum() + last.sum(), [x, h], disconnected="zero"))
    c, total = h, 0.0
    for n, k in enumerate(range(4, -1, -1) if reverse else range(5)):
        c = step(c, x[k])[0]
        if n < 3:
            c = gw.stop_gradient(c)
        total = total + (c * c).sum()
    expected = interpreted([x, h], gw.grad(total + c.sum(), [x, h], disconnected="zero"))
    xs, start = RNG.normal(size=(5, 2)), RNG.normal(size=2)
    for a, b in zip(found(xs, start), expected(xs, start)):
        np.testing.assert_allclose(a, b, rtol=1e-12)


# --- what is kept --------------------------------------------------------------------------------


def scans(text):
    """The result types of the scans of the graph itself (not of those in bodies), in order."""
    return [line[6:].split(" loc")[0].strip() for line in text.splitlines() if line.startswith("  } : ")]


def test_a_recurrent_step_keeps_its_states_and_one_product():
    """The cut keeps what tanh gave, not the two products below it."""
    x, h = gw.placeholder("x", "float64", ("T", 4)), gw.placeholder("h", "float64", (4,))
    U, V = gw.placeholder("U", "float64", (4, 4)), gw.placeholder("V", "float64", (4, 4))
    last, _ = gw.scan(lambda c, e: (gw.tanh(c @ U + e @ V), None), h, x)
    text = interpreted([x, h, U, V], gw.grad(last.sum(), [U, V])).ir()
    assert scans(text)[0] == "(f64[4], f64[T, 4], f64[T, 4])"  # the states before the steps, and what tanh gave


def test_an_output_of_the_step_is_not_kept_twice():
    x, h = gw.placeholder("x", "float64", ("T", 4)), gw.placeholder("h", "float64", (4,))
    U = gw.placeholder("U", "float64", (4, 4))

    def step(c, e):
        new = gw.tanh(c @ U + e)
        return new, new

    _, rows = gw.scan(step, h, x)
    text = interpreted([x, h, U], gw.grad(rows.sum(), U)).ir()
    assert scans(text)[0] == "(f64[4], f64[T, 4], f64[T, 4])"  # the output, and the states before the steps


def test_masks_are_kept_as_bools():
    x, h = gw.placeholder("x", "float64", ("T", 4)), gw.placeholder("h", "float64", (4,))
    U = gw.placeholder("U", "float64", (4, 4))
    last, _ = gw.scan(lambda c, e: (gw.where(c @ U + e > 0, c * 2.0, c), None), h, x)
    assert "bool[T, 4]" in interpreted([x, h, U], gw.grad(last.sum(), h)).ir()


def test_checkpoints_keep_the_carries_only():
    x, h = gw.placeholder("x", "float64", (100, 4)), gw.placeholder("h", "float64", (4,))
    U = gw.placeholder("U", "float64", (4, 4))
    last, _ = gw.scan(lambda c, e: (gw.tanh(c @ U + e), None), h, x, checkpoint="sqrt")
    text = interpreted([x, h, U], gw.grad(last.sum(), U)).ir()
    assert scans(text) == ["(f64[4], f64[10, 4])", "(f64[4], f64[4, 4])"]  # the states before each segment
    assert "f64[100, 4]" not in text.split("{", 1)[1]


# --- safety --------------------------------------------------------------------------------------


def test_a_branch_of_where_outside_does_not_poison_the_gradient():
    h = gw.placeholder("h", "float64", (2,))
    roots = gw.map(gw.sqrt, h)
    gradient = gw.grad(gw.where(h > 0, roots, 0.0).sum(), h)
    np.testing.assert_array_equal(interpreted([h], gradient)(np.array([4.0, 0.0])), [0.25, 0.0])


def test_a_branch_not_taken_does_not_poison_the_gradient():
    h = gw.placeholder("h", "float64", ())
    value = gw.cond(h > 0, lambda: gw.sqrt(h), lambda: h * 0.0)
    assert interpreted([h], gw.grad(value, h))(0.0) == 0.0


def test_integers_have_no_gradient_and_need_none():
    h = gw.placeholder("h", "float64", (3,))
    (last, _), _ = gw.scan(lambda c, _: ((c[0] * 2.0, gw.argmax(c[0]) + c[1]), None), (h, 0), length=3)
    np.testing.assert_array_equal(interpreted([h], gw.grad(last.sum(), h))(np.ones(3)), [8.0, 8.0, 8.0])


def test_an_op_without_derivative_in_a_body_is_named():
    h = gw.placeholder("h", "float64", (3,))
    last, _ = gw.scan(lambda c, _: (gw.nextafter(c, 1.0), None), h, length=3)
    with pytest.raises(gw.DifferentiationError, match="nextafter .* has no derivative"):
        gw.grad(last.sum(), h)

"""Every op of the registry: type rule, reference, definition, gradients, symbolic dimensions."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from checks import (
    Case,
    assert_close,
    cases,
    check_gradient,
    concrete_shape,
    constant,
    defined_values,
    graph,
    input_value,
    sampled_ops,
    symbolic,
    total,
)

from graphwright.errors import DTypeError, GraphError, IndexRangeError, ShapeError
from graphwright.ir.dims import symbol
from graphwright.ir.dtypes import DTYPES, float64, int64
from graphwright.ir.graph import make
from graphwright.ir.interpreter import interpret
from graphwright.ir.op import OPS, ZERO_GRADIENT, assumptions
from graphwright.passes.differentiate import gradients

WITHOUT_SAMPLES = {"input", "state", "constant", "call", "fusion", "item", "scan", "while", "switch"}
IMPLICIT = {"stop_gradient", "by_concentration"}  # their derivatives are not those of their values
SAMPLED = sampled_ops()
ELEMENTWISE = [name for name in SAMPLED if OPS[name].elementwise]
DIFFERENTIABLE = [name for name in SAMPLED if OPS[name].vjp is not None and name not in IMPLICIT]
SECOND_ORDER = [name for name in DIFFERENTIABLE if OPS[name].vjp is not ZERO_GRADIENT]

every_op = pytest.mark.parametrize("name", SAMPLED)


def test_every_op_is_complete():
    assert set(OPS) - set(SAMPLED) <= WITHOUT_SAMPLES
    for op in OPS.values():
        assert len(op.doc) > 1, op.name
        if op.name not in WITHOUT_SAMPLES:
            assert (op.define is None) != (op.lower is None), op.name
            assert op.cost >= 0 and op.ulp >= 0


@every_op
def test_reference_has_the_inferred_type(name):
    for case in cases(OPS[name]):
        (result,), _ = interpret(case.graph(), case.operands)
        assert_close(case.expected(), result, case)


@every_op
def test_definition_equals_reference(name):
    for case in cases(OPS[name]):
        assert_close(defined_values(case), case.expected(), case)


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_special_values(name):
    op = OPS[name]
    special = np.array([0.0, -0.0, 1.0, -1.0, 0.5, -2.5, 3.0, 1e30, -1e30, 1e-30, np.nan, np.inf, -np.inf])
    for dtype in (np.float32, np.float64):
        grid = [a.ravel() for a in np.meshgrid(*[special.astype(dtype)] * op.arity)]
        operands = (grid[0] > 0, *grid[1:]) if name == "where" else tuple(grid)
        case = Case(op, operands, {})
        try:
            op.infer_type(case.values(), {})
        except DTypeError:
            return
        assert_close(defined_values(case), case.expected(), case)


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_gradient(name):
    for case in cases(OPS[name], (float64,)):
        _check(case, 1)


@pytest.mark.parametrize("name", SECOND_ORDER)
def test_second_gradient(name):
    for case in itertools.islice(cases(OPS[name], (float64,)), 1, 4):
        _check(case, 2)


def _check(case, order):
    out = case.op.infer_type(case.values(), case.attrs)
    if out.dtype == float64 and any(x.dtype == np.float64 for x in case.operands):
        check_gradient(lambda *x: make(case.op, x, case.attrs), case.operands, order, case)


@every_op
def test_symbolic_dimensions(name):
    tried = 0
    for case in cases(OPS[name], (float64,)):
        for inputs, value, n in symbolic(case):
            tried += 1
            expected = case.op.infer_type(case.values(), case.attrs).shape
            assert concrete_shape(value, n) == tuple(expected), case
            (result,), _ = interpret(graph(inputs, [value]), case.operands)
            assert_close(result, case.expected(), case)
    fixed = name == "random_bits"  # its key has one shape; a symbolic result is tested in test_random.py
    assert tried or fixed or all(max(c.operands[0].shape, default=0) < 2 for c in cases(OPS[name]) if c.operands)


@pytest.mark.parametrize("name", SECOND_ORDER)
def test_symbolic_gradient(name):
    """VJPs written for symbolic dimensions give what they give for static ones."""
    for case in itertools.islice(cases(OPS[name], (float64,)), 6):
        out = case.expected()
        if out.dtype != np.float64:
            continue
        weight = np.random.default_rng(2).normal(size=out.shape)
        static = case.values()
        expected = _weighted_gradients(static, make(case.op, static, case.attrs), case, weight)
        for inputs, value, _ in symbolic(case):
            actual = _weighted_gradients(inputs, value, case, weight)
            for a, e in zip(actual, expected):
                assert_close(a, e, case)


def _weighted_gradients(inputs, value, case, weight):
    ct = input_value("ct", value.tensor.shape, value.tensor.dtype)
    wrt = [v for v in inputs if v.tensor.dtype.is_float]
    found = gradients(value, wrt, cotangent=ct)
    assert [g.tensor for g in found] == [v.tensor for v in wrt], case
    return interpret(graph([*inputs, ct], found), [*case.operands, weight])[0]


def test_sizes_that_depend_on_symbols_are_assumed():
    x = input_value("x", (symbol("N"), 4))
    part = OPS["slice"](x, start=(0, 0), shape=(5, 4), step=(1, 1))
    ((low, high, problem),) = assumptions(part)
    assert (low, high) == (5, symbol("N")) and "slice" in problem
    with pytest.raises(GraphError, match="N = 3"):
        interpret(graph([x], [part]), [np.zeros((3, 4))])
    assert interpret(graph([x], [part]), [np.zeros((6, 4))])[0][0].shape == (5, 4)


@pytest.mark.parametrize("dtype", [d for d in DTYPES if d.startswith(("int", "uint"))])
def test_integers_divide_and_wrap_as_numpy(dtype):
    info = np.iinfo(dtype)
    edge = np.array([info.min, info.max, 0, 1, 2, 7, info.max // 2], dtype)
    edge = np.concatenate([edge, np.array([-1, -2, -7], dtype)]) if info.min else edge
    a, b = (g.ravel() for g in np.meshgrid(edge, edge))
    for name in ("add", "sub", "mul", "floordiv", "mod", "max", "min", "bitwise_and", "bitwise_xor"):
        case = Case(OPS[name], (a, b), {})
        assert_close(defined_values(case), case.expected(), case)
    quotient = defined_values(Case(OPS["floordiv"], (a, b), {}))
    assert np.all(quotient[b == 0] == 0)


def test_integer_power_is_truncated():
    base, exponent = np.array([2, 1, -1, -1, 0, 5]), np.array([-1, -3, -3, -4, -1, 2])
    assert OPS["pow"].reference(base, exponent).tolist() == [0, 1, -1, 1, 0, 25]


def test_product_gradient_where_elements_are_zero():
    for row in ([0.0, 2, 3, 5, 7], [0.0, 2, 0, 5, 7], [1.0, 2, 3, 5, 7], [0.0, 0, 0, 1, 2]):
        x = np.array([row, row[::-1]])
        for order in (1, 2):
            check_gradient(lambda v: OPS["prod"](v, axes=(1,)), [x], order, row)
        check_gradient(lambda v: OPS["prod"](v, axes=(0, 1)), [x], 2, row)


def test_extremum_ties_share_the_gradient():
    x = input_value("x", (4,))
    (g,) = gradients(total(OPS["amax"](x, axes=(0,))), [x])
    assert interpret(graph([x], [g]), [np.array([1.0, 3, 3, 0])])[0][0].tolist() == [0, 0.5, 0.5, 0]
    (g,) = gradients(total(OPS["max"](x, constant(np.ones(4)))), [x])
    assert interpret(graph([x], [g]), [np.array([0.0, 1, 2, 1])])[0][0].tolist() == [0, 0.5, 1, 0.5]


@pytest.mark.parametrize("shape, padding", [((1, 4), ((1, 1),)), ((1, 3, 3), ((1, 0), (1, 1)))])
def test_padding_never_wins_a_window(shape, padding):
    n = len(padding)
    attrs = {"kernel": (2,) * n, "stride": (1,) * n, "padding": padding, "dilation": (1,) * n}
    lowest = np.full(shape, -np.inf)
    case = Case(OPS["window_argmax"], (lowest,), {**attrs, "dtype": int64})
    assert_close(defined_values(case), case.expected(), case)
    ones = np.ones(case.expected().shape)
    put = OPS["window_put"].reference(ones, case.expected(), shape=shape[1:], **attrs)
    assert put.sum() == ones.size


def test_window_positions_from_outside_read_nothing():
    attrs = {"kernel": (2,), "stride": (2,), "padding": ((1, 1),), "dilation": (1,)}
    x, wild = np.arange(1.0, 5.0), np.array([0, -5, 99])
    case = Case(OPS["window_get"], (x, wild), attrs)
    assert_close(defined_values(case), np.zeros(3), case)
    assert_close(case.expected(), np.zeros(3), case)


@pytest.mark.parametrize("build, error, words", [
    (lambda x, w: OPS["conv"](x, w, **conv2(groups=2)), ShapeError, "3 channels, the kernel takes 3 in"),
    (lambda x, w: OPS["conv"](x, w, **conv2(dilation=(4, 4))), ShapeError, "over 9 .* padded input's 8"),
    (lambda x, w: OPS["conv"](x, w, **conv2(stride=(1,))), ShapeError, "stride .* needs 2 entries"),
    (lambda x, w: OPS["conv"](x, w, **conv2(stride=(0, 1))), GraphError, "must be positive"),
    (lambda x, w: OPS["amax"](OPS["slice"](x, start=(0,) * 4, shape=(0, 3, 8, 8), step=(1,) * 4), axes=(0,)),
     ShapeError, "nothing has no amax"),
    (lambda x, w: OPS["argmax"](x, axes=(4,)), IndexRangeError, "axes"),
    (lambda x, w: OPS["slice"](x, start=(0,) * 4, shape=(3, 3, 8, 8), step=(1,) * 4),
     ShapeError, "within its 2"),
    (lambda x, w: OPS["take"](x, w, axis=0), DTypeError, "indices must be integers"),
    (lambda x, w: OPS["concat"](x, w, axis=0), ShapeError, "except along axis 0"),
    (lambda x, w: OPS["any"](x, axes=(0,)), DTypeError, "takes bool"),
    (lambda x, w: OPS["logical_and"](x, x), DTypeError, "takes bool"),
    (lambda x, w: OPS["add"](x, w), ShapeError, "do not broadcast"),
    (lambda x, w: make(OPS["exp"], (x, x)), GraphError, "takes 1 operands, got 2"),
])
def test_wrong_uses_are_refused(build, error, words):
    x, w = input_value("x", (2, 3, 8, 8)), input_value("w", (4, 3, 3, 3))
    with pytest.raises(error, match=words) as caught:
        build(x, w)
    assert "operand 0: " in str(caught.value)


def conv2(**changes):
    return {"stride": (1, 1), "padding": ((0, 0), (0, 0)), "dilation": (1, 1), "groups": 1, **changes}

"""Misuse: each mistake gets an error of its class that names the op, the types, the line, and what is right."""

from __future__ import annotations

import os
import sys

import numpy as np
import pytest

import graphwright as gw
from graphwright import nn
from graphwright.ir.op import OPS

F = gw.placeholder("f", "float32", ("N", 4))
G = gw.placeholder("g", "float32", ("M", 4))
I = gw.placeholder("i", "int64", ("N",))  # noqa: E741
B = gw.placeholder("b", "bool", ("N",))
IMAGE = gw.placeholder("image", "float32", ("N", 3, 8, 8))
KERNEL = gw.placeholder("kernel", "float32", (6, 3, 3, 3))
W = gw.Variable(np.zeros((4, 2), np.float32), name="W")


def function(*args, **kwargs):
    return gw.function(*args, target="interpreter", **kwargs)


def refuse(mistake, error, *words):
    """The mistake raises the error, whose message has the words."""
    with pytest.raises(error) as caught:
        mistake()
    assert isinstance(caught.value, gw.GraphwrightError)
    message = str(caught.value)
    for word in words:
        assert str(word) in message, f"{word!r} is not in:\n{message}"
    return message


MISTAKES = {
    # shapes, in each family of ops
    "elementwise": (lambda: F + np.ones(3, "f4"), gw.ShapeError, "add", "f32[N, 4]", "[3]", "broadcast"),
    "two symbols": (lambda: F * G, gw.ShapeError, "mul", "f32[N, 4]", "f32[M, 4]"),
    "matmul": (lambda: F @ F, gw.ShapeError, "matmul", "4", "N"),
    "matmul of scalars": (lambda: F @ 2.0, gw.ShapeError, "matmul", "with *"),
    "batches": (lambda: gw.matmul(np.ones((2, 3, 4)), np.ones((3, 4, 5))), gw.ShapeError, "leading dimensions"),
    "tensordot": (lambda: gw.tensordot(F, F, ([0], [1])), gw.ShapeError, "dot", "f32[N, 4]"),
    "einsum": (lambda: gw.einsum("ij,ij->k", F, F), gw.GraphError, "einsum", "k"),
    "einsum sizes": (lambda: gw.einsum("ij,jk->ik", F, F), gw.ShapeError, "'j'", "4", "N"),
    "reduction": (lambda: gw.sum(F, axis=2), gw.IndexRangeError, "sum", "axis 2", "rank 2"),
    "axis twice": (lambda: gw.sum(F, axis=(0, 0)), gw.GraphError, "sum", "twice"),
    "no extreme": (lambda: gw.max(gw.zeros((0, 3)), axis=0), gw.ShapeError, "max", "no elements"),
    "reshape": (lambda: gw.reshape(F, (7, -1)), gw.ShapeError, "reshape", "4*N", "for all values"),
    "two -1": (lambda: F.reshape(-1, -1), gw.ShapeError, "reshape", "-1"),
    "permutation": (lambda: gw.permute_dims(F, (0, 0)), gw.ShapeError, "permutation"),
    "broadcast_to": (lambda: gw.broadcast_to(F, (3, 5)), gw.ShapeError, "broadcast_to", "[N, 4]", "[3, 5]"),
    "concat": (lambda: gw.concat([F, np.ones((2, 5), "f4")]), gw.ShapeError, "concat", "f32[2, 5]"),
    "concat of nothing": (lambda: gw.concat([]), gw.GraphError, "concat", "at least one"),
    "stack": (lambda: gw.stack([F, G]), gw.ShapeError, "stack", "one shape"),
    "split": (lambda: gw.split(F, 3, axis=1), gw.ShapeError, "split", "4", "3"),
    "unstack": (lambda: gw.unstack(F), gw.ShapeError, "unstack", "N"),
    "squeeze": (lambda: gw.squeeze(F, 1), gw.ShapeError, "squeeze", "size 4"),
    "pad": (lambda: gw.pad(F, ((1, 1),) * 3), gw.ShapeError, "pad"),
    "negative pad": (lambda: gw.pad(F, -1), gw.DimensionError, "pad", "-1"),
    "take": (lambda: gw.take(F, I), gw.ShapeError, "take", "axis", "rank 2"),
    "take_along_axis": (lambda: gw.take_along_axis(F, I, 1), gw.ShapeError, "take_along_axis", "rank"),
    "conv channels": (lambda: nn.conv2d(IMAGE, KERNEL[:, :2]), gw.ShapeError, "conv", "3 channels", "2"),
    "conv rank": (lambda: nn.conv2d(F, KERNEL), gw.ShapeError, "conv2d", "rank 2", "[N, C, H, W]"),
    "conv too large": (lambda: nn.conv2d(IMAGE[:, :, :2], KERNEL), gw.ShapeError, "conv", "2", "3"),
    "conv bias": (lambda: nn.conv2d(IMAGE, KERNEL, np.ones(5, "f4")), gw.ShapeError, "[N, 6, 6, 6]"),
    "conv stride": (lambda: nn.conv2d(IMAGE, KERNEL, stride=0), gw.GraphError, "conv2d", "stride", "0"),
    "conv padding": (lambda: nn.conv2d(IMAGE, KERNEL, padding="full"), gw.GraphError, "conv2d", "'full'"),
    "conv groups": (lambda: nn.conv2d(IMAGE, KERNEL, groups=4), gw.ShapeError, "conv", "groups"),
    "pool rank": (lambda: nn.max_pool2d(F, 2), gw.ShapeError, "max_pool2d", "rank 4"),
    "pool padding": (lambda: nn.max_pool2d(IMAGE, 2, padding=2), gw.GraphError, "max_pool2d", "half"),
    "layer_norm": (lambda: nn.layer_norm(F, 5), gw.ShapeError, "layer_norm", "5", "f32[N, 4]"),
    "batch_norm": (lambda: nn.batch_norm(F, np.ones(3), np.ones(3)), gw.ShapeError, "batch_norm", "running_mean"),
    "no statistics": (lambda: nn.batch_norm(F, None, None), gw.GraphError, "batch_norm", "training=True"),
    "loss shapes": (lambda: nn.mse_loss(F, F[:, :1]), gw.ShapeError, "mse_loss", "[N, 4]", "[N, 1]", "reshape"),
    "labels": (lambda: nn.cross_entropy(F, gw.expand_dims(I, 1)), gw.ShapeError, "cross_entropy", "class axis"),
    "class weight": (lambda: nn.cross_entropy(F, I, np.ones(3)), gw.ShapeError, "one element per class"),
    "reduction name": (lambda: nn.mse_loss(F, F, "average"), gw.GraphError, "mse_loss", "'average'", "'mean'"),
    "embedding": (lambda: nn.embedding(I, I), gw.ShapeError, "embedding", "[V, D]"),
    "attention": (lambda: nn.scaled_dot_product_attention(F, F[:, :3], F), gw.ShapeError, "attention", "[..., L, E]"),
    # dtypes
    "exp of integers": (lambda: gw.exp(I), gw.DTypeError, "exp", "int64", "floating-point", "astype"),
    "division of integers": (lambda: I / 2, gw.DTypeError, "div", "int64"),
    "float with integers": (lambda: I + 0.5, gw.DTypeError, "add", "0.5", "int64", "astype"),
    "integer that does not fit": (lambda: gw.astype(I, "int8") + 1000, gw.DTypeError, "1000", "int8"),
    "no common dtype": (lambda: I + gw.astype(I, "uint64"), gw.DTypeError, "int64", "uint64", "astype"),
    "logic of numbers": (lambda: gw.logical_and(F, F), gw.DTypeError, "logical_and", "bool"),
    "bits of floats": (lambda: F & F, gw.DTypeError, "bitwise_and", "float32"),
    "condition": (lambda: gw.where(I, F, F), gw.DTypeError, "where", "int64", "bool"),
    "mean of integers": (lambda: gw.mean(I), gw.DTypeError, "mean", "int64", "astype"),
    "indices": (lambda: gw.take(F, F, axis=0), gw.DTypeError, "take", "integers", "float32"),
    "float labels": (lambda: nn.nll_loss(F, F[:, 0]), gw.DTypeError, "nll_loss", "integers"),
    "softmax of integers": (lambda: nn.softmax(I), gw.DTypeError, "softmax", "int64"),
    "unknown dtype": (lambda: gw.placeholder("x", "complex64", ()), gw.DTypeError, "complex64", "float32"),
    "unknown dtype name": (lambda: gw.zeros(3, "float"  "16"), gw.DTypeError, "float16"),
    "strange operand": (lambda: F + "1", gw.GraphError, "add", "str"),
    "full": (lambda: gw.full(3, 1.5, "int32"), gw.DTypeError, "full", "1.5", "int32"),
    # dimensions
    "negative": (lambda: gw.placeholder("x", "float32", (-1,)), gw.DimensionError, "'x'", "-1"),
    "too large": (lambda: gw.placeholder("x", "float32", (2**70,)), gw.DimensionError, "2**63"),
    "overflow": (lambda: gw.zeros((2**40, 2**40)), gw.DimensionError, "full", "bytes", "2**63"),
    "overflow of a product": (lambda: gw.placeholder("x", "float64", (2**31, 2**31)), gw.DimensionError, "bytes"),
    "no dimension": (lambda: gw.placeholder("x", "float32", (1.5,)), gw.DimensionError, "1.5", "'N'"),
    "bool dimension": (lambda: gw.zeros((True,)), gw.DimensionError, "True"),
    "bad expression": (lambda: gw.placeholder("x", "float32", ("N/2",)), gw.DimensionError, "'N/2'"),
    "code": (lambda: gw.placeholder("x", "float32", ("__import__('os')",)), gw.DimensionError, "not a dimension"),
    # indexing
    "out of range": (lambda: F[:, 4], gw.IndexRangeError, "index 4", "size 4", "axis 1"),
    "negative index": (lambda: F[:, -5], gw.IndexRangeError, "index -5", "size 4"),
    "too many": (lambda: F[0, 0, 0], gw.IndexRangeError, "3 indices", "2 axes"),
    "float index": (lambda: F[0.5], gw.GraphError, "0.5", "float"),
    "mask": (lambda: F[B], gw.DTypeError, "bool mask", "gw.where"),
    "two index tensors": (lambda: F[I, I], gw.GraphError, "only one index", "gw.take"),
    "tensor bounds": (lambda: F[I[0]:], gw.GraphError, "slice bound", "must be known"),
    "step 0": (lambda: F[::0], gw.GraphError, "step"),
    "backward": (lambda: F[3:1:-1], gw.GraphError, "negative step", "[::-1]"),
    "two ellipses": (lambda: F[..., ...], gw.GraphError, "ellipsis"),
    # a tensor is no array
    "bool": (lambda: bool(F > 0), gw.GraphError, "truth value", "gw.where", "gw.function"),
    "float": (lambda: float(gw.sum(F)), gw.GraphError, "float()", "eval"),
    "int": (lambda: [1, 2][I[0]], gw.GraphError, "index", "gw.take"),
    "iteration": (lambda: list(F), gw.GraphError, "iteration", "gw.unstack"),
    "array": (lambda: np.asarray(F), gw.GraphError, "NumPy array", "eval"),
    "len": (lambda: len(F), gw.GraphError, "len", "x.shape[0]"),
    "in": (lambda: 1 in F, gw.GraphError, "in", "gw.any"),
    "assignment": (lambda: F.__setitem__(0, 1), gw.GraphError, "assignment", "gw.where"),
    # names
    "placeholder name": (lambda: gw.placeholder("two words"), gw.GraphError, "'two words'", "letters"),
    "variable name": (lambda: gw.Variable(0.0, name="1"), gw.GraphError, "'1'"),
    # functions
    "no list": (lambda: function(F, F), gw.GraphError, "inputs must be a list"),
    "not listed": (lambda: function([F], gw.sum(F) + gw.sum(G)), gw.GraphError, "'g'", "not among the inputs (f)"),
    "variable as input": (lambda: function([W], W), gw.GraphError, "placeholder", "W", "shared"),
    "intermediate as input": (lambda: function([F + 1], F), gw.GraphError, "placeholder", "add", "givens"),
    "array as input": (lambda: function([np.ones(3)], F), gw.GraphError, "placeholder", "ndarray"),
    "listed twice": (lambda: function([F, F], F), gw.GraphError, "'f'", "twice"),
    "one name": (lambda: function([F, gw.placeholder("f", "int64", ())], F), gw.GraphError, "two inputs", "'f'"),
    "output": (lambda: function([F], ["text"]), gw.GraphError, "output", "str"),
    "output keys": (lambda: function([F], {1: F}), gw.GraphError, "key 1"),
    "target": (lambda: gw.function([F], F, target="abacus"), gw.GraphError, "'abacus'", "'cpu'"),
    "update of a tensor": (lambda: function([F], updates={F: F}), gw.UpdateError, "Variable", "placeholder f"),
    "update of a name": (lambda: function([F], updates={"W": F}), gw.UpdateError, "Variable", "str"),
    "update shape": (lambda: function([], updates={W: W[:1]}), gw.UpdateError, "'W'", "f32[4, 2]", "f32[1, 2]"),
    "update dtype": (lambda: function([], updates={W: gw.astype(W, "float64")}), gw.UpdateError, "f32", "f64"),
    "two updates": (lambda: function([], updates=[(W, W), (W, W + 1)]), gw.UpdateError, "'W'", "two updates"),
    "given of another type": (lambda: function([F, I], F, givens={F: I}), gw.GraphError, "f32[N, 4]", "i64[N]"),
    "unknown dimension": (lambda: function([F], gw.zeros(("K", 2))), gw.DimensionError, "K", "N"),
    "assigned shape": (lambda: W.assign(np.zeros(3, "f4")), gw.UpdateError, "'W'", "(4, 2)", "(3,)"),
    "assigned dtype": (lambda: W.assign(np.zeros((4, 2))), gw.UpdateError, "'W'", "float32", "float64"),
    "assigned tensor": (lambda: W.assign(F), gw.UpdateError, "'W'", "updates="),
    "initial tensor": (lambda: gw.Variable(F), gw.GraphError, "array"),
    # gradients
    "gradient of a matrix": (lambda: gw.grad(F, F), gw.DifferentiationError, "not a scalar", "f32[N, 4]"),
    "gradient by integers": (lambda: gw.grad(gw.sum(F), I), gw.DifferentiationError, "'i'", "floating-point"),
    "gradient of integers": (lambda: gw.grad(gw.sum(I), F), gw.DifferentiationError, "floating-point"),
    "disconnected": (lambda: gw.grad(gw.sum(F), G), gw.DifferentiationError, "does not depend", "'g'"),
    "no derivative": (
        lambda: gw.grad(gw.sum(gw.nextafter(F, F + 1)), F), gw.DifferentiationError, "nextafter", "no derivative"),
    "cotangent": (lambda: gw.grad(F, F, cotangent=F[:, :1]), gw.ShapeError, "cotangent", "f32[N, 1]"),
    "no tensor": (lambda: gw.grad(gw.sum(F), [1.0]), gw.GraphError, "grad", "float"),
}


@pytest.mark.parametrize("case", MISTAKES.values(), ids=MISTAKES)
def test_mistakes_are_refused(case):
    refuse(*case)


def test_an_error_names_the_line_of_the_mistake_and_of_each_operand():
    a = gw.placeholder("left", "float32", ("N", 2))
    b = gw.placeholder("right", "float32", ("N", 3))
    line = sys._getframe().f_lineno
    message = refuse(lambda: a + b, gw.ShapeError)
    file = os.path.abspath(__file__)
    assert f"at {file}:{line + 1}" in message
    assert f"operand 0: f32[N, 2]  made by input at {file}:{line - 2}" in message
    assert f"operand 1: f32[N, 3]  made by input at {file}:{line - 1}" in message


def test_a_missing_input_is_named_with_its_line():
    x = gw.placeholder("forgotten", "float32", ())
    line = sys._getframe().f_lineno - 1
    refuse(lambda: function([], x * 2), gw.GraphError, "'forgotten'", f"{os.path.abspath(__file__)}:{line}")


# --- calls ---------------------------------------------------------------------------------------

ONES = np.ones((2, 4), np.float32)
CALLS = {
    "missing": (lambda f: f(ONES), gw.ArgumentError, "y"),
    "extra": (lambda f: f(ONES, ONES, ONES), gw.ArgumentError, "2 inputs", "3"),
    "unknown": (lambda f: f(ONES, z=ONES), gw.ArgumentError, "'z'"),
    "twice": (lambda f: f(ONES, ONES, x=ONES), gw.ArgumentError, ""),
    "dtype": (lambda f: f(ONES.astype("f8"), ONES), gw.ArgumentError, "x", "float64", "float32", "astype"),
    "rank": (lambda f: f(ONES[0], ONES), gw.ArgumentError, "x", "(4,)"),
    "size": (lambda f: f(ONES[:, :3], ONES), gw.ArgumentError, "x", "4", "(2, 3)"),
    "contradiction": (lambda f: f(ONES, ONES[:1]), gw.DimensionError, "1", "2"),
    "no array": (lambda f: f("text", ONES), gw.ArgumentError, "x"),
}


@pytest.mark.parametrize("target", ["interpreter", "cpu"])
@pytest.mark.parametrize("case", CALLS.values(), ids=CALLS)
def test_wrong_calls_are_refused_and_change_nothing(case, target):
    call, error, *words = case
    x, y = gw.placeholder("x", "float32", ("N", 4)), gw.placeholder("y", "float32", ("N", 4))
    v = gw.Variable(np.zeros((), np.float32))
    f = gw.function([x, y], x + y, updates={v: v + gw.sum(x * y)}, target=target)
    refuse(lambda: call(f), error, *words)
    assert v.value == 0
    f(ONES, ONES)
    assert v.value == 8


@pytest.mark.parametrize("target", ["interpreter", "cpu"])
def test_harmless_arguments_are_accepted(target):
    x = gw.placeholder("x", "float32", ("N", 4))
    f = gw.function([x], x * 2, target=target)
    a = np.arange(32, dtype=np.float32).reshape(8, 4)
    read_only = a.copy()
    read_only.setflags(write=False)
    for array in (a[::2], a[::-1], np.asfortranarray(a), read_only, a.astype(">f4"), a[:0], a.tolist()):
        np.testing.assert_array_equal(f(array), 2 * np.asarray(array, np.float32))
    assert not np.shares_memory(f(a), a)


@pytest.mark.parametrize("target", ["interpreter", "cpu"])
def test_indices_out_of_range_are_clamped(target):
    x, i = gw.placeholder("x", "float32", ("N",)), gw.placeholder("i", "int64", ("K",))
    f = gw.function([x, i], gw.take(x, i), target=target)
    a = np.float32([10, 20, 30])
    assert f(a, np.array([0, 2, -1, 99, -99, 2**62])).tolist() == [10, 30, 30, 30, 10, 30]


@pytest.mark.parametrize("target", ["interpreter", "cpu"])
def test_a_dimension_that_an_op_cannot_take_is_refused_at_the_call(target):
    x = gw.placeholder("x", "float32", ("N",))
    v = gw.Variable(np.zeros((), np.float32))
    f = gw.function([x], x[2], updates={v: v + 1}, target=target)
    assert f(np.float32([1, 2, 3])) == 3
    refuse(lambda: f(np.float32([1, 2])), gw.DimensionError, "N = 2")
    assert v.value == 1
    top = gw.function([x], gw.max(x), target=target)
    refuse(lambda: top(np.zeros(0, "f4")), gw.DimensionError, "empty")


# --- extension -----------------------------------------------------------------------------------


@pytest.fixture
def registry():
    """Ops that a test defines are gone after it."""
    from graphwright.frontends import extend

    known = set(OPS)
    yield
    for name in set(OPS) - known:
        del OPS[name]
        extend._expressions.pop(name, None)


def test_wrong_extensions_are_refused(registry):
    import sympy

    s, t = sympy.symbols("s t")
    refuse(lambda: gw.elementwise("gamma", sympy.gamma(s)), gw.GraphError, "gamma", "not supported")
    refuse(lambda: gw.elementwise("exp", s + 1), gw.GraphError, "'exp'", "exists")
    refuse(lambda: gw.elementwise("no name", s), gw.GraphError, "'no name'")
    refuse(lambda: gw.elementwise("of_one", s + t, symbols=[s]), gw.GraphError, "t")
    refuse(lambda: gw.elementwise("of_text", "x + 1"), gw.GraphError, "SymPy expression", "str")
    refuse(lambda: gw.from_sympy(s + t, {s: F}), gw.GraphError, "t", "no value")
    refuse(lambda: gw.custom_op("no_kernel", lambda x: x, None), gw.GraphError, "'no_kernel'", "functions")
    twice = gw.custom_op("wrong_vjp", lambda x: x, lambda out, x: None, vjp=lambda ct, out, x: [ct, ct])
    refuse(lambda: gw.grad(gw.sum(twice(F)), F), gw.GraphError, "wrong_vjp", "2 cotangents")

    def two_axes(x):
        if len(x.shape) != 2:
            raise ValueError("needs a matrix")
        return x.dtype, x.shape

    op = gw.custom_op("of_matrices", two_axes, lambda out, x: None)
    refuse(lambda: op(I), gw.GraphError, "of_matrices", "needs a matrix", "i64[N]")


def test_wrong_exports_are_refused(tmp_path):
    f = gw.function([F], F * 2)
    refuse(lambda: gw.export(tmp_path / "a.gwa", {}), gw.GraphError, "dict")
    refuse(lambda: gw.export(tmp_path / "a.gwa", {"f": F}), gw.GraphError, "'f'", "gw.function")
    refuse(lambda: gw.export(tmp_path / "a.gwa", {"a b": f}), gw.GraphError, "'a b'")
    refuse(lambda: gw.export(tmp_path / "a.gwa", {"f": function([F], F)}), gw.GraphError, "compiled")
    a, b = gw.Variable(0.0, name="same"), gw.Variable(1.0, name="same")
    refuse(lambda: gw.export(tmp_path / "a.gwa", {"f": gw.function([], a + b)}), gw.GraphError, "'same'")
    assert not list(tmp_path.iterdir())

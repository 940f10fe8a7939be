"""The interpreter of the loop IR: values, checks, and the meaning of every construct; kernels of all ops."""

from __future__ import annotations

import numpy as np
import pytest

from graphwright.errors import VerifyError
from graphwright.ir.dims import symbol
from graphwright.ir.dtypes import as_dtype, bool_, float32, float64, int8, int32, int64, uint8
from graphwright.ir.graph import Graph, make
from graphwright.ir.interpret_loops import Environment, evaluate, identity, interpret_kernel
from graphwright.ir.interpreter import interpret
from graphwright.ir.loops import Buffer, Const, Index, Load, Reduce, Scalar, Temp
from graphwright.ir.op import OPS
from graphwright.ir.parser import parse_kernel
from graphwright.ir.printer import print_kernel
from graphwright.ir.scalars import SCALARS, apply, cast, const, select
from graphwright.ir.verify import verify_kernel
from graphwright.passes.lower_to_loops import lower_to_loops


def run(signature, body, *inputs, **symbols):
    """The outputs of a kernel whose text is given by its signature and its statements."""
    kernel = parse_kernel(f"graphwright.loops v1\nkernel @k({signature}) {{\n{body}\n}}\n")
    verify_kernel(kernel)
    return interpret_kernel(kernel, [np.asarray(x) for x in inputs], symbols)


def f32(*values):
    return np.array(values, np.float32)


# --- statements ----------------------------------------------------------------------------------


def test_dot_product_and_map():
    a, b = (np.random.default_rng(0).normal(size=s).astype("f4") for s in ((3, 5), (5, 4)))
    (out,) = run(
        "in %a: f32[N, 5], in %b: f32[5, 4], out %y: f32[N, 4]",
        """
        parallel i = 0..N {
          vector(8) j = 0..4 {
            let t = reduce(add, k = 0..5) load %a[i, k] * load %b[k, j]
            store %y[i, j] = tanh(t)
          }
        }""",
        a,
        b,
        N=3,
    )
    assert out.dtype == np.float32
    np.testing.assert_allclose(out, np.tanh(a @ b), rtol=1e-6)


def test_accumulation_by_combiners():
    signs = ["+=", "*=", "max=", "min="]
    stores = "\n".join(f"store %y[{k}] {s} load %x[i]" for k, s in enumerate(signs))
    (out,) = run(
        "in %x: i32[4], out %y: i32[4]",
        f"for j = 0..4 {{\n store %y[j] = 2:i32\n}}\nfor i = 0..4 {{\n{stores}\n}}",
        np.array([3, -1, 5, 2], np.int32),
    )
    assert out.tolist() == [11, -60, 5, -1]


def test_accumulation_of_bools():
    (out,) = run(
        "in %x: bool[3], out %y: bool[2]",
        "store %y[0] = false\nstore %y[1] = true\n"
        "for i = 0..3 {\n store %y[0] or= load %x[i]\n store %y[1] and= load %x[i]\n}",
        np.array([False, True, False]),
    )
    assert out.tolist() == [True, False]


def test_branches_and_data_dependent_indices():
    (out,) = run(
        "in %k: i64[N], in %x: f32[5], out %y: f32[N]",
        "for i = 0..N {\n if load %k[i] >= 0:i64 {\n store %y[i] = load %x[load %k[i]]\n } else {\n"
        " store %y[i] = -1.0\n }\n}",
        np.array([4, -7, 0]),
        np.arange(5, dtype=np.float32),
        N=3,
    )
    assert out.tolist() == [4, -1, 0]


def test_one_index_is_a_row_major_position():
    (out,) = run(
        "in %x: f32[2, 3], out %y: f32[3, 2]",
        "for i = 0..6 {\n store %y[5 - i] = load %x[i]\n}",
        np.arange(6, dtype=np.float32).reshape(2, 3),
    )
    assert out.tolist() == [[5, 4], [3, 2], [1, 0]]
    with pytest.raises(VerifyError, match=r"%y\[6\] lies outside its 6 elements"):
        run("out %y: f32[3, 2]", "store %y[6] = 0.0")


def test_loops_of_no_iterations_leave_the_poison():
    (out,) = run(
        "in %x: f32[N], out %y: f32[2]",
        "for i = 0..N {\n store %y[i] = load %x[i]\n}",
        np.zeros(0, "f4"),
        N=0,
    )
    assert np.isnan(out).all()


def test_fresh_memory_is_poisoned_each_time():
    body = """
    for i = 0..2 {
      alloc %t: f32[1] local
      alloc %n: i32[1] register
      store %y[i] = load %t[0]
      store %z[i] = load %n[0]
      store %t[0] = 1.0
      store %n[0] = 1:i32
    }"""
    y, z = run("out %y: f32[2], out %z: i32[2]", body)
    assert np.isnan(y).all() and (z == np.iinfo(np.int32).max).all()


# --- checks --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("store %y[i + 1] = 0.0", r"%y\[3\] lies outside its shape \[3\]"),
        ("store %y[i - 1] = 0.0", r"%y\[-1\] lies outside"),
        ("store %y[i] = load %x[i, 2]", r"%x\[0, 2\] lies outside its shape \[3, 2\]"),
        ("store %y[i] = select(i < 0, load %x[i, 9], 0.0)", r"%x\[0, 9\]"),
        ("store %y[(i // (2*i))] = 0.0", "divides by zero"),
    ],
)
def test_accesses_are_checked(statement, message):
    text = f"for i = 0..N {{\n {statement}\n}}"
    with pytest.raises(VerifyError, match=message) as error:
        run("in %x: f32[N, 2], out %y: f32[N]", text, np.zeros((3, 2), "f4"), N=3)
    assert "in: " + statement in str(error.value)
    assert "i = " in str(error.value)


def test_inputs_are_checked():
    for bad in (np.zeros(3, "f8"), np.zeros(4, "f4"), np.zeros((3, 1), "f4")):
        with pytest.raises(VerifyError, match="input %x must be f32"):
            run("in %x: f32[N], out %y: f32[N]", "", bad, N=3)
    with pytest.raises(VerifyError, match="takes 1 inputs, got 0"):
        run("in %x: f32[N], out %y: f32[N]", "", N=3)


def test_inputs_are_never_written():
    x = np.zeros(3, "f4")
    kernel = parse_kernel("graphwright.loops v1\nkernel @k(in %x: f32[3]) {\n  store %x[0] = 1.0\n}\n")
    with pytest.raises(VerifyError, match="store to the input %x"):
        interpret_kernel(kernel, [x], {})
    assert not x.any() and x.flags.writeable


def test_unbound_names_are_reported():
    for expr in (Temp("t", float32), Index(symbol("q")), Load(Buffer("b", float32, ()), ())):
        with pytest.raises(VerifyError, match="[tqb] is n"):
            evaluate(expr, Environment())


# --- expressions ---------------------------------------------------------------------------------


def value(expr, **arrays):
    return evaluate(expr, Environment(buffers=arrays))


def test_arithmetic_keeps_its_width():
    tenth, third = Const(0.1, float32), Const(1 / 3, float32)
    result = value(apply("add", tenth, third))
    assert type(result) is np.float32
    assert result == np.float32(0.1) + np.float32(1 / 3)
    assert value(apply("add", Const(127, int8), Const(1, int8))) == -128
    assert value(apply("mul", Const(200, uint8), Const(2, uint8))) == 144


@pytest.mark.parametrize("dtype", [int32, int64, uint8], ids=str)
def test_integer_division_by_zero_is_zero(dtype):
    seven, zero = const(7, dtype), const(0, dtype)
    assert value(apply("floordiv", seven, zero)) == 0
    assert value(apply("mod", seven, zero)) == 0


def test_integer_division_rounds_down():
    a, b = const(-7, int32), const(2, int32)
    assert value(apply("floordiv", a, b)) == -4
    assert value(apply("mod", a, b)) == 1


def test_casts():
    assert value(cast(Const(-2.7, float32), int32)) == -2
    assert value(cast(Const(2.7, float32), uint8)) == 2
    assert value(cast(Const(True, bool_), float32)) == np.float32(1)
    assert value(cast(Const(300, int32), uint8)) == 44
    assert value(cast(Const(-0.5, float32), bool_)) == np.True_
    bits = value(Scalar("bitcast", (Const(1.0, float32),), int32))
    assert type(bits) is np.int32 and bits == 0x3F800000


def test_a_guarded_load_reads_nothing_where_the_guard_fails():
    x = Buffer("x", float32, (3,))
    for position, expected in ((-1, 0.0), (2, 7.0), (3, 0.0)):
        inside = apply(
            "bitand",
            apply("ge", Index(position), Index(0)),
            apply("lt", Index(position), Index(3)),
            dtype=bool_,
        )
        load = Load(x, (Index(position),), inside)
        assert value(load, x=f32(5, 6, 7)) == expected
        assert value(select(inside, load, Const(-1.0, float32)), x=f32(5, 6, 7)) == (expected or -1)


@pytest.mark.parametrize(
    ("combiner", "dtype", "expected"),
    [
        ("add", float32, 0),
        ("mul", float64, 1),
        ("max", float32, -np.inf),
        ("min", float32, np.inf),
        ("max", int8, -128),
        ("min", uint8, 255),
        ("or", bool_, False),
        ("and", bool_, True),
        ("argmax", int64, 0),
    ],
)
def test_reductions_over_nothing(combiner, dtype, expected):
    result = value(Reduce(combiner, (("k", 3), ("l", 0)), const(1, dtype), dtype))
    assert result == expected and result.dtype == dtype.numpy
    assert identity(combiner, dtype) == expected


@pytest.mark.parametrize(
    ("data", "best", "worst"),
    [
        ([1, 5, 5, 2], 1, 0),
        ([3, 3, 3, 3], 0, 0),
        ([1, np.nan, 9, np.nan], 1, 1),
        ([-np.inf] * 4, 0, 0),
        ([np.nan] * 4, 0, 0),
        ([-0.0, 0.0, -0.0, 0.0], 0, 0),
    ],
)
def test_positions_of_extrema_are_the_first_and_nan_wins(data, best, worst):
    x = Buffer("x", float32, (2, 2))
    load = Load(x, (Index(symbol("k")), Index(symbol("l"))))
    axes = (("k", 2), ("l", 2))
    array = f32(*data).reshape(2, 2)
    assert value(Reduce("argmax", axes, load, int64), x=array) == best == np.argmax(array)
    assert value(Reduce("argmin", axes, load, int64), x=array) == worst == np.argmin(array)


def test_extrema_propagate_nan():
    x = Buffer("x", float32, (3,))
    for combiner in ("max", "min"):
        reduced = Reduce(combiner, (("k", 3),), Load(x, (Index(symbol("k")),)), float32)
        assert np.isnan(value(reduced, x=f32(1, np.nan, 2)))


def test_a_reduction_hides_nothing_afterwards():
    env = Environment(symbols={"i": 2})
    total = evaluate(Reduce("add", (("k", symbol("i")),), Index(symbol("k") + symbol("i")), int64), env)
    assert total == 5 and env.symbols == {"i": 2}


def test_shared_subexpressions_are_evaluated_once():
    expr = Const(1.0, float32)
    for _ in range(100):  # as a tree, 2**100 nodes
        expr = apply("sub", expr, apply("mul", expr, Const(0.5, float32)))
    assert value(expr) == np.float32(0.5**100)


@pytest.mark.parametrize("op", SCALARS.values(), ids=lambda op: op.name)
def test_every_scalar_gives_its_dtype(op):
    integer = op.name in ("bitand", "bitor", "bitxor", "bitnot", "shl", "shr", "floordiv", "mod", "ipow")
    dtype = int32 if integer else float32
    args = [const(k + 1, dtype) for k in range(op.arity)]
    if op.name == "select":
        args[0] = Const(True, bool_)
    result = value(apply(op.name, *args))
    wanted = apply(op.name, *args).dtype
    assert result.dtype == wanted.numpy and result.shape == ()


# --- kernels of ops ------------------------------------------------------------------------------

LOWERED = [op for op in OPS.values() if op.kind not in ("leaf", "region", "view") and list(op.samples())]


@pytest.mark.parametrize("op", LOWERED, ids=lambda op: op.name)
def test_the_kernel_of_every_op_means_what_the_op_means(op):
    for sample in op.samples():
        arrays = [np.asarray(a) for a in sample.operands]
        arrays = [a.astype(np.float32) if a.dtype == np.float64 else a for a in arrays]
        if sum(a.size for a in arrays) > 1000:
            continue  # the larger samples add nothing here but time
        operands = [
            OPS["input"](name=f"x{k}", shape=a.shape, dtype=as_dtype(a.dtype)) for k, a in enumerate(arrays)
        ]
        graph = Graph("f", tuple(operands), (), (make(op, operands, {**op.attrs, **sample.attrs}),))
        kernel = lower_to_loops(graph, op.name)
        verify_kernel(kernel)
        text = print_kernel(kernel)
        again = parse_kernel(text)
        verify_kernel(again)
        assert print_kernel(again) == text
        (result,) = interpret_kernel(again, arrays, {})
        (expected,), _ = interpret(graph, arrays)
        assert result.dtype == expected.dtype
        np.testing.assert_allclose(result, expected, rtol=2e-4, atol=1e-5)

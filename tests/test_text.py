"""Print, parse, print is the identity, for graphs, kernels and programs; and what is no text is refused."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphwright.errors import ParseError, VerifyError
from graphwright.ir.dims import dim_max, dim_min, floordiv, isqrt, mod, symbol
from graphwright.ir.dtypes import DTYPES, as_dtype, bool_, float32, float64, int32, int64, uint64
from graphwright.ir.graph import Graph, Literal, Loc, make
from graphwright.ir.loops import (
    Buffer,
    Const,
    For,
    Foreign,
    If,
    Index,
    Kernel,
    Let,
    Load,
    Reduce,
    Scalar,
    Store,
    Temp,
)  # fmt: skip
from graphwright.ir.op import OPS
from graphwright.ir.ops import structure
from graphwright.ir.parser import parse_graph, parse_kernel, parse_program
from graphwright.ir.printer import print_graph, print_kernel, print_program
from graphwright.ir.scalars import apply, cast, select
from graphwright.ir.verify import verify_graph, verify_kernel
from graphwright.ir.verify_program import verify_program

GRAPH = """\
graphwright.graph v1
func @train(%x: f32[N, 772], %y: i64[N]) state(%W: f32[772, 13], %b: f32[13]) -> (f32[N, 13], f32[]) {
  %0 = dot %x, %W {contract = ((1), (0))} : f32[N, 13]        loc("text.py":9)
  %1 = broadcast %b {dims = (1)} : f32[N, 13]
  %2 = add %0, %1 : f32[N, 13]                                loc("text.py":10 grad)
  %hidden = mul %2, 0.1 : f32[N, 13]
  %3 = constant dense<[[1.0, -0.0], [nan, inf]]> : f32[2, 2]
  %4 = sum %3 {axes = (0, 1)} : f32[]
  %5 = add 1e-05, %4 : f32[]
  %6 = sum %2 {axes = (0)} : f32[13]
  update %b = %6
  return %hidden, %5
}
"""

FUSED = """\
graphwright.graph v1
func @f(%x: f32[N], %"a b": bool[N]) -> (f32[N]) {
  %0 = fusion %x, %"a b" {reason = "map of 2 ops"} (%p0: f32[N], %p1: bool[N]) -> (f32[N], f32[N]) {
    %0 = exp %p0 : f32[N]
    %1 = where %p1, %0, 0.0 : f32[N]
    return %0, %1
  } : (f32[N], f32[N])                                        loc("text.py":3)
  %1 = item %0 {index = 1} : f32[N]
  return %1
}
"""

KERNEL = """\
graphwright.loops v1
kernel @all(in %x: f32[N, 8], in %k: i64[N], out %y: f32[N, 8], out %z: f64[]) symbols(M, N) \
inplace(%y = %x) {
  note "fused: saves 64*N bytes"
  alloc %acc: f32[6, 16] register
  parallel i = 0..N {
    let t0 = reduce(add, j = 0..8) load %x[i, j] * 2.0
    let best = reduce(argmax, j = 0..8) load %x[i, j] if j >= 1
    vector(8) j = 0..min(8, N - i) {
      if i < N - 1 and not t0 == -inf or false {
        store %y[i, j] = select(best < j, -t0, exp(load %x[i, j] - t0) / (t0 + 1.0))
      } else {
        store %y[i, j] += cast<f32>(i + 2*j) * t0
      }
    }
    unroll(4) u = 0..4 {
      for v = 0..((N + 3) // 4) {
        store %acc[u, v % 16] max= (load %x[i, u] if v % 4 < 2) * t0
      }
    }
    store %z[] = 1.0:f64 - (2.0:f64 - 3.5:f64)
    store %y[i * 8 + 1] = load %x[load %k[i], 0]
  }
}
"""

PROGRAM = """\
graphwright.program v1
program @train symbols(N) arena(max(128, 64*N) + 512) {
  input %x: f32[N, 8]
  state %W: f32[8]
  output %out.0: f32[N, 8]
  temp %tmp.0: f32[N, 8] at 512
  temp %view.1: f32[8*N] alias %tmp.0
  constant %const.0: f32[2] = dense<[1.0, 2.5]>
  call @double(%x) -> (%tmp.0)                                loc("text.py":4) loc("text.py":5)
  call @double(%tmp.0) -> (%out.0)
}

kernel @double(in %in0: f32[N, 8], out %out0: f32[N, 8]) inplace(%out0 = %in0) {
  for i = 0..N {
    for j = 0..8 {
      store %out0[i, j] = load %in0[i, j] * 2.0
    }
  }
}
"""


def in_function(body: str, types: str) -> str:
    return f"graphwright.graph v1\nfunc @f(%x: f32[N]) -> ({types}) {{\n{body}\n}}\n"


# --- graphs --------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [FUSED, GRAPH], ids=["fused", "train"])
def test_graph_text_is_canonical(text):
    graph = parse_graph(text)
    verify_graph(graph)
    assert print_graph(graph) == text
    assert print_graph(parse_graph(print_graph(graph))) == text


def test_parsed_graph_is_the_interned_one():
    graph = parse_graph(GRAPH)
    again = parse_graph(print_graph(graph))
    assert again.outputs == graph.outputs
    assert again.updates == graph.updates
    assert [again.names[v] for v in again.outputs if v in again.names] == ["hidden"]


def sample_graphs(op):
    for sample in op.samples():
        operands = []
        for k, array in enumerate(map(np.asarray, sample.operands)):
            dtype = float32 if array.dtype == np.float64 else as_dtype(array.dtype)
            operands.append(OPS["input"](name=f"x{k}", shape=array.shape, dtype=dtype))
        value = make(op, operands, {**op.attrs, **sample.attrs})
        yield Graph("f", tuple(operands), (), (value,))


@pytest.mark.parametrize("op", [op for op in OPS.values() if list(op.samples())], ids=lambda op: op.name)
def test_every_op_round_trips(op):
    for graph in sample_graphs(op):
        verify_graph(graph)
        text = print_graph(graph)
        again = parse_graph(text)
        assert again.outputs == graph.outputs
        assert print_graph(again) == text


def test_literals_keep_their_value_and_type():
    x = OPS["input"](name="x", shape=(3,), dtype=float32)
    for number in (0.1, -0.0, float("inf"), float("-inf"), float("nan"), 1e300, 5e-324, 1 / 3):
        graph = Graph("f", (x,), (), (OPS["add"](x, number),))
        assert parse_graph(print_graph(graph)).outputs == graph.outputs
    graph = Graph("f", (x,), (), (OPS["where"](OPS["lt"](x, 0.5), x, 0.0),))
    text = print_graph(graph)
    assert "lt %x, 0.5" in text and "where %0, %x, 0.0" in text
    assert parse_graph(text).outputs == graph.outputs


def test_full_is_written_out_where_its_dtype_would_not_show():
    one = make(OPS["full"], (), {"shape": (3,), "value": 1.0, "dtype": float32})
    graph = Graph("f", (), (), (OPS["lt"](one, one),))
    text = print_graph(graph)
    assert "%0 = full {value = 1.0} : f32[3]" in text
    assert parse_graph(text).outputs == graph.outputs


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (2, 3), (0, 2), (40,)], ids=str)
def test_constants_keep_every_bit(dtype, shape):
    raw = np.random.default_rng(0).integers(0, 256, (*shape, dtype.itemsize), dtype=np.uint8)
    array = (raw > 127)[..., 0] if dtype.is_bool else raw.reshape(-1).view(dtype.numpy).reshape(shape)
    graph = Graph("f", (), (), (make(OPS["constant"], (), {"value": Literal(array)}),))
    text = print_graph(graph)
    again = parse_graph(text).outputs[0].attrs["value"].array
    assert again.dtype == array.dtype and again.shape == array.shape and again.tobytes() == array.tobytes()
    assert print_graph(parse_graph(text)) == text


def test_hex_floats_are_read():
    graph = parse_graph(in_function("  %0 = mul %x, 0x1.8p+1 : f32[N]\n  return %0", "f32[N]"))
    assert graph.outputs[0].operands[1].attrs["value"] == 3.0


def test_names_that_are_no_identifiers_are_quoted():
    n = symbol("N")
    x, y = (OPS["input"](name=name, shape=(n,), dtype=float32) for name in ("dense/kernel:0", "0"))
    graph = Graph("a graph", (x, y), (), (OPS["add"](x, y),))
    text = print_graph(graph)
    assert 'func @"a graph"(%"dense/kernel:0": f32[N], %"0": f32[N])' in text
    assert parse_graph(text).inputs == (x, y)


def test_paths_are_reduced_to_their_last_part():
    x = OPS["input"](name="x", shape=(3,), dtype=float32)
    y = make(OPS["exp"], (x,), {}, loc=Loc("/home/someone/model.py", 12))
    assert print_graph(Graph("f", (x,), (), (y,))).count('loc("model.py":12)') == 1


n, m = symbol("N"), symbol("M")
DIMS = [
    7,
    n,
    2 * n + 1,
    n * m - 3,
    floordiv(n, 2),
    floordiv(n, 2) * 4 + 1,
    mod(n + m, 8),
    dim_max(n, m),
    n * n * m,
    floordiv(n, 2 * m),
    floordiv(floordiv(n + 1, 2) + m, 3),
    dim_min(8, n - 8 * m),
    isqrt(n),
    isqrt(n + 3) * m + 1,
    floordiv(n, dim_max(1, isqrt(n))),
    mod(n, m * floordiv(n, 3)),
    -n + m,
]


@pytest.mark.parametrize("dim", DIMS, ids=str)
def test_dims_round_trip_in_types_and_attributes(dim):
    x = OPS["input"](name="x", shape=(dim, n), dtype=float32)
    flat = OPS["reshape"](x, shape=(dim * n,))
    graph = Graph("f", (x,), (), (flat,))
    again = parse_graph(print_graph(graph))
    assert again.inputs[0].shape == (dim, n)
    kernel = Kernel(
        "k", (), (Buffer("y", int64, ()),), (Store(Buffer("y", int64, ()), (), Index(dim)),), ("M", "N")
    )
    assert parse_kernel(print_kernel(kernel)).body[0].value == Index(dim)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("  %0 = exp %y : f32[N]\n  return %0", "line 3, column 12: %y is not defined above"),
        ("  %0 = expp %x : f32[N]\n  return %0", "unknown op 'expp'; did you mean exp"),
        ("  %0 = exp %x : f32[M]\n  return %0", "exp gives f32[N], the text says f32[M]"),
        ("  %0 = exp %x : f33[N]\n  return %0", "expected a dtype"),
        ("  %0 = exp %x, %x : f32[N]\n  return %0", "line 3"),
        ("  %0 = exp %x {foo = 1} : f32[N]\n  return %0", "no attribute 'foo'"),
        ("  %0 = sum %x : f32[]\n  return %0", "needs the attribute 'axes'"),
        ("  %0 = exp %x : f32[N]\n  %0 = exp %x : f32[N]\n  return %0", "is defined already"),
        ("  %0 = constant dense<[1, 2]> : f32[3]\n  return %x", "2 elements given, 3 needed"),
        ("  %0 = constant dense<[1.5]> : i8[1]\n  return %x", "not all int8"),
        ("  %0 = constant dense<[300]> : i8[1]\n  return %x", "line 3"),
        ('  %0 = constant dense<"!"> : i8[1]\n  return %x', "line 3"),
        ("  return %x, %x", "1 values must be returned"),
        ("  update %x = %x\n  return %x", "not a state"),
        ("  %0 = exp %x : f32[N // 0]\n  return %0", "divided by zero"),
        ("  %0 = exp %x : f32[" + "(" * 500 + "\n  return %0", "nested deeper"),
        ("  %0 = add %x, " + "9" * 5000 + " : f32[N]\n  return %0", "too large"),
        ("  %0 = exp %x : f32[(A+B)*(C+D)*(E+F)*(G+H)*(I+J)*(K+L)*(P+Q)*(R+S)*(T+U)]", "more than 256 terms"),
        ("  %0 = exp %x : f32[N**999999999]", "2 to 64"),
        ("  %0 = § %x", "unexpected character"),
    ],
)
def test_a_wrong_graph_is_refused_at_its_place(body, message):
    with pytest.raises(ParseError) as error:
        parse_graph(in_function(body, "f32[N]"))
    assert message in str(error.value)
    assert str(error.value).startswith(("line 3", "line 4")) and "^" in str(error.value)


def test_the_version_line_is_required():
    for text in (
        "",
        "// only a comment\n",
        GRAPH.replace("v1", "v2", 1),
        KERNEL,
        "func @f() -> () {\n  return\n}",
    ):
        with pytest.raises(ParseError, match="version line"):
            parse_graph(text)


def test_comments_stand_on_lines_of_their_own():
    text = "// a comment\n\n" + GRAPH.replace("  update", "  // another: N // 2\n  update")
    assert print_graph(parse_graph(text)) == GRAPH


# --- kernels -------------------------------------------------------------------------------------


def test_kernel_text_is_canonical():
    kernel = parse_kernel(KERNEL)
    text = print_kernel(kernel)
    assert print_kernel(parse_kernel(text)) == text
    assert text.splitlines()[:12] == KERNEL.splitlines()[:12]
    assert kernel.symbols == ("M", "N") and kernel.inplace == ((0, 0),)
    assert kernel.notes == ("fused: saves 64*N bytes",)
    assert [type(s).__name__ for s in kernel.body] == ["Alloc", "For"]


def test_foreign_kernels_round_trip():
    text = (
        "graphwright.loops v1\nkernel @k(in %x: f32[N], in %w: f32[4], out %y: f32[N]) {\n"
        "  foreign @blur(%x, %w, %x) -> (%y)\n}\n"
    )
    kernel = parse_kernel(text)
    (s,) = kernel.body
    assert isinstance(s, Foreign)
    assert (s.op, s.inputs, s.outputs) == ("blur", (*kernel.inputs, kernel.inputs[0]), kernel.outputs)
    assert print_kernel(kernel) == text
    with pytest.raises(VerifyError, match="no op 'blur' with a kernel of its own\n  in: foreign @blur"):
        verify_kernel(kernel)


X, Y = Buffer("x", float32, (n, 8)), Buffer("y", float32, (n,))
i, j = symbol("i"), symbol("j")
LOAD = Load(X, (Index(i), Index(j)))
A, B, C = (Temp(name, float32) for name in "abc")
FLAG = Temp("flag", bool_)


def mul(*args):
    return apply("mul", *args)


EXPRESSIONS = [
    (apply("add", A, mul(B, C)), "a + b * c"),
    (mul(apply("add", A, B), C), "(a + b) * c"),
    (apply("sub", A, apply("sub", B, C)), "a - (b - c)"),
    (apply("sub", apply("sub", A, B), C), "a - b - c"),
    (apply("neg", apply("neg", A)), "--a"),
    (apply("neg", mul(A, B)), "-(a * b)"),
    (mul(apply("neg", A), B), "-a * b"),
    (apply("neg", Const(1.0, float32)), "neg(1.0)"),
    (apply("sub", A, Const(-1.0, float32)), "a - -1.0"),
    (select(apply("lt", A, B), A, Const(0.0, float32)), "select(a < b, a, 0.0)"),
    (apply("bitand", apply("lt", A, B), apply("bitnot", FLAG)), "a < b and not flag"),
    (apply("bitnot", apply("bitor", FLAG, FLAG)), "not (flag or flag)"),
    (apply("eq", apply("lt", A, B), FLAG), "(a < b) == flag"),
    (cast(Index(2 * i + 1), float32), "cast<f32>(2*i + 1)"),
    (mul(Index(i + 1), Index(j)), "index(i + 1) * j"),
    (apply("max", Index(i), Index(j)), "max(index(i), j)"),
    (Index(dim_max(i, j)), "max(i, j)"),
    (apply("add", Index(i), Const(1, int64)), "i + 1:i64"),
    (apply("lt", Index(i), Index(n - 1)), "i < N - 1"),
    (apply("floordiv", Temp("p", int64), Index(2)), "p // 2"),
    (Index(floordiv(i, 2)), "(i // 2)"),
    (Scalar("add", (A, B), float64), "add<f64>(a, b)"),
    (Const(1.0, float64), "1.0:f64"),
    (Const(2, float32), "2:f32"),
    (Const(2**64 - 1, uint64), "18446744073709551615:u64"),
    (Const(float("-inf"), float32), "-inf"),
    (Const(-0.0, float32), "-0.0"),
    (Index(i, int32), "index<i32>(i)"),
    (Load(X, LOAD.indices, apply("ge", Index(i), Index(1))), "load %x[i, j] if i >= 1"),
    (mul(Load(X, LOAD.indices, FLAG), A), "(load %x[i, j] if flag) * a"),
    (
        mul(A, Reduce("add", (("k", 8),), Load(X, (Index(i), Index(symbol("k")))), float32)),
        "a * (reduce(add, k = 0..8) load %x[i, k])",
    ),
    (Reduce("argmax", (("k", 8), ("l", n)), A, int64), "reduce(argmax, k = 0..8, l = 0..N) a"),
    (Reduce("add", (), A, float32), "reduce(add) a"),
    (apply("fma", A, B, mul(A, B)), "fma(a, b, a * b)"),
    (Scalar("bitcast", (A,), int32), "bitcast<i32>(a)"),
]


def kernel_of(expr, name="t"):
    lets = [Let(t.name, Const(0.0, float32)) for t in (A, B, C)]
    lets += [Let("flag", Const(True, bool_)), Let("p", Const(0, int64))]
    inner = For("j", 8, (*lets, Let(name, expr)))
    return Kernel("k", (X,), (Y,), (For("i", n, (inner,)),), ("N",))


@pytest.mark.parametrize(("expr", "text"), EXPRESSIONS, ids=[t for _, t in EXPRESSIONS])
def test_expression_text(expr, text):
    kernel = kernel_of(expr)
    printed = print_kernel(kernel)
    assert f"let t = {text}\n" in printed
    again = parse_kernel(printed)
    assert again.body[0].body[0].body[-1].value == expr
    assert print_kernel(again) == printed


def test_shared_subexpressions_are_written_once_and_stay_shared():
    expr = A
    for _ in range(60):  # as a tree, 2**60 nodes
        expr = apply("add", mul(expr, B), expr)
    text = print_kernel(kernel_of(expr))
    assert len(text) < 10_000 and "$0 = " in text
    again = parse_kernel(text)
    assert print_kernel(again) == text
    verify_kernel(again)


def test_a_shared_subexpression_may_use_the_axis_of_a_reduction():
    k = Index(symbol("k"))
    heavy = apply("exp", mul(Load(X, (Index(i), k)), apply("add", A, mul(B, C))))
    expr = Reduce("add", (("k", 8),), mul(heavy, heavy), float32)
    text = print_kernel(kernel_of(expr))
    assert "$0 = exp(load %x[i, k]" in text and "$0 * $0" in text
    assert parse_kernel(text).body[0].body[0].body[-1].value == expr
    with pytest.raises(ParseError, match="needs k"):
        parse_kernel(text.replace("reduce(add, k = 0..8) ", ""))


def test_deep_expressions_round_trip():
    expr = A
    for _ in range(300):
        expr = apply("exp", apply("neg", expr))
    text = print_kernel(kernel_of(expr))
    assert print_kernel(parse_kernel(text)) == text


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("store %q[0] = 1.0", "unknown buffer %q"),
        ("store %y[0] = z", "unknown name 'z'"),
        ("store %y[0, 0, 0] = 1.0", "has 1 axes, indexed with 3"),
        ("store %y[0] = exp(1.0, 2.0)", "exp takes 1 arguments"),
        ("store %y[0] = foo(1.0)", "unknown scalar op 'foo'"),
        ("store %y[0] = 1.0 < 2.0 < 3.0", "do not chain"),
        ("store %y[0] = 1.0 +", "unknown name 'store'"),
        ("store %y[0] -= 1.0", "expected one of = += *="),
        ("for N = 0..4 {", "has a meaning here already"),
        ("for q = 1..4 {", "loops start at 0"),
        ("let if = 1.0", "reserved word"),
        ("unroll q = 0..N {\n}", "must be an integer"),
        ("alloc %y: f32[3] local", "exists already"),
        ("alloc %q: f32[3] heap", "expected one of register"),
        ("foreign @op(%q) -> (%y)", "unknown buffer %q"),
        ("foreign op() -> (%y)", "an op's name"),
        ("let t = $0", "$0 is not defined just above"),
        ("let t = " + "(" * 300, "nested deeper"),
        ("let t = " + "-" * 300 + "N", ""),
        ("let t = reduce(sum, k = 0..3) 1.0", "unknown combiner"),
    ],
)
def test_a_wrong_kernel_is_refused_at_its_place(line, message):
    text = f"graphwright.loops v1\nkernel @k(out %y: f32[N]) {{\n  {line}\n  store %y[0] = 0.0\n}}\n"
    if not message:
        assert parse_kernel(text).name == "k"
        return
    with pytest.raises(ParseError) as error:
        parse_kernel(text)
    assert message in str(error.value)


# --- programs ------------------------------------------------------------------------------------


def test_program_text_is_canonical():
    program = parse_program(PROGRAM)
    verify_program(program, {"N": 3})
    assert print_program(program) == PROGRAM
    assert program.slot("view.1").alias == "tmp.0"
    assert program.calls[0].locs == (Loc("text.py", 4), Loc("text.py", 5))
    assert program.constants["const.0"].tolist() == [1.0, 2.5]


def test_a_wrong_program_is_refused():
    for old, new, message in [
        ("call @double(%x)", "call @triple(%x)", "no kernel @triple"),
        ("call @double(%x)", "call @double(%x, %x)", "takes 1 and gives 1"),
        ("call @double(%x)", "call @double(%q)", "unknown buffer %q"),
        ("alias %tmp.0", "alias %tmp.9", "unknown buffer"),
        ("  state %W", "  stage %W", "expected a slot"),
    ]:
        with pytest.raises(ParseError, match=message):
            parse_program(PROGRAM.replace(old, new))


# --- verification --------------------------------------------------------------------------------


def test_verify_graph_names_the_fault():
    x, y = (OPS["input"](name=name, shape=(n,), dtype=float32) for name in "xy")
    w = OPS["state"](name="w", shape=(n,), dtype=float32)
    out = OPS["add"](x, y)
    for graph, message in [
        (Graph("f", (x,), (), (out,)), "'y' is used but is not in the signature"),
        (Graph("f", (x, x), (), (x,)), "taken twice"),
        (Graph("f", (x, out), (), (x,)), "stands among the inputs"),
        (Graph("f", (x, y), (), (x,), ((w, x),)), "not a state"),
        (Graph("f", (x, y), (w,), (x,), ((w, x), (w, y))), "updated twice"),
        (Graph("f", (x, y), (w,), (x,), ((w, OPS["sum"](x, axes=(0,))),)), "updates 'w'"),
    ]:
        with pytest.raises(VerifyError, match=message):
            verify_graph(graph)


def test_verify_graph_infers_types_again():
    x = OPS["input"](name="x", shape=(5,), dtype=float32)
    y = make(OPS["exp"], (x,), {"__none__": 0} if "__none__" in OPS["exp"].attrs else {})
    kept = y.type
    try:
        y.type = x.type.with_shape((6,))
        with pytest.raises(VerifyError, match=r"exp of type f32\[6\].*its type rule gives f32\[5\]"):
            verify_graph(Graph("f", (x,), (), (y,)))
    finally:
        y.type = kept


def test_verify_graph_looks_into_regions():
    x = OPS["input"](name="x", shape=(n,), dtype=float32)
    stray = OPS["input"](name="stray", shape=(n,), dtype=float32)
    region = Graph("region", (x,), (), (OPS["add"](x, stray),))
    fused = make(structure.fusion, (x,), {"reason": ""}, (region,))
    with pytest.raises(VerifyError, match="'stray'"):
        verify_graph(Graph("f", (x,), (), (fused,)))


@pytest.mark.parametrize(
    ("stmt", "message"),
    [
        (Store(Y, (Index(i),), Const(1, int64)), "stores i64 to %y of f32"),
        (Store(X, (Index(0), Index(0)), Const(1.0, float32)), "stores to the input %x"),
        (Store(Y, (Index(symbol("q")),), Const(1.0, float32)), "uses q"),
        (Store(Y, (Const(1.0, float32),), Const(1.0, float32)), "the index 1.0 of %y is f32"),
        (Store(Buffer("q", float32, ()), (), Const(1.0, float32)), "%q is not defined here"),
        (Store(Buffer("y", float32, (n, 2)), (Index(0), Index(0)), Const(1.0, float32)), "is accessed as"),
        (Store(Y, (Index(0),), A), "a is not bound here"),
        (Store(Y, (Index(0),), apply("add", Const(1.0, float32), Const(1, int64))), "add joins f32 and i64"),
        (
            Store(Y, (Index(0),), Scalar("lt", (Const(1.0, float32),) * 2, float32)),
            "lt of f32 is bool, not f32",
        ),
        (Store(Y, (Index(0),), Scalar("nothing", (), float32)), "no scalar op nothing"),
        (Store(Y, (Index(0),), Const(1.0, float32), "sub"), "unknown combiner"),
        (Store(Y, (Index(0),), Load(X, (Index(0), Index(0)), Index(1))), "the guard 1 is i64"),
        (Let("t", Const(300, as_dtype("int8"))), "300 is no i8"),
        (Let("t", Reduce("add", (("i", 3),), Index(i), int64)), "i has a meaning here already"),
        (Let("inf", Const(1.0, float32)), "reserved word"),
        (If(Const(1, int64), ()), "the condition is i64"),
        (For("N", 3, ()), "N has a meaning here already"),
        (For("q", symbol("r"), ()), "the extent uses r"),
        (For("q", n, (), "unroll"), "must be an integer"),
        (For("q", n, (), "sideways"), "unknown kind of loop"),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_verify_kernel_names_the_fault(stmt, message):
    kernel = Kernel("k", (X,), (Y,), (For("i", n, (stmt,)),), ("N",))
    with pytest.raises(VerifyError, match=r"(?s)@k.*" + message.replace("[", r"\[")):
        verify_kernel(kernel)


def test_registers_need_constant_indices():
    text = """\
graphwright.loops v1
kernel @k(out %y: f32[N]) {
  alloc %acc: f32[4] register
  unroll u = 0..4 {
    store %acc[u] = 0.0
  }
  for i = 0..4 {
    store %acc[i] = 0.0
  }
}
"""
    with pytest.raises(VerifyError, match=r"%acc\[i\] varies at run time"):
        verify_kernel(parse_kernel(text))
    verify_kernel(parse_kernel(text.replace("for i", "unroll i")))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "call @double(%x) -> (%tmp.0)",
            "call @double(%out.0) -> (%tmp.0)",
            "reads %out.0 before it is written",
        ),
        ("call @double(%tmp.0) -> (%out.0)", "call @double(%tmp.0) -> (%tmp.0)", "%out.0 is never written"),
        ("call @double(%tmp.0) -> (%out.0)", "call @double(%tmp.0) -> (%x)", "writes %x, which is an input"),
        ("call @double(%x) ", "call @double(%W) ", r"%W is f32\[8\], %in0 is f32\[N, 8\]"),
        ("temp %tmp.0: f32[N, 8] at 512", "temp %tmp.0: f32[N, 8] at 520", "not aligned"),
        ("temp %tmp.0: f32[N, 8] at 512", "temp %tmp.0: f32[N, 8] at 4096", "not inside the arena"),
        ("state %W: f32[8]", "state %W: f32[Q]", "unknown symbol Q"),
        ("state %W: f32[8]", "state %W: f32[8] at 0", "%W has an offset"),
    ],
)
def test_verify_program_names_the_fault(old, new, message):
    assert old in PROGRAM
    with pytest.raises(VerifyError, match=message):
        verify_program(parse_program(PROGRAM.replace(old, new)), {"N": 3})


CHAIN = """\
graphwright.program v1
program @chain arena(192) {
  input %x: f32[8]
  output %y: f32[8]
  temp %a: f32[8] at 0
  temp %b: f32[8] at OFFSET
  call @next(%x) -> (%a)
  call @next(%a) -> (%b)
  call @next(%LAST) -> (%y)
}

kernel @next(in %in0: f32[8], out %out0: f32[8]) inplace(%out0 = %in0) {
  for i = 0..8 {
    store %out0[i] = load %in0[i] + 1.0
  }
}
"""


def test_live_buffers_must_not_overlap():
    def chain(offset, last="b", kernel="inplace(%out0 = %in0) "):
        text = CHAIN.replace("OFFSET", str(offset)).replace("LAST", last)
        return parse_program(text.replace("inplace(%out0 = %in0) ", kernel))

    verify_program(chain(64))
    verify_program(chain(0))  # %b takes the memory of %a, which dies there, in place
    with pytest.raises(VerifyError, match="%a .* and %b .* overlap"):
        verify_program(chain(0, last="a"))
    with pytest.raises(VerifyError, match="%a .* and %b .* overlap"):
        verify_program(chain(0, kernel=""))


# --- hostile texts -------------------------------------------------------------------------------

WORDS = """\
graphwright.graph func kernel program ( ) { } [ ] @f %x %0 : f32 [N] -> = , exp add dot full constant
dense < > 0 1.5 - // % ** max "a " \\ | loc reduce load store if else let for i .. in out return update $0
fusion where {axes=(0)} 9e999
"""
PIECES = st.sampled_from([*WORDS.split(), " ", "\n"])
READERS = [(parse_graph, GRAPH), (parse_graph, FUSED), (parse_kernel, KERNEL), (parse_program, PROGRAM)]


@settings(max_examples=150, deadline=None)
@given(
    which=st.integers(0, 3), cuts=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 9), PIECES), max_size=6)
)
def test_mutilated_texts_raise_only_parse_errors(which, cuts):
    read, text = READERS[which]
    head = text.index("\n") + 1
    for where, length, piece in cuts:
        at = head + int(where * (len(text) - head))
        text = text[:at] + piece + text[at + length :]
    with contextlib.suppress(ParseError):  # the only way in which a text may be refused
        read(text)


@settings(max_examples=100, deadline=None)
@given(which=st.integers(0, 3), pieces=st.lists(st.one_of(PIECES, st.text(max_size=3)), max_size=40))
def test_garbage_raises_only_parse_errors(which, pieces):
    read, text = READERS[which]
    with pytest.raises(ParseError):
        read(text.splitlines()[0] + "\nfunc @f(" + " ".join(pieces))

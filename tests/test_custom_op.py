"""Ops that users define: kernels that Numba compiles into the program, and functions given by SymPy."""

from __future__ import annotations

import math
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import sympy

import graphwright as gw
from graphwright.compiler.driver import compile_graph
from graphwright.compiler.target import CudaTarget
from graphwright.errors import CompileError, GraphError, VerifyError
from graphwright.ir.interpret_loops import interpret_kernel
from graphwright.ir.op import OPS
from graphwright.ir.parser import parse_kernel
from graphwright.ir.verify import verify_kernel

rng = np.random.default_rng(0)
TABLE = np.array([1.0, 10.0, 100.0])
LARGE = np.arange(300_000.0)


pytestmark = pytest.mark.usefixtures("registry")


def like_first(*types):
    return types[0].dtype, types[0].shape


def scan(out, x, w):
    """A recurrence along rows: no map, no reduction."""
    for i in range(x.shape[0]):
        s = 0.0
        for j in range(x.shape[1]):
            s = s * w[j] + np.tanh(x[i, j])
            out[i, j] = s


def scan_vjp(ct, out, x, w):
    return [gw.stop_gradient(out) * ct, None]


def kernels_of(f):
    return f.ir("loops").count("kernel @")


# --- values --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_value_gradient_and_neighbours_at_all_sizes(dtype):
    op = gw.custom_op("scan_rows", like_first, scan, vjp=scan_vjp, arity=2)
    x, w = gw.placeholder("x", dtype, ("N", "M")), gw.placeholder("w", dtype, ("M",))
    y = gw.exp(op(x * 2 + 1, w)) * 0.5
    outputs = [y, gw.grad(gw.sum(y), x)]
    f, reference = (gw.function([x, w], outputs, target=t) for t in ("cpu", "interpreter"))
    assert "foreign @scan_rows(%in0, %in1) -> (%out0)" in f.ir("loops")
    assert kernels_of(f) == 3  # what comes before, the op, what comes after with its gradient
    for n, m in ((3, 5), (1, 1), (17, 40), (0, 4), (2, 0)):
        a, b = rng.normal(size=(n, m)).astype(dtype) - 1, rng.uniform(0, 0.5, m).astype(dtype)
        for got, wanted in zip(f(a, b), reference(a, b), strict=True):
            assert got.dtype == dtype and got.shape == (n, m)
            np.testing.assert_allclose(got, wanted, rtol=1e-5 if dtype == "float32" else 1e-13)


def functions(out, x, y):
    """One row for each function that becomes an expansion of ours, an instruction, or Numba's own code."""
    for i in range(x.shape[0]):
        a, b = x[i], y[i]
        out[0, i], out[1, i], out[2, i], out[3, i] = math.exp(a), np.log(a), np.sin(a), math.cos(a)
        out[4, i], out[5, i], out[6, i], out[7, i] = np.tan(a), np.arcsin(a / 9), np.arctan2(a, b), math.erf(a)
        out[8, i], out[9, i], out[10, i], out[11, i] = np.expm1(a), np.log1p(a), a**b, np.hypot(a, b)
        out[12, i], out[13, i], out[14, i], out[15, i] = 10.0**a, np.exp2(a), np.log2(a), np.log10(a)
        out[16, i], out[17, i], out[18, i], out[19, i] = np.sinh(a), np.cosh(a), np.tanh(a), np.arctanh(a / 9)
        out[20, i], out[21, i], out[22, i] = np.fmod(-a, b), -a % b, a // b
        out[23, i], out[24, i], out[25, i] = math.sqrt(a), math.floor(-a), np.rint(a)
        out[26, i], out[27, i], out[28, i] = math.copysign(a, -b), np.maximum(a, b), abs(a - b)
        out[29, i], out[30, i], out[31, i] = a**3, np.nextafter(a, b), np.arccosh(a + 1)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_math_functions(dtype):
    op = gw.custom_op("many_functions", lambda x, y: (x.dtype, (32, x.shape[0])), functions)
    x, y = gw.placeholder("x", dtype, ("N",)), gw.placeholder("y", dtype, ("N",))
    f = gw.function([x, y], op(x, y))
    for n in (3, 77):  # Numba vectorizes the loop: its vectors and the rest
        a, b = rng.uniform(0.3, 4, (2, n)).astype(dtype)
        wanted = np.zeros((32, n))
        functions(wanted, a.astype("f8"), b.astype("f8"))
        got = f(a, b)
        wanted[30] = np.nextafter(a, b)
        eps = np.finfo(dtype).eps
        np.testing.assert_allclose(got, wanted, rtol=8 * eps, atol=4 * eps)
        np.testing.assert_array_equal(got[[20, 30]], wanted[[20, 30]])


def mixed(out, flags, scale, small):
    for j in range(out.shape[1]):
        out[0, j] = flags[j] and scale[()] > small[0]
        out[1, j] = not flags[j] or small[j % small.shape[0]] == 200


def test_bools_integers_and_scalars():
    op = gw.custom_op("mixed_dtypes", lambda a, b, c: ("bool", (2, a.shape[0])), mixed)
    args = [gw.placeholder("a", "bool", ("N",)), gw.placeholder("b", "int32", ()), gw.placeholder("c", "uint8", (2,))]
    got = gw.function(args, op(*args))(np.array([True, False, True]), np.int32(3), np.array([1, 200], "u1"))
    np.testing.assert_array_equal(got, [[True, False, True], [False, True, False]])
    assert got.dtype == bool


def product(out, x, y):
    out[...] = 0  # a call of memset, which programs bring along
    for i in range(x.shape[0]):
        out[i] += x[i] * y[i] + TABLE[i % 3]


def test_one_operand_twice_constants_and_unoptimized_code():
    op = gw.custom_op("product_with_table", like_first, product)
    x = gw.placeholder("x", "int64", ("N",))
    a = np.arange(1000)
    table = np.resize(TABLE, 1000).astype(int)
    for optimize in (True, False):
        f = gw.function([x], [op(x, x), op(x + 1, x)], optimize=optimize)
        np.testing.assert_array_equal(f(a), [a * a + table, (a + 1) * a + table])


def accumulate(out, x, total):
    out[()] = total[()]
    for value in x:
        out[()] += value


def test_updates_of_variables():
    op = gw.custom_op("accumulate_all", lambda x, total: (total.dtype, ()), accumulate)
    x, total = gw.placeholder("x", "float64", ("N",)), gw.Variable(np.zeros(()), name="total")
    f = gw.function([x], total * 2, updates={total: op(x, total)})
    assert f(np.array([1.0, 2.0])) == 0 and f(np.array([3.0])) == 6
    assert total.value == 6


def test_the_loop_ir_means_the_op():
    gw.custom_op("scan_rows", like_first, scan, arity=2)
    text = "graphwright.loops v1\nkernel @k(in %x: f64[N, M], in %w: f64[M], out %y: f64[N, M]) {{\n{}\n}}\n"
    kernel = parse_kernel(text.format("foreign @scan_rows(%x, %w) -> (%y)"))
    verify_kernel(kernel)
    x, w, wanted = rng.normal(size=(3, 4)), rng.normal(size=4), np.zeros((3, 4))
    scan(wanted, x, w)
    np.testing.assert_array_equal(interpret_kernel(kernel, [x, w], {"N": 3, "M": 4}), [wanted])
    for body, message in (
        ("foreign @scan_rows(%x) -> (%y)", "takes 2 buffers and writes one"),
        ("foreign @scan_rows(%y, %w) -> (%x)", "stores to the input %x"),
        ("foreign @exp(%x) -> (%y)", "no op 'exp' with a kernel of its own"),
        ("for i = 0..N {\nforeign @scan_rows(%x, %w) -> (%y)\n}", "top level"),
    ):
        with pytest.raises(VerifyError, match=message):
            verify_kernel(parse_kernel(text.format(body)))


# --- what is shipped -----------------------------------------------------------------------------


def test_code_needs_nothing_from_outside():
    op = gw.custom_op("scan_rows", like_first, scan)
    x, w = gw.placeholder("x", "float32", ("N", "M")), gw.placeholder("w", "float32", ("M",))
    f = gw.function([x, w], op(x, w))
    llvm, asm = f.ir("llvm"), f.ir("asm")
    declared = [line for line in llvm.splitlines() if line.startswith("declare")]
    assert declared and all("@llvm." in line for line in declared)
    assert not any(word in llvm + asm for word in ("NRT_", "Py", "numba", "picklebuf", "memset", "tanhf@"))


def test_an_artifact_runs_without_numba_and_llvmlite(tmp_path):
    op = gw.custom_op("scan_rows", like_first, scan, vjp=scan_vjp)
    x, w = gw.placeholder("x", "float32", ("N", 4)), gw.Variable(np.full(4, 0.5, "f4"), name="w")
    y = op(x, w)
    f = gw.function([x], [y, gw.grad(gw.sum(y), x)], updates={w: w * 2}, name="f")
    gw.export(tmp_path / "m.gwa", {"f": f})
    a = rng.normal(size=(5, 4)).astype("f4")
    np.save(tmp_path / "a.npy", a)
    code = f"""
        import sys
        sys.modules.update(numba=None, llvmlite=None)
        import numpy as np
        import graphwright as gw
        m = gw.load({str(tmp_path / "m.gwa")!r})
        np.save({str(tmp_path / "y.npy")!r}, np.stack([*m.f(np.load({str(tmp_path / "a.npy")!r})), *m.f(
            np.load({str(tmp_path / "a.npy")!r}))]))
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, timeout=60)
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), np.stack([*f(a), *f(a)]))


def test_programs_with_custom_ops_are_not_cached(tmp_path, monkeypatch):
    monkeypatch.setenv("GRAPHWRIGHT_CACHE_DIR", str(tmp_path))

    def times_two(out, x):
        for i in range(x.shape[0]):
            out[i] = x[i] * 2

    def times_three(out, x):
        for i in range(x.shape[0]):
            out[i] = x[i] * 3

    def entries():
        return {p for p in tmp_path.rglob("*") if p.is_file()}

    x = gw.placeholder("x", "float32", ("N",))
    gw.function([x], x * 2)
    before = entries()
    for kernel, factor in ((times_two, 2), (times_three, 3)):
        op = gw.custom_op("times_some", like_first, kernel)
        assert gw.function([x], op(x))(np.float32([7]))[0] == 7 * factor
        del OPS["times_some"]
    assert before and entries() == before


# --- errors --------------------------------------------------------------------------------------


def raises(out, x):
    for i in range(x.shape[0]):
        if x[i] < 0:
            raise ValueError("negative")
        out[i] = x[i]


def allocates(out, x):
    half = np.zeros(x.shape[0])
    for i in range(x.shape[0]):
        half[i] = x[i] / 2
    for i in range(x.shape[0]):
        out[i] = half[i] + half[0]


def copies(out, x):
    out[:] = x


def prints(out, x):
    out[0] = x[0]
    print(x[0])


def looks_up(out, x):
    out[0] = LARGE[int(x[0])]


def calls_erfc(out, x):
    out[0] = math.erfc(x[0])


def is_not_numba(out, x):
    out[0] = x.no_such_method()


@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        (raises, "needs Python at run time: raised exceptions; it must not allocate or raise"),
        (allocates, r"needs Python at run time: .*NRT_MemInfo_alloc.*; it must not allocate or raise"),
        (copies, "needs Python at run time: .*\n.*loops over single elements"),
        (prints, "needs Python at run time: .*numba_gil_ensure"),
        (looks_up, "memory of this process"),
        (calls_erfc, "calls erfc, for which"),
        (is_not_numba, "Numba cannot compile its kernel:\n.*no_such_method"),
    ],
)
def test_kernels_that_cannot_be_shipped_are_refused(kernel, message):
    op = gw.custom_op("refused_op", like_first, kernel)
    x = gw.placeholder("x", "float64", ("N",))
    with pytest.raises(CompileError, match="(?s)^refused_op: .*" + message):
        gw.function([x], op(x))


def test_wrong_type_rules_are_refused():
    x = gw.placeholder("x", "float32", ("N",))

    def needs_matrix(x):
        raise ValueError("needs a matrix")

    for name, infer, message in (
        ("no_pair", lambda x: x.dtype, r"infer must return \(dtype, shape\)"),
        ("no_dtype", lambda x: ("float31", x.shape), "float31"),
        ("a_refusal", needs_matrix, "(?s)needs a matrix.*test_custom_op.py"),
    ):
        op = gw.custom_op(name, infer, scan)
        with pytest.raises(GraphError, match=message):
            op(x)
    op = gw.custom_op("wants_two", like_first, scan, arity=2)
    with pytest.raises(GraphError, match="wants_two: takes 2 operands, got 1"):
        op(x)


def test_programs_for_cuda_refuse_ops_without_a_kernel_for_it():
    op = gw.custom_op("times_table", like_first, product)
    x = gw.placeholder("x", "float64", ("N",))
    graph = gw.function([x], op(x, x), target="interpreter").graph
    with pytest.raises(CompileError, match="times_table: this custom op has no kernel for CUDA"):
        compile_graph(graph, target=CudaTarget()).ir("loops")


# --- functions given by SymPy --------------------------------------------------------------------


def differences(f, x, step=1e-5):
    """Central differences of an elementwise function, by each of its operands."""
    moved = [[a + step * (j == k) * s for j, a in enumerate(x)] for k in range(len(x)) for s in (1, -1)]
    values = [f(*m) for m in moved]
    return [(values[2 * k] - values[2 * k + 1]) / (2 * step) for k in range(len(x))]


s, t = sympy.symbols("s t")
FUNCTIONS = {
    "mish": ((s,), s * sympy.tanh(sympy.log(1 + sympy.exp(s)))),
    "two_operands": ((s, t), s * sympy.exp(-(t**2)) * sympy.sin(s * t) + sympy.sqrt(t)),
}


@pytest.mark.parametrize("made", ["elementwise", "from_sympy"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_expressions_are_one_kernel_with_right_derivatives(name, made):
    operands, expr = FUNCTIONS[name]
    xs = [gw.placeholder(str(o), "float64", ("N", "M")) for o in operands]
    if made == "elementwise":
        y = gw.elementwise(f"{name}_of_sympy", expr, operands)(*xs)
    else:
        y = gw.from_sympy(expr, dict(zip(operands, xs, strict=True)))
    fused = gw.function(xs, gw.exp(y * 2) + xs[0])
    assert kernels_of(fused) == 1 and fused.ir("program").count("call @") == 1
    arrays = [rng.uniform(0.2, 2, (3, 7)) for _ in xs]
    value = sympy.lambdify(operands, expr, "numpy")
    np.testing.assert_allclose(fused(*arrays), np.exp(value(*arrays) * 2) + arrays[0], rtol=1e-12)
    first = gw.grad(gw.sum(y), xs)
    for k, gradient in enumerate(first):
        f = gw.function(xs, gradient)
        assert kernels_of(f) == 1
        np.testing.assert_allclose(f(*arrays), differences(value, arrays)[k], rtol=1e-6, atol=1e-8)
        second = gw.function(xs, gw.grad(gw.sum(gradient), xs))
        for got, wanted in zip(second(*arrays), differences(f, arrays), strict=True):
            np.testing.assert_allclose(got, wanted, rtol=1e-6, atol=1e-8)

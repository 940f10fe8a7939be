"""Formulas, nesting, arguments, variables, calls, and the pool of threads."""

from __future__ import annotations

import itertools
import json
import math
import os
import subprocess
import sys
import threading
import warnings
from typing import Any

import numpy as np
import pytest
from native_code import ACCUMULATE, AXPY, ENTRY, SQUARES, TWICE, buffer, image_of, with_pool

from graphwright.compiler.llvm import pool
from graphwright.errors import ArgumentError, DimensionError, GraphwrightError, UpdateError
from graphwright.ir import dtypes
from graphwright.runtime import buffers, signature, structure, threads
from graphwright.runtime.buffers import Cell, Overlap, address_of, aligned_empty, lasting_empty
from graphwright.runtime.executable import Executable
from graphwright.runtime.image import LoadedImage
from graphwright.runtime.signature import Signature, Slot, evaluate, formula_text

# --- formulas and signatures -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("formula", "text", "value"),
    [
        (7, "7", 7),
        ("N", "N", 5),
        (["+", ["*", "N", 784], 4], "N*784 + 4", 3924),
        (["+", "N", ["*", -1, "M"], -2], "N - M - 2", 0),
        (["*", ["+", "N", 1], "M"], "(N + 1)*M", 18),
        (["//", ["+", "N", 6], 4], "(N + 6) // 4", 2),
        (["//", -7, 4], "(-7) // 4", -2),
        (["%", "N", "M"], "N % M", 2),
        (["max", "N", ["*", 2, "M"]], "max(N, 2*M)", 6),
        (["*", 2, ["min", "N", "M", 9]], "2*min(N, M, 9)", 6),
        (["**", "N", 3], "N**3", 125),
        (["isqrt", ["*", 3, "N"]], "isqrt(3*N)", 3),
        (["+", 0], "0", 0),
    ],
)
def test_formulas(formula: Any, text: str, value: int) -> None:
    checked = signature.as_formula(formula)
    assert formula_text(checked) == text
    assert evaluate(checked, {"N": 5, "M": 3}) == value
    assert signature.as_formula(json.loads(json.dumps(checked))) == checked
    names = {"N": 5, "M": 3}
    assert eval(text, {"max": max, "min": min, "isqrt": math.isqrt}, names) == value


@pytest.mark.parametrize(
    "spec",
    [
        None,
        True,
        1.5,
        "N+1",
        "",
        [],
        ["+"],
        ["-", 1, 2],
        ["//", 1],
        ["**", 2, "N"],
        ["isqrt", 2, "N"],
        ["**", 2, 65],
        [["+"], 1],
    ],
)
def test_what_is_no_formula(spec: Any) -> None:
    with pytest.raises(ValueError, match="formula"):
        signature.as_formula(spec)


def test_formulas_are_bounded() -> None:
    deep: Any = 1
    for _ in range(100):
        deep = ["+", deep, 1]
    with pytest.raises(ValueError, match="not a formula"):
        signature.as_formula(deep)
    power: Any = "N"
    for _ in range(20):
        power = ("**", power, 64)
    for huge in (power, ("*", *["N"] * 10000)):
        with pytest.raises(DimensionError, match="too large"):
            evaluate(huge, {"N": 10**6})
    for zero in (("//", "N", ("+", "N", -4)), ("%", "N", ("+", "N", -4))):
        with pytest.raises(DimensionError, match="zero"):
            evaluate(zero, {"N": 4})
    with pytest.raises(DimensionError, match="M is unknown; known are N"):
        evaluate(("+", "N", "M"), {"N": 4})


def axpy_signature(**changes: Any) -> Signature:
    fields: dict[str, Any] = {
        "name": "axpy",
        "symbols": ("N",),
        "inputs": (Slot("a", "float32", ()), Slot("x", "float32", ("N",)), Slot("y", "float32", ("N",))),
        "states": (),
        "outputs": (Slot("out", "float32", ("N",)),),
    }
    return Signature(**{**fields, **changes})


def test_signature_round_trip_and_text() -> None:
    s = axpy_signature(arena=["*", "N", 4], structure=["dict", ["out", "*"]])
    assert Signature.from_json(json.loads(json.dumps(s.to_json()))) == s
    assert str(s) == "axpy(a: float32[], x: float32[N], y: float32[N]) -> (out: float32[N])"
    assert s.arena_text == "N*4"
    assert set(signature.DTYPES) == set(dtypes.DTYPES)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""),
        ("symbols", ["M"]),
        ("symbols", ["N", "M"]),
        ("symbols", "N"),
        ("inputs", [{"name": "a", "dtype": "float16", "shape": []}]),
        ("inputs", [{"name": "a", "dtype": "float32", "shape": ["N"], "more": 1}]),
        ("inputs", [{"name": "a", "dtype": "float32", "shape": ["N"]}] * 2),
        ("outputs", []),
        ("outputs", None),
        ("updated", [0]),
        ("structure", ["tuple", "*", "*"]),
        ("structure", None),
        ("arena", "M"),
        ("arena", 1.5),
    ],
)
def test_malformed_signatures(field: str, value: Any) -> None:
    data = axpy_signature().to_json()
    data[field] = value
    with pytest.raises(ValueError, match="."):
        Signature.from_json(data)


@pytest.mark.parametrize(
    "tree",
    [1, [1, 2], (1,), (), [], {"a": 1, "b": (2, [3, None])}, None, ([{"z": 1, "a": 2}], 3), [(), {}]],
)
def test_structure_round_trip(tree: Any) -> None:
    leaves, description = structure.flatten(tree)
    again = json.loads(json.dumps(description))
    built = structure.unflatten(again, leaves)
    assert built == tree
    assert repr(built) == repr(tree)  # order of keys, list or tuple
    with pytest.raises(ValueError, match="leaves"):
        structure.unflatten(again, [*leaves, 9])


def test_structure_refuses() -> None:
    with pytest.raises(ArgumentError, match="not a string"):
        structure.flatten({1: 2})
    for bad in (
        "x",
        1,
        ["set", "*"],
        ["dict", "*"],
        ["none", "*"],
        None,
        ["dict", ["a", "*"], ["a", "*"]],
        [],
        True,
    ):
        with pytest.raises(ValueError, match="describe|twice"):
            structure.count(bad)


# --- memory ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(), (0,), (3, 5), (0, 7), (1000,)])
@pytest.mark.parametrize("dtype", ["float32", "int8", "bool"])
def test_aligned_empty(shape: tuple[int, ...], dtype: str) -> None:
    array = aligned_empty(shape, dtype)
    assert (array.shape, array.dtype) == (shape, np.dtype(dtype))
    assert array.ctypes.data % 64 == 0
    assert array.flags.writeable
    assert address_of(array) == array.ctypes.data
    array.setflags(write=False)
    assert address_of(array) == array.ctypes.data


@pytest.mark.parametrize("nbytes", [0, 100, 2**20 - 1, 2**20, 2**21, 2**21 + 4, 2**23 - 100])
def test_lasting_empty(nbytes: int) -> None:
    array = lasting_empty((nbytes,), np.uint8)
    assert (array.shape, array.dtype) == ((nbytes,), np.uint8)
    assert array.ctypes.data % 64 == 0
    array[:] = 7
    assert address_of(array) == array.ctypes.data
    assert int(array.sum(dtype=np.int64)) == 7 * nbytes


def test_overlap() -> None:
    memory = aligned_empty((100,), np.uint8)
    base = address_of(memory)
    overlap = Overlap([memory[60:80], memory[10:20]])
    for begin, end in itertools.combinations(range(101), 2):
        shared = begin < 20 and end > 10 or begin < 80 and end > 60
        assert overlap.touches(base + begin, end - begin) == shared
    assert not overlap.touches(base + 15, 0)
    assert not Overlap([])


def test_cells() -> None:
    source = np.arange(6, dtype=">f4").reshape(2, 3)
    cell = Cell("W", source)
    where = address_of(cell.array)
    cell.value[...] = 9  # a copy
    assert (cell.value == source).all()
    view = cell.view
    with pytest.raises(ValueError, match="read-only"):
        view[0, 0] = 1
    cell.assign(np.ones((2, 3), np.float32)[:, ::-1])
    cell.assign([[1, 2, 3], [4, 5, 6.5]])
    assert view[1, 2] == 6.5
    assert address_of(cell.array) == where
    for bad, message in (
        (np.ones((3, 2), np.float32), r"'W' has shape \(2, 3\); the new value has \(3, 2\)"),
        (np.ones((2, 3)), "'W' needs an array of dtype float32, got float64"),
        (1.0, "shape"),
        ([[1, 2, 3], [4, 5]], "is not an array|no numbers"),
    ):
        with pytest.raises(UpdateError, match=message):
            cell.assign(bad)
    assert view[1, 2] == 6.5


# --- calls -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def twice() -> Executable:
    s = Signature("twice", (), (Slot("x", "float32", ()),), (), (Slot("y", "float32", ()),))
    return Executable(image_of(TWICE), "twice", s)


@pytest.fixture(scope="module")
def axpy() -> Executable:
    return Executable(image_of(AXPY), "axpy", axpy_signature(arena=["+", ["*", "N", 4], 64]))


def test_scalar_call(twice: Executable) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        given = (1.5, 1, True, np.float32(2), np.array(3, np.float32), np.array(3, ">f4"), float("inf"))
        assert [float(twice(x)) for x in given] == [3.0, 2.0, 2.0, 4.0, 6.0, 6.0, float("inf")]
    assert np.isnan(twice(float("nan")))
    first, second = twice(1.0), twice(2.0)
    assert (first, second) == (2.0, 4.0)  # results do not share memory
    assert isinstance(first, np.ndarray)
    assert first.dtype == np.float32
    assert first.flags.writeable
    for bad, message in (
        (1e300, "infinite"),
        (1j, "complex"),
        ("1", "holds text"),
        (None, "NoneType"),
        (2**80, "no numbers"),
        (np.float64(1), r"dtype float32, got float64; pass x.astype\('float32'\)"),
        (np.ones(1, np.float32), "rank 0, not 1"),
        (np.ma.array(1.0), "masked"),
    ):
        with pytest.raises(ArgumentError, match=message):
            twice(bad)
    assert twice(1.0) == 2.0


def test_symbolic_call(axpy: Executable) -> None:
    for n in (0, 1, 7, 1000):
        x, y = np.arange(n, dtype=np.float32), np.ones(n, np.float32)
        for out in (axpy(2, x, y), axpy(2.0, y=y, x=x)):
            assert out.ctypes.data % 64 == 0
            np.testing.assert_array_equal(out, 2 * x + 1)


def test_harmless_layouts_are_copied(axpy: Executable) -> None:
    want = 2 * np.arange(8, dtype=np.float32) + 1
    x = np.arange(8, dtype=np.float32)
    read_only = x.copy()
    read_only.setflags(write=False)
    raw = np.zeros(33, np.uint8)
    unaligned = raw[1:].view(np.float32)
    unaligned[:] = x
    spread = np.zeros(16, np.float32)
    spread[::2] = x
    backward = x[::-1].copy()[::-1]
    for form in (
        x,
        read_only,
        unaligned,
        spread[::2],
        backward,
        x.astype(">f4"),
        list(range(8)),
        memoryview(x),
    ):
        np.testing.assert_array_equal(axpy(2.0, form, np.ones(8, np.float32)), want)


def test_wrong_arguments_are_named(axpy: Executable) -> None:
    x = np.ones(4, np.float32)
    for args, kwargs, message in (
        ((), {}, r"misses 3 of 3 inputs: a: float32\[\], x: float32\[N\], y: float32\[N\]"),
        ((1.0, x), {}, r"misses 1 of 3 inputs: y"),
        ((1.0, x, x, x), {}, r"takes 3 inputs \(a, x, y\), but got 4"),
        ((1.0, x, x), {"x": x}, "input 'x' twice"),
        ((1.0, x), {"z": x}, "no input 'z'; it has a, x, y"),
        ((1.0, x.astype(int), x), {}, r"input x: float32\[N\] needs an array of dtype float32, got int64"),
        ((1.0, x[None], x), {}, r"input x: float32\[N\] got .* shape \(1, 4\); it must have rank 1, not 2"),
    ):
        with pytest.raises(ArgumentError, match=message):
            axpy(*args, **kwargs)
    for _ in range(2):
        with pytest.raises(
            DimensionError, match=r"input 'y' \(axis 0\) has size 3.*N is 4 in input 'x' \(axis 0\)"
        ):
            axpy(1.0, x, x[1:])
        axpy(1.0, x, x)


def test_integers_are_converted_where_that_is_safe() -> None:
    load_store = "%v = load i8, ptr %x\n store i8 %v, ptr %y\n ret i32 0"
    body = f"define i32 @f{ENTRY} {{\n{buffer(0, 'x')}{buffer(1, 'y')} {load_store} }}"
    for dtype, good, bad in (
        ("int8", (-128, 127, True, [5]), (128, -129, 1.0, [1000])),
        ("uint8", (0, 255), (-1, 256)),
        ("bool", (True, False), (1, 0.0)),
    ):
        for shape, values in (((), good), ((1,), good)):
            s = Signature("f", (), (Slot("x", dtype, shape),), (), (Slot("y", dtype, shape),))
            f = Executable(image_of(body), "f", s)
            for v in values:
                if isinstance(v, list) == bool(shape):
                    assert f(v) == v
            for v in bad:
                if isinstance(v, list) == bool(shape):
                    with pytest.raises(ArgumentError, match="dtype"):
                        f(v)


def null_function(s: Signature, cells: Any = ()) -> Executable:
    return Executable(image_of(f"define i32 @f{ENTRY} {{ ret i32 0 }}"), "f", s, cells)


def test_formula_dimensions_are_checked_and_solved() -> None:
    double = Slot("x", "float32", (("*", 2, "N"), ("+", "N", "M", 1)))
    out = Slot("o", "int8", ("N", "M"))
    f = null_function(Signature("f", ("M", "N"), (double,), (), (out,)))
    assert f(np.ones((6, 8), np.float32)).shape == (3, 4)
    with pytest.raises(DimensionError, match=r"has size 7, but should have 2\*N = 6: N is 3"):
        f(np.ones((7, 8), np.float32))
    with pytest.raises(DimensionError, match=r"N \+ M \+ 1"):
        f(np.ones((6, 2), np.float32))
    with pytest.raises(DimensionError, match="no input determines the dimension N"):
        null_function(Signature("f", ("N",), (), (), (Slot("o", "int8", ("N",)),)))


def test_sizes_that_cannot_be() -> None:
    x = Slot("x", "int8", ("N",))
    f = null_function(Signature("f", ("N",), (x,), (), (Slot("o", "int8", (("+", "N", -3),)),)))
    assert f(np.ones(3, np.int8)).shape == (0,)
    with pytest.raises(
        DimensionError, match=r"output o: int8\[N - 3\] would have the negative size -1 for N = 2"
    ):
        f(np.ones(2, np.int8))
    f = null_function(Signature("f", ("N",), (x,), (), (Slot("o", "float64", (("**", "N", 20),)),)))
    with pytest.raises(DimensionError, match="64-bit sizes for N = 100"):
        f(np.ones(100, np.int8))
    for arena in (("**", "N", 20), ("*", -1, "N")):
        f = null_function(Signature("f", ("N",), (x,), (), (), arena))
        with pytest.raises(DimensionError, match="scratch memory"):
            f(np.ones(100, np.int8))


def test_memory_formula(axpy: Executable, twice: Executable) -> None:
    assert axpy.memory() == "N*4 + 64"
    assert axpy.memory(N=10) == 104
    assert twice.memory() == "0"
    for dims in ({"M": 1}, {"N": 1, "M": 2}):
        with pytest.raises(DimensionError, match="needs the dimensions N"):
            axpy.memory(**dims)
    with pytest.raises(DimensionError, match="negative"):
        axpy.memory(N=-1)


@pytest.mark.parametrize("arena", [4096, 200000])
def test_arena_is_given_and_large_enough(arena: int) -> None:
    text = f"""
define i32 @f{ENTRY} {{
entry:
{buffer(0, "out")}
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %next, %loop ]
  %p = getelementptr i8, ptr %arena, i64 %i
  store volatile i8 1, ptr %p
  %next = add i64 %i, 1
  %more = icmp slt i64 %next, {arena}
  br i1 %more, label %loop, label %done
done:
  %a = ptrtoint ptr %arena to i64
  %low = and i64 %a, 63
  store i64 %low, ptr %out
  ret i32 0
}}"""
    f = Executable(image_of(text), "f", Signature("f", (), (), (), (Slot("o", "int64", ()),), arena))
    assert f() == 0
    assert f() == 0


def test_blocks_of_the_arena_are_reused() -> None:
    arena = buffers.Arena()
    a = arena.take(100)
    b = arena.take(50)
    assert a[1] != b[1]
    arena.give(a)
    assert arena.take(80)[1] == a[1]
    arena.give(a)
    assert arena.take(1000)[0] == 1000
    arena.clear()


def test_error_code_of_the_code() -> None:
    f = Executable(image_of(f"define i32 @f{ENTRY} {{ ret i32 3 }}"), "f", Signature("f", (), (), (), ()))
    with pytest.raises(GraphwrightError, match="returned error 3"):
        f()
    with pytest.raises(KeyError):
        Executable(f.image, "g", f.signature)


# --- variables -------------------------------------------------------------------------------------


def accumulator(n: Any, cell: Cell) -> Executable:
    symbols = () if isinstance(n, int) else (n,)
    s = Signature(
        "accumulate",
        symbols,
        (Slot("x", "float64", (n,)),),
        (Slot("W", "float64", (n,)),),
        (Slot("old", "float64", (n,)),),
        updated=(0,),
    )
    return Executable(image_of(ACCUMULATE), "accumulate", s, [cell])


def test_variables_are_updated_in_place_and_alias_safely() -> None:
    cell = Cell("W", np.arange(5.0))
    f = accumulator("N", cell)
    np.testing.assert_array_equal(f(np.ones(5)), np.arange(5.0))
    np.testing.assert_array_equal(cell.value, np.arange(1.0, 6.0))
    # The input is the variable itself: it is copied, else W[i] += W[n-1-i] would read new values.
    f(cell.view)
    np.testing.assert_array_equal(cell.value, np.full(5, 6.0))


def test_nothing_changes_when_a_call_is_refused() -> None:
    cell = Cell("W", np.arange(5.0))
    f = accumulator("N", cell)
    for bad in (np.ones(4), np.ones(5, np.float32), np.ones((5, 1)), "x"):
        with pytest.raises(GraphwrightError, match="accumulate"):
            f(bad)
    with pytest.raises(DimensionError, match=r"variable 'W' \(axis 0\) has size 5.*N is 4 in input 'x'"):
        f(np.ones(4))
    np.testing.assert_array_equal(cell.value, np.arange(5.0))


def test_cells_must_fit() -> None:
    state = Slot("W", "float64", (3,))
    for cells in (
        [],
        [Cell("W", np.ones(4))],
        [Cell("W", np.ones(3, np.float32))],
        [Cell("W", np.ones((3, 1)))],
    ):
        with pytest.raises(DimensionError, match=r"\bf\b"):
            null_function(Signature("f", (), (), (state,), ()), cells)


def test_updates_of_many_threads_are_not_lost() -> None:
    def source(n: int, cell: Cell) -> Executable:
        text = f"""
define i32 @accumulate{ENTRY} {{
{buffer(0, "x")}{buffer(1, "w")}{buffer(2, "out")}
  %v = load volatile double, ptr %w
  %xv = load double, ptr %x
  br label %wait
wait:
  %i = phi i64 [ 0, %0 ], [ %next, %wait ]
  store volatile i64 %i, ptr %out
  %next = add i64 %i, 1
  %more = icmp slt i64 %next, 2000
  br i1 %more, label %wait, label %done
done:
  %s = fadd double %v, %xv
  store volatile double %s, ptr %w
  ret i32 0
}}"""
        s = accumulator(1, cell).signature
        return Executable(image_of(text), "accumulate", s, [cell])

    cell = Cell("W", np.zeros(1))
    functions = [source(1, cell), source(1, cell)]  # two functions that share a variable
    x = np.ones(1)
    run_threads(6, lambda i: [functions[i % 2](x) for _ in range(100)])
    assert cell.value[0] == 600


def run_threads(n: int, work: Any) -> None:
    """Run `work(i)` on several Python threads, and raise what any of them raised."""
    errors: list[Exception] = []

    def guarded(i: int) -> None:
        try:
            work(i)
        except Exception as e:
            errors.append(e)

    workers = [threading.Thread(target=guarded, args=(i,)) for i in range(n)]
    for w in workers:
        w.start()
    for w in workers:
        w.join(60)
    assert not any(w.is_alive() for w in workers)
    if errors:
        raise errors[0]


def test_many_threads_call_at_once(axpy: Executable, twice: Executable) -> None:
    def work(i: int) -> None:
        for n in range(1, 60):
            x = np.full(n, float(i), np.float32)
            assert (axpy(2.0, x, x) == 3 * i).all()
            assert twice(float(i * n)) == 2 * i * n

    run_threads(6, work)


# --- the pool of threads ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def parallel() -> dict[str, Executable]:
    image = LoadedImage(with_pool(SQUARES))
    squares = Signature("squares", ("N",), (Slot("x", "int64", ("N",)),), (), (Slot("o", "int64", ("N",)),))
    shape = ("M", "N")
    rows = Signature("rows", ("M", "N"), (Slot("x", "int64", shape),), (), (Slot("o", "int64", shape),))
    return {
        "squares": Executable(image, "squares", squares),
        "rows": Executable(image, "rows", rows),
    }


@pytest.fixture(autouse=True)
def restore_threads() -> Any:
    before = threads.get_num_threads()
    yield
    threads.set_num_threads(before)


def check_squares(f: Executable, n: int) -> None:
    np.testing.assert_array_equal(f(np.ones(n, np.int64)), np.arange(n) ** 2 + 1)


def test_layout_is_the_same_on_both_sides() -> None:
    assert (pool.WORKER, pool.CONTEXT_VERSION, pool.CONTEXT_BYTES) == (
        threads.WORKER,
        threads._VERSION,
        threads._BYTES,
    )


@pytest.mark.parametrize("n", [1, 2, 3, 8])
def test_parallel_loops(parallel: dict[str, Executable], n: int) -> None:
    threads.set_num_threads(n)
    assert threads.get_num_threads() == n
    for size in (0, 1, 2, 3, 127, 128, 129, 1000, 40001):
        check_squares(parallel["squares"], size)
    for _ in range(1500):
        check_squares(parallel["squares"], 300)
    x = np.ones((37, 53), np.int64)
    np.testing.assert_array_equal(parallel["rows"](x), x + np.arange(53) ** 2)
    alive = [t for t in threading.enumerate() if t.name.startswith("graphwright-")]
    assert len(alive) == n - 1


def test_parallel_loops_of_many_python_threads(parallel: dict[str, Executable]) -> None:
    threads.set_num_threads(4)

    def work(i: int) -> None:
        for k in range(200):
            check_squares(parallel["squares"], 100 * i + k)
            x = np.full((5, k), i, np.int64)
            assert (parallel["rows"](x) == i + np.arange(k) ** 2).all()

    run_threads(4, work)


def test_threads_sleep_and_wake(parallel: dict[str, Executable]) -> None:
    threads.set_num_threads(3)
    pause = threading.Event()
    for _ in range(20):
        check_squares(parallel["squares"], 5000)
        pause.wait(0.005)  # much longer than they spin
    sleepers = int(np.frombuffer(threads._pool.memory, np.int32)[136 // 4])
    assert sleepers == 2


def test_resizing_while_loops_run(parallel: dict[str, Executable]) -> None:
    stop = threading.Event()

    def work(i: int) -> None:
        if i == 0:
            for n in (1, 3, 2, 5, 1, 4) * 3:
                threads.set_num_threads(n)
            stop.set()
        while not stop.is_set():
            check_squares(parallel["squares"], 3000)

    run_threads(3, work)


def test_workers_take_part_from_the_end() -> None:
    text = f"""
define internal void @part(ptr %arg, i64 %begin, i64 %end) {{
entry:
  %here = alloca i64
  br label %wait
wait:
  %i = phi i64 [ 0, %entry ], [ %next, %wait ]
  store volatile i64 %i, ptr %here
  %next = add i64 %i, 1
  %more = icmp slt i64 %next, 100000
  br i1 %more, label %wait, label %done
done:
  %stack = ptrtoint ptr %here to i64
  %p = getelementptr i64, ptr %arg, i64 %begin
  store i64 %stack, ptr %p
  ret void
}}
define i32 @stacks{ENTRY} {{
{buffer(0, "out")}
  call void @gw_parallel(ptr %context, ptr @part, ptr %out, i64 64)
  ret i32 0
}}"""
    s = Signature("stacks", (), (), (), (Slot("o", "int64", (64,)),))
    f = Executable(with_pool(text), "stacks", s)
    threads.set_num_threads(1)
    caller = int(f()[0]) >> 16  # each thread has a stack of its own
    threads.set_num_threads(2)
    stacks = [[int(a) >> 16 for a in f()] for _ in range(20)]
    assert max(len(set(s)) for s in stacks) == 2
    assert all(s == sorted(s, key=lambda w: w != caller) for s in stacks)


def test_a_context_of_another_version_is_left_alone(parallel: dict[str, Executable]) -> None:
    threads.set_num_threads(2)
    check_squares(parallel["squares"], 10)
    version = threads._pool.memory.view(np.int64)
    version[0] = pool.CONTEXT_VERSION + 1
    try:
        check_squares(parallel["squares"], 1000)  # serially
        worker = threads._Worker(parallel["squares"].image.address(threads.WORKER))
        assert worker(threads._pool.address, 1) == 1
    finally:
        version[0] = pool.CONTEXT_VERSION


def test_number_of_threads_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    for bad in (0, -1, 1025, 1.5, True, "2"):
        with pytest.raises(ArgumentError, match="number of threads"):
            threads.set_num_threads(bad)  # type: ignore[arg-type]
    monkeypatch.setenv("GRAPHWRIGHT_NUM_THREADS", "3")
    assert threads._default_threads() == 3
    for text in ("0", "many", "-1", "9999"):
        monkeypatch.setenv("GRAPHWRIGHT_NUM_THREADS", text)
        with pytest.raises(ArgumentError, match="GRAPHWRIGHT_NUM_THREADS"):
            threads._default_threads()
    monkeypatch.setenv("GRAPHWRIGHT_NUM_THREADS", "")
    assert threads._default_threads() == len(os.sched_getaffinity(0))


FORK = """
import os, sys, threading
sys.path.insert(0, {tests!r})
import numpy as np
from native_code import SQUARES, with_pool
from graphwright.runtime import threads
from graphwright.runtime.buffers import Cell
from graphwright.runtime.executable import Executable
from graphwright.runtime.signature import Signature, Slot

threads.set_num_threads(3)
s = Signature("squares", ("N",), (Slot("x", "int64", ("N",)),), (), (Slot("o", "int64", ("N",)),))
f = Executable(with_pool(SQUARES), "squares", s)
def check(times):
    for n in range(times):
        assert (f(np.ones(n + 2, np.int64)) == np.arange(n + 2) ** 2 + 1).all()
check(50)
cell = Cell("W", np.zeros(1))
busy, stop = threading.Event(), threading.Event()
def work():
    with cell.lock:
        busy.set()
        while not stop.is_set():
            check(20)
other = threading.Thread(target=work)
other.start()
busy.wait()
for _ in range(6):
    child = os.fork()
    if child == 0:
        cell.assign([1.0])  # a lock held by a thread that does not exist here
        check(50)
        alive = sum(t.name.startswith("graphwright-") for t in threading.enumerate())
        os._exit(0 if alive == 2 else 1)
    assert os.waitpid(child, 0)[1] == 0
stop.set()
other.join()
check(50)
print("done")
"""


def test_fork_and_shutdown() -> None:
    code = FORK.format(tests=os.path.dirname(__file__))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


def test_runtime_imports_only_numpy() -> None:
    code = (
        "import sys; import graphwright.runtime.artifact as a; "
        "others = ('llvmlite', 'numba', 'sympy', 'graphwright.ir', 'graphwright.compiler'); "
        "print([m for m in others if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"

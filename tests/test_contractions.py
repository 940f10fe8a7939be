"""Matrix products: values over many shapes and layouts, and that the number of threads changes no bit."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray

import graphwright as gw
from graphwright.ir.interpret_loops import interpret_kernel
from graphwright.ir.loops import Alloc, Buffer, For, Prefetch, Stmt, statements
from graphwright.ir.parser import parse_kernel
from graphwright.ir.printer import print_kernel
from graphwright.ir.verify import verify_kernel
from graphwright.passes.contraction import recognize
from graphwright.passes.cpu_model import CpuModel
from graphwright.passes.flatten_contraction import flatten_contraction
from graphwright.passes.schedule_contraction import schedule_contraction

SHAPES = [
    (1, 1, 1), (1, 7, 33), (3, 1, 5), (2, 300, 2), (8, 16, 32), (13, 17, 31), (32, 32, 32), (33, 65, 40), (40, 9, 33),
    (64, 100, 10), (96, 33, 130), (128, 40, 65), (257, 31, 96), (41, 7, 300),
    (128, 520, 40),
]  # fmt: skip
WIDE = CpuModel(vector_bytes=32, registers=32, tile_bytes=64)


def operand(rng, rows, columns, transposed):
    shape = (columns, rows) if transposed else (rows, columns)
    return rng.standard_normal(shape, dtype=np.float32)


def product(a_shape, b_shape, ta, tb, dtype="float32"):
    a, b = gw.placeholder("a", dtype, a_shape), gw.placeholder("b", dtype, b_shape)
    left, right = (gw.swapaxes(x, -1, -2) if t else x for x, t in ((a, ta), (b, tb)))
    return gw.function([a, b], left @ right)


def numpy_product(a: NDArray, b: NDArray, ta: bool, tb: bool) -> NDArray:
    left, right = (np.swapaxes(x, -1, -2) if t else x for x, t in ((a, ta), (b, tb)))
    return left.astype(np.float64) @ right.astype(np.float64)


def check(f, a, b, ta, tb):
    got, want = f(a, b), numpy_product(a, b, ta, tb)
    tolerance = 1e-6 * (1 + a.shape[-2 if ta else -1])
    np.testing.assert_allclose(got, want, rtol=0, atol=tolerance * max(1, np.abs(want).max(initial=0)))
    return got


@pytest.mark.parametrize(("ta", "tb"), list(itertools.product((False, True), repeat=2)))
@pytest.mark.parametrize("shape", SHAPES)
def test_values(shape, ta, tb):
    m, k, n = shape
    rng = np.random.default_rng(0)
    a, b = operand(rng, m, k, ta), operand(rng, k, n, tb)
    check(product(a.shape, b.shape, ta, tb), a, b, ta, tb)


@pytest.mark.parametrize("tb", [False, True])
@pytest.mark.parametrize("dtype", ["float64", "int32"])
def test_other_dtypes(dtype, tb):
    rng = np.random.default_rng(0)
    a, b = (9 * operand(rng, 50, 37, False)).astype(dtype), (9 * operand(rng, 37, 41, tb)).astype(dtype)
    got = product(a.shape, b.shape, False, tb, dtype)(a, b)
    np.testing.assert_allclose(got, numpy_product(a, b, False, tb), rtol=0, atol=1e-10)


@pytest.mark.parametrize(("ta", "tb"), [(False, False), (False, True), (True, False)])
def test_batches(ta, tb):
    rng = np.random.default_rng(0)
    a = rng.standard_normal((3, 4, *((20, 50) if ta else (50, 20)))).astype(np.float32)
    b = rng.standard_normal((3, 4, *((45, 20) if tb else (20, 45)))).astype(np.float32)
    check(product(a.shape, b.shape, ta, tb), a, b, ta, tb)


@pytest.mark.parametrize("tb", [False, True])
@pytest.mark.parametrize("fixed", ["", "m", "k", "n"])
def test_symbolic_sizes(fixed, tb):
    sizes = {"m": 48, "k": 40, "n": 64}
    m, k, n = (sizes[s] if s == fixed else s.upper() for s in "mkn")
    f = product((m, k), (n, k) if tb else (k, n), False, tb)
    rng = np.random.default_rng(0)
    for m, k, n in ((0, 3, 4), (3, 0, 4), (3, 4, 0), (1, 1, 1), (48, 40, 64), (50, 19, 70), (7, 90, 33)):
        m, k, n = (sizes[s] if s == fixed else x for s, x in zip("mkn", (m, k, n), strict=True))
        check(f, *(operand(rng, m, k, False), operand(rng, k, n, tb)), False, tb)


@pytest.mark.parametrize("tb", [False, True])
@pytest.mark.parametrize("shape", [(300, 120, 200), (300, 300, 90), (40, 500, 500), (30, 300, 700)])
def test_threads_change_no_bit(shape, tb):
    m, k, n = shape
    rng = np.random.default_rng(0)
    a, b = operand(rng, m, k, False), operand(rng, k, n, tb)
    f = product(a.shape, b.shape, False, tb)
    before = gw.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 3):
            gw.set_num_threads(threads)
            results.append(check(f, a, b, False, tb))
    finally:
        gw.set_num_threads(before)
    assert all(np.array_equal(r, results[0]) for r in results)


# --- schedules -------------------------------------------------------------------------------------


DOT = """graphwright.loops v1
kernel @dot(in %a: f32[{m}, {k}], in %b: f32[{rows}, {columns}], out %c: f32[{m}, {n}]) {{
  for i = 0..{m} {{
    for j = 0..{n} {{
      let t = reduce(add, r = 0..{k}) load %a[i, r] * load %b[{at}]
      store %c[i, j] = t
    }}
  }}
}}
"""


def scheduled(m, k, n, tb=False):
    """The scheduled kernel of one product."""
    rows, columns, at = (n, k, "j, r") if tb else (k, n, "r, j")
    kernel = parse_kernel(DOT.format(m=m, k=k, n=n, rows=rows, columns=columns, at=at))
    assert recognize(kernel) is not None
    found = schedule_contraction(kernel, WIDE)
    assert found is not None
    verify_kernel(found)
    return found


def panel_of(kernel) -> Buffer | None:
    return next((s.buffer for s in kernel.body if isinstance(s, Alloc) and s.buffer.name == "panel"), None)


def loops(body: tuple[Stmt, ...]) -> list[For]:
    return [s for s in statements(body) if isinstance(s, For)]


def test_few_rows_are_not_worth_packing():
    assert panel_of(scheduled(16, 256, 256)) is None


@pytest.mark.parametrize(("m", "n", "along"), [(128, 40, "m"), (128, 64, "m"), (64, 40, "n"), (136, 64, "n")])
def test_gradients_of_weights_run_along_their_longer_axis(m, n, along):
    text = DOT.format(m=m, k=600, n=n, rows=600, columns=n, at="r, j").replace(f"f32[{m}, 600]", f"f32[600, {m}]")
    kernel = schedule_contraction(parse_kernel(text.replace("[i, r]", "[r, i]")), WIDE)
    verify_kernel(kernel)
    count, _, columns = panel_of(kernel).shape
    assert count * columns == m if along == "m" else n <= count * columns < m


def test_rows_of_a_matrix_that_is_not_packed_come_in_bands():
    (outer,) = (s for s in scheduled(32, 256, 256).body if isinstance(s, For))
    assert outer.kind == "parallel" and outer.extent == 2 * 8  # bands of rows, then tiles of columns
    assert [s.extent for s in outer.body if isinstance(s, For)] == [2]  # tiles of rows that share columns


def test_a_matrix_of_one_panel_is_read_where_it_is():
    assert panel_of(scheduled(256, 64, 32)) is None
    assert panel_of(scheduled(256, 64, 32, tb=True)) is not None


def test_threads_pack_their_own_panels():
    kernel = scheduled(256, 256, 256)
    assert panel_of(kernel).shape == (8, 256, 32)
    assert [s.kind for s in loops(kernel.body)].count("parallel") == 1


def test_few_panels_are_packed_first():
    kernel = scheduled(256, 256, 96)
    assert [s.kind for s in loops(kernel.body)].count("parallel") == 2


def test_wide_tiles():
    allocs = [s.buffer for s in statements(scheduled(256, 256, 256).body) if isinstance(s, Alloc)]
    assert next(b.shape for b in allocs if b.name == "acc") == (8, 32)


def test_transposition_is_in_registers():
    text = product((128, 64), (256, 64), False, True).ir("llvm")
    assert "shufflevector <8 x float>" in text or "shufflevector <4 x float>" in text
    assert "masked.scatter" not in text and "masked.gather" not in text


UPDATE = """graphwright.loops v1
kernel @update(in %x: f32[{k}, 40], in %g: f32[{k}, {n}], in %w: f32[40, {n}], out %y: f32[40, {n}]) {{
  for i = 0..40 {{
    for j = 0..{n} {{
      let t = reduce(add, r = 0..{k}) load %x[r, i] * load %g[r, j]
      store %y[i, j] = load %w[i, j] - t
    }}
  }}
}}
"""


@pytest.mark.parametrize(("k", "n", "lines"), [(64, 64, 2), (64, 58, 1), (8, 64, 0)])
def test_what_an_epilogue_reads_is_prefetched(k, n, lines):
    kernel = schedule_contraction(parse_kernel(UPDATE.format(k=k, n=n)), WIDE)
    verify_kernel(kernel)
    text = print_kernel(kernel)
    assert print_kernel(parse_kernel(text)) == text
    nests = [s for s in loops(kernel.body) if isinstance(s.body[0], Prefetch)]
    assert sum(s.extent for s in nests) == lines
    assert not lines or "prefetch %w[" in text
    rng = np.random.default_rng(0)
    x, g, w = (rng.standard_normal(s, dtype=np.float32) for s in ((k, 40), (k, n), (40, n)))
    (got,) = interpret_kernel(kernel, [x, g, w], {})
    np.testing.assert_allclose(got, w - x.T @ g, atol=1e-4)


def test_a_prefetch_is_an_instruction():
    x, g = gw.placeholder("x", "float32", (96, 128)), gw.placeholder("g", "float32", (96, 256))
    w = gw.Variable(np.ones((128, 256), np.float32))
    f = gw.function([x, g], [], updates=[(w, w - gw.swapaxes(x, 0, 1) @ g)])
    assert "@llvm.prefetch" in f.ir("llvm")
    a, b = np.ones((96, 128), np.float32), np.ones((96, 256), np.float32)
    f(a, b)
    np.testing.assert_array_equal(w.value, np.full((128, 256), -95, np.float32))


def test_axes_that_every_operand_walks_as_one_become_one():
    """A batch of one fills its tiles as the same rows without a batch do; the values stay."""
    x = gw.placeholder("x", "float32", ("N", 24, 40))
    w, b = gw.placeholder("w", "float32", (40, 64)), gw.placeholder("b", "float32", (64,))
    f = gw.function([x, w, b], gw.tanh(x @ w + b))
    text = f.ir("loops")
    assert "2*N" in text and "tm = 0..12" in text  # tiles of 12 of the 24 * N rows
    assert " if " not in text  # of which none is ragged
    rng = np.random.default_rng(0)
    for n in (1, 3):
        given = [rng.standard_normal(s, dtype=np.float32) for s in ((n, 24, 40), (40, 64), (64,))]
        want = np.tanh(given[0].astype(np.float64) @ given[1] + given[2])
        np.testing.assert_allclose(f(*given), want, rtol=0, atol=1e-5)


def test_axes_stay_apart_where_an_operand_steps_over_memory():
    buffer = "in %x: f32[4, 6, 8], in %w: f32[8, 16], out %y: f32[4, 5, 16]"
    kernel = parse_kernel(f"""
    graphwright.loops v1
    kernel @rows({buffer}) {{
      for i = 0..4 {{
        for j = 0..5 {{
          for n = 0..16 {{
            let s = reduce(add, k = 0..8) load %x[i, j, k] * load %w[k, n]
            store %y[i, j, n] = s
          }}
        }}
      }}
    }}
    """)
    c = recognize(kernel)
    assert c is not None and flatten_contraction(c) == c


@pytest.mark.parametrize("rows", [1, 127, 128, 300])
def test_many_rows_in_blocks(rows):
    f = product(("M", 5000), (5000, 40), False, False)
    assert "i0b = 0..((M + 127) // 128)" in f.ir("loops")  # blocks of 128 rows, as rows are long
    rng = np.random.default_rng(0)
    check(f, operand(rng, rows, 5000, False), operand(rng, 5000, 40, False), False, False)

"""What depends on variables alone is computed once: by text, by values, and never from an old value."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest
from differential import Case
from generate import SMALL, Draw, arrays_for, random_graph

import graphwright as gw
from graphwright.compiler.driver import Compiled, CpuLowered, host_target, machine_code
from graphwright.compiler.profile import Profiled
from graphwright.ir.interpreter import interpret
from graphwright.ir.parser import parse_graph
from graphwright.ir.printer import print_graph
from graphwright.passes import panels
from graphwright.passes import prepare as prepare_pass
from graphwright.passes.cpu_model import CpuModel
from graphwright.passes.prepare import prepare

WIDE = CpuModel(vector_bytes=32, registers=32, tile_bytes=64)
RNG = np.random.default_rng(0)


def _array(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


BEFORE = """\
graphwright.graph v1
func @f(%x: f32[N, 200]) state(%W: f32[200, 90], %s: f32[90], %t: f32[90]) -> (f32[N, 90]) {
  %0 = dot %x, %W {contract = ((1), (0))} : f32[N, 90]
  %1 = sqrt %s : f32[90]
  %2 = broadcast %1 {shape = (N, 90), dims = (1)} : f32[N, 90]
  %3 = mul %0, %2 : f32[N, 90]
  %4 = broadcast %t {shape = (N, 90), dims = (1)} : f32[N, 90]
  %5 = add %3, %4 : f32[N, 90]
  %6 = neg %t : f32[90]
  update %t = %6
  return %5
}
"""
MAIN = """\
func @f(%x: f32[N, 200]) state(%W: f32[200, 90], %s: f32[90], %t: f32[90], %prepared.0: f32[3, 200, 32], \
%prepared.1: f32[90]) -> (f32[N, 90]) {
  %0 = unpack %prepared.0 {columns = 90} : f32[200, 90]
  %1 = dot %x, %0 {contract = ((1), (0))} : f32[N, 90]
  %2 = broadcast %prepared.1 {dims = (1)} : f32[N, 90]
"""
PREPARATION = """\
graphwright.graph v1
func @f_prepare() state(%W: f32[200, 90], %s: f32[90], %prepared.0: f32[3, 200, 32], %prepared.1: f32[90]) -> () {
  %0 = pad %W {low = (0, 0), high = (0, 6), interior = (0, 0)} : f32[200, 96]
  %1 = reshape %0 : f32[200, 3, 32]
  %2 = transpose %1 {perm = (1, 0, 2)} : f32[3, 200, 32]
  %3 = sqrt %s : f32[90]
  update %prepared.0 = %2
  update %prepared.1 = %3
  return
}
"""


def test_two_graphs():
    graph = parse_graph(BEFORE)
    main, preparation = prepare(graph, WIDE)
    assert MAIN in print_graph(main)
    assert print_graph(preparation) == PREPARATION
    assert parse_graph(print_graph(main)).states[-1].tensor == main.states[-1].tensor
    x, states = _array(5, 200), [_array(200, 90), abs(_array(90)), _array(90)]
    empty = [np.zeros((3, 200, 32), np.float32), np.zeros(90, np.float32)]
    _, made = interpret(preparation, [], [*states[:2], *empty])
    (found,), after = interpret(main, [x], [*states, *made[2:]])
    (expected,), _ = interpret(graph, [x], states)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(after[2], -states[2])


@pytest.mark.parametrize("change", ["update %W = %W2", "%W: f32[20, 9]"])
def test_nothing_to_prepare(change):
    text = BEFORE.replace("%5 = add", "%7 = neg %W : f32[200, 90]\n  %5 = add").replace(
        "update %t = %6", "update %t = %6\n  update %W = %7"
    )  # fmt: skip
    if change.startswith("%W"):
        text = BEFORE.replace("200", "20")
    graph = parse_graph(text)
    assert prepare(graph, WIDE) == (graph, None)


def _layer(depth=150, columns=131):
    w, b = gw.Variable(_array(depth, columns), name="W"), gw.Variable(_array(columns), name="b")
    x = gw.placeholder("x", "float32", ("N", depth))
    f = gw.function([x], gw.tanh(x @ w / 8) * (b * b), name="layer")
    assert len(f.compiled.signature.states) == 4, "the panels and b * b"
    return f, w, b


def _expected(x, w, b):
    return np.tanh(x.astype(np.float64) @ w.value / 8) * np.square(b.value, dtype=np.float64)


@pytest.mark.parametrize(("depth", "columns"), [(150, 131), (512, 33), (400, 64), (129, 160)])
@pytest.mark.parametrize("rows", [0, 1, 7, 64])
def test_values(depth, columns, rows):
    f, w, b = _layer(depth, columns)
    x = _array(rows, depth)
    np.testing.assert_allclose(f(x), _expected(x, w, b), rtol=2e-5, atol=2e-5)
    plain = f.compiled.unprepared().executable
    np.testing.assert_array_equal(f(x), plain(x))


def test_transposed_weights():
    w = gw.Variable(_array(130, 150), name="W")
    x = gw.placeholder("x", "float32", ("N", 150))
    f = gw.function([x], x @ gw.transpose(w))
    a = _array(9, 150)
    np.testing.assert_allclose(f(a), a.astype(np.float64) @ w.value.T, rtol=1e-4, atol=1e-4)
    assert "unpack" in f.ir("optimized")


def test_every_change_is_seen():
    f, w, b = _layer()
    x = _array(3, 150)
    runs = []
    preparation = f.compiled.executable.general.preparation
    run = preparation._run
    preparation._run = lambda: (runs.append(1), run())
    step = gw.function([], [], updates={w: w * 0.5, b: b + 1})
    small = gw.function([], [], updates={b: b - 0.5})
    interpreted = gw.function([], [], updates={b: b * 2}, target="interpreter")

    def check(count):
        for _ in range(3):
            np.testing.assert_allclose(f(x), _expected(x, w, b), rtol=2e-5, atol=2e-5)
        assert len(runs) == count

    check(1)
    for k, change in enumerate((step, small, interpreted, lambda: w.assign(_array(150, 131)), step), 2):
        change()
        check(k)
    gw.Variable(_array(3)).assign(_array(3))
    step.compiled.executable.general()  # the general way
    check(7)


def test_other_variables_do_not_count():
    f, *_ = _layer()
    x, other = _array(3, 150), gw.Variable(np.float32(0))
    f(x)
    f.compiled.executable.general.preparation._run = lambda: pytest.fail("it was computed again")
    bump = gw.function([], [], updates={other: other + 1})
    for _ in range(3):
        bump()
        other.assign(1)
        f(x)


def test_threads_that_call_while_a_variable_changes():
    f, w, b = _layer()
    x = np.ones((2, 150), np.float32)
    b.assign(np.ones(131, np.float32))
    values = [np.full((150, 131), k / 8, np.float32) for k in range(8)]
    w.assign(values[0])
    done = threading.Event()
    faults = []

    def call():
        while not done.is_set():
            y = f(x)
            if not np.isfinite(y).all():
                faults.append(y)

    threads = [threading.Thread(target=call) for _ in range(3)]
    for t in threads:
        t.start()
    for k in range(40):
        w.assign(values[k % 8])
    done.set()
    for t in threads:
        t.join()
    assert not faults
    np.testing.assert_allclose(f(x), _expected(x, w, b), rtol=1e-5)


def test_a_profile_and_an_artifact_of_it(tmp_path):
    f, *_ = _layer()
    x = _array(4, 150)
    expected = f(x)
    profiled = Profiled(f.compiled)
    np.testing.assert_array_equal(profiled(x), expected)
    assert any("unpack" in k.name for k in profiled.profile.kernels)
    gw.export(tmp_path / "m.gwa", {"layer": f})
    loaded = gw.load(tmp_path / "m.gwa")
    np.testing.assert_allclose(loaded.layer(x), expected, rtol=1e-6)


def test_the_code_comes_from_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GRAPHWRIGHT_CACHE_DIR", str(tmp_path))
    f, *_ = _layer()
    x = _array(4, 150)
    expected = f(x)
    monkeypatch.setattr(CpuLowered, "image", lambda self: pytest.fail("it was compiled again"))
    lowered = CpuLowered(f.graph, host_target(), prepare=True)
    again = Compiled(lowered, *machine_code(lowered, f.compiled.signature.structure), f.cells)
    np.testing.assert_array_equal(again.executable(x), expected)


@pytest.mark.parametrize("seed", range(30))
def test_random_graphs(seed, monkeypatch):
    """Also where no matrix is worth it, programs with prepared states compute what others do."""
    packed = prepare_pass._packed
    monkeypatch.setattr(prepare_pass, "_packed", lambda g, *rest: replace(packed(g, *rest)))
    monkeypatch.setattr(panels, "LEAST", 1)
    graph = random_graph(Draw.seeded(seed))
    target = replace(host_target(), model=CpuModel(vector_bytes=16, registers=16))
    structure = ["list", *["*"] * len(graph.outputs)]
    case, inputs = Case(graph), arrays_for(graph.inputs, SMALL, seed)
    states = arrays_for(graph.states, SMALL, seed + 1)
    found = []
    for prepared in (False, True):
        lowered, cells = CpuLowered(graph, target, prepare=prepared), case.cells(states)
        f = Compiled(lowered, *machine_code(lowered, structure), cells).executable
        results = [f(*inputs) for _ in range(2)]
        found.append([*results, [c.value for c in cells]])
    np.testing.assert_equal(*found)


@pytest.mark.parametrize(("kernel", "side", "stride", "padding"), [
    ((128, 64, 3, 3), 28, 2, 1), ((40, 128, 1, 1), 7, 2, 0), ((33, 48, 3, 3), 14, 2, 1), ((70, 64, 1, 1), 13, 1, 0),
    ((100, 64, 5, 5), 9, 1, 2), ((64, 3, 7, 7), 30, 2, 3),
])  # fmt: skip
def test_convolutions_along_their_outputs(kernel, side, stride, padding):
    """Where rows of the result are short or strided, vectors run along the outputs; no bit differs."""
    w, b = gw.Variable(_array(*kernel), name="W"), gw.Variable(_array(kernel[0]), name="b")
    x = gw.placeholder("x", "float32", ("N", kernel[1], side, side))
    f, plain = (
        gw.function([x], gw.nn.relu(gw.nn.conv2d(x, w, b, stride, padding)), prepare=prepared)
        for prepared in (True, False)
    )
    assert "unpack_kernel" in f.ir() and "unpack_kernel" not in plain.ir()
    for n in (0, 1, 3):
        a = _array(n, kernel[1], side, side)
        np.testing.assert_array_equal(f(a), plain(a))
    w.assign(_array(*kernel))
    np.testing.assert_array_equal(f(a), plain(a))


KERNEL = """\
graphwright.graph v1
func @f(%x: f32[N, 64, 15, 15]) state(%W: f32[40, 64, 3, 3]) -> (f32[N, 40, 7, 7]) {
  %0 = conv %x, %W {stride = (2, 2), padding = ((0, 0), (0, 0)), dilation = (1, 1)} : f32[N, 40, 7, 7]
  return %0
}
"""


def test_a_kernel_in_panels():
    main, preparation = prepare(parse_graph(KERNEL), WIDE)
    assert "%0 = unpack_kernel %prepared.0 {outputs = 40} : f32[40, 64, 3, 3]" in print_graph(main)
    assert "%2 = transpose %1 {perm = (0, 2, 3, 4, 1)} : f32[3, 64, 3, 3, 16]" in print_graph(preparation)
    assert prepare(parse_graph(KERNEL.replace("7]", "57]").replace("15]", "115]")), WIDE)[1] is None

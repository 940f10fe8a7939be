"""The native entry from Python: the same as the general way, whatever it is called with."""

from __future__ import annotations

import gc
import multiprocessing
import subprocess
import sys
import threading
import tracemalloc
import weakref
from typing import Any

import numpy as np
import pytest
from native_code import ENTRY, image_of

import graphwright as gw
from graphwright.compiler.driver import native_entry
from graphwright.errors import ArgumentError, DimensionError, GraphwrightError
from graphwright.runtime import native_call
from graphwright.runtime.executable import Executable
from graphwright.runtime.signature import Signature, Slot

if not native_call.is_supported():
    pytest.skip("this interpreter has other objects: all calls go the general way", allow_module_level=True)


def executable(function: gw.Function) -> Executable:
    found = function.compiled.executable
    assert isinstance(found, Executable)
    assert found.native
    return found


def general_calls(function: gw.Function, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that grows with each call that the native entry leaves to the general way."""
    calls: list[int] = []
    plain = type(executable(function).general).__call__

    def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
        calls.append(len(args))
        return plain(self, *args, **kwargs)

    monkeypatch.setattr(type(executable(function).general), "__call__", counted)
    return calls


@pytest.fixture(scope="module")
def scaled() -> gw.Function:
    a, x = gw.placeholder("a", "float32", ()), gw.placeholder("x", "float32", ("N", 3))
    return gw.function([a, x], a * x + x, name="scaled")


def test_objects_say_which_entry_they_have(scaled: gw.Function) -> None:
    assert repr(executable(scaled)).endswith("native entry>")
    assert type(scaled.__call__).__name__ == "builtin_function_or_method"
    assert scaled.__call__ is scaled.compiled.executable.__call__
    assert "given by position or by name" in (type(scaled).__dict__["__call__"].__doc__ or "") or callable(scaled)


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int8", "int32", "int64", "uint64", "float32", "float64"])
def test_numbers_for_inputs_without_axes(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x = gw.placeholder("x", dtype, ())
    f = gw.function([x], gw.where(x == x, x, x))
    general = executable(f).general
    numbers = (
        0, 1, -1, 127, 128, 255, 256, 2**24, 2**24 + 1, 2**31, -(2**31), 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1,
        2**80, True, 0.1, -2.5, 3e38, 3.5e38, 1e300, float("inf"), float("-inf"), float("nan"), -0.0, 1e-45, 1e-46, 1j,
        "1", None,
    )  # fmt: skip
    kind = np.dtype(dtype)
    arrays = [np.array(3).astype(kind), kind.type(1), np.array(3, "int16"), np.float64(0.1), np.float32(0.1)]
    for given in (*numbers, *arrays):
        try:
            want = general(given)
        except GraphwrightError as error:
            with pytest.raises(type(error)) as raised:
                f(given)
            assert str(raised.value) == str(error)
        else:
            got = f(given)
            assert type(got) is np.ndarray and got.dtype == want.dtype and got.shape == ()
            assert got.tobytes() == want.tobytes(), given
    calls = general_calls(f, monkeypatch)
    f(np.array(1).astype(dtype))
    f(np.dtype(dtype).type(1))
    if dtype != "bool":
        f(1)
    if dtype.startswith("float"):
        f(0.5)
    assert not calls


def test_known_sizes_stay_native(scaled: gw.Function, monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = {n: np.arange(3 * n, dtype=np.float32).reshape(n, 3) for n in (0, 1, 2, 5, 1000)}
    for x in arrays.values():
        scaled(2.0, x)
    calls = general_calls(scaled, monkeypatch)
    for x in arrays.values():
        got = scaled(2.0, x)
        np.testing.assert_array_equal(got, 3 * x)
        assert got.shape == x.shape
        assert got.flags.c_contiguous and got.flags.writeable and got.flags.aligned
        assert got.nbytes <= 1024 or got.ctypes.data % 64 == 0
    assert not calls
    scaled(2.0, np.zeros((7, 3), np.float32))
    assert len(calls) == 1


def test_many_sizes(scaled: gw.Function) -> None:
    """More than the entry remembers; two that share a place are told apart."""
    for _ in range(2):
        for n in range(300):
            x = np.full((n, 3), n, np.float32)
            np.testing.assert_array_equal(scaled(1.0, x), 2 * x)


class Sub(np.ndarray[Any, Any]):
    """No array of its own kind."""


def forms(x: np.ndarray[Any, Any]) -> dict[str, Any]:
    """Harmless ways to give an array."""
    raw = np.zeros(x.nbytes + 1, np.uint8)
    unaligned = raw[1:].view(x.dtype).reshape(x.shape)
    unaligned[...] = x
    frozen = x.copy()
    frozen.setflags(write=False)
    spread = np.zeros((2 * x.shape[0], *x.shape[1:]), x.dtype)
    spread[::2] = x
    swapped = x.astype(x.dtype.newbyteorder())
    return {
        "plain": x, "read-only": frozen, "unaligned": unaligned, "spread": spread[::2], "fortran": np.asfortranarray(x),
        "backward": x[::-1].copy()[::-1], "swapped": swapped, "subclass": x.view(Sub),
        "list": x.tolist(), "buffer": memoryview(x),
    }  # fmt: skip


def test_forms_of_arrays(scaled: gw.Function, monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.arange(12, dtype=np.float32).reshape(4, 3)
    scaled(1.0, x)
    calls = general_calls(scaled, monkeypatch)
    native = set()
    for name, form in forms(x).items():
        calls.clear()
        got = scaled(2.0, form)
        assert type(got) is np.ndarray
        np.testing.assert_array_equal(got, 3 * x, err_msg=name)
        np.testing.assert_array_equal(scaled(x=form, a=2.0), 3 * x, err_msg=name)
        if len(calls) == 1:  # the call with names
            native.add(name)
    assert native == {"plain", "read-only"}


def test_refusals_are_those_of_the_general_way(scaled: gw.Function) -> None:
    x = np.zeros((4, 3), np.float32)
    scaled(1.0, x)
    for args, kwargs, kind in (
        ((), {}, ArgumentError),
        ((1.0,), {}, ArgumentError),
        ((1.0, x, x), {}, ArgumentError),
        ((1.0, x), {"x": x}, ArgumentError),
        ((1.0,), {"y": x}, ArgumentError),
        ((1.0, x.astype(np.float64)), {}, ArgumentError),
        ((1.0, x[0]), {}, ArgumentError),
        ((1.0, x.T), {}, ArgumentError),
        ((1.0, np.zeros((4, 4), np.float32)), {}, ArgumentError),
        ((x, x), {}, ArgumentError),
        ((1.0, None), {}, ArgumentError),
        ((1.0, np.ma.array(x)), {}, ArgumentError),
    ):
        with pytest.raises(kind) as expected:
            executable(scaled).general(*args, **kwargs)
        with pytest.raises(kind) as raised:
            scaled(*args, **kwargs)
        assert str(raised.value) == str(expected.value)


def test_contradicting_sizes() -> None:
    x, y = gw.placeholder("x", "float32", ("N", "M")), gw.placeholder("y", "float32", ("M", "2*N"))
    f = gw.function([x, y], x @ y)
    for n, m in ((2, 3), (3, 2), (0, 4)):
        a, b = np.ones((n, m), np.float32), np.ones((m, 2 * n), np.float32)
        for _ in range(2):
            np.testing.assert_array_equal(f(a, b), a @ b)
    for shapes in (((2, 3), (3, 2)), ((2, 3), (2, 4)), ((3, 3), (3, 4))):
        with pytest.raises(DimensionError):
            f(*(np.ones(s, np.float32) for s in shapes))


def test_outputs_are_nested() -> None:
    x = gw.placeholder("x", "float32", ("N",))
    y, z = x + 1.0, x * 2.0
    value = np.arange(5, dtype=np.float32)
    for tree in (y, [y], (y,), [y, z], (y, z), {"a": y}, {"a": y, "b": z}, {"a": [y, (z, None)]}, [], None, {}, ([y],)):
        f = gw.function([x], tree)
        want = executable(f).general(value)
        for _ in range(2):
            got = f(value)
            assert type(got) is type(want)
            assert repr(got) == repr(want)


def test_updates_and_overlap() -> None:
    v = gw.Variable(np.zeros((4, 2), np.float32), name="v")
    w = gw.Variable(np.zeros((4, 2), np.float32), name="w")
    g = gw.placeholder("g", "float32", (4, 2))
    f = gw.function([g], v - 0.0, updates=[(v, w + g), (w, v + 2.0 * g)])
    ones = np.ones((4, 2), np.float32)
    storage = {cell.name: cell.view for cell in f.cells}["v"]
    wanted_v, wanted_w = np.zeros((2, 4, 2), np.float32)
    for k in range(6):
        given = storage if k % 2 else ones  # the storage of a variable that is overwritten
        want = wanted_v.copy() if k % 2 else ones
        np.testing.assert_array_equal(f(given), wanted_v)
        wanted_v, wanted_w = wanted_w + want, wanted_v + 2 * want
        np.testing.assert_array_equal(v.value, wanted_v)
        np.testing.assert_array_equal(w.value, wanted_w)


def test_results_do_not_share_memory(scaled: gw.Function) -> None:
    for n in (1, 200):
        x = np.ones((n, 3), np.float32)
        first = scaled(1.0, x)
        second = scaled(2.0, x)
        assert not np.shares_memory(first, second)
        np.testing.assert_array_equal(first, 2 * x)


def test_nothing_leaks() -> None:
    a, x = gw.placeholder("a", "float32", ()), gw.placeholder("x", "float32", ("N",))
    v = gw.Variable(np.zeros(3, np.float32), name="v")
    f = gw.function([a, x], {"a": a * x, "b": [x + 1.0]}, updates=[(v, v + a)])
    array, number = np.ones(500, np.float32), np.float32(2)
    dtype, wrong = np.dtype(np.float32), np.ones(3)

    def calls(n: int) -> None:
        for _ in range(n):
            f(number, array)
            f(1.5, array)
            f(2, array)
        for _ in range(n // 10):
            f(a=number, x=array)
            with pytest.raises(ArgumentError):
                f(number, wrong)

    calls(100)
    things = (array, number, dtype, np.ndarray, np.dtype(np.uint8), wrong, executable(f).general, *f.cells)
    gc.collect()
    before = [sys.getrefcount(thing) for thing in things]
    tracemalloc.start()
    calls(500)
    gc.collect()
    low = tracemalloc.get_traced_memory()[0]
    calls(10000)
    gc.collect()
    high = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert high - low < 100_000  # of 30000 calls
    assert all(abs(sys.getrefcount(t) - n) < 20 for t, n in zip(things, before, strict=True))


def test_functions_are_released_without_the_collector() -> None:
    gc.collect()
    gc.disable()
    try:
        x = gw.placeholder("x", "float32", ("N",))
        f = gw.function([x], x + 1.0)
        f(np.ones(3, np.float32))
        made = executable(f)
        alive = weakref.ref(made), weakref.ref(made.general)
        held, call = f.cells, made.__call__
        del f, made
        assert alive[0]() is None
        np.testing.assert_array_equal(call(np.ones(3, np.float32)), np.full(3, 2.0))
        del call, held
        assert alive[1]() is None
    finally:
        gc.enable()


def test_threads_call_at_once() -> None:
    """Updates are whole, temporaries and plans are not mixed up, whatever the sizes."""
    x = gw.placeholder("x", "float32", ("N", 32))
    total = gw.Variable(np.zeros((), np.int64), name="total")
    f = gw.function([x], gw.nn.softmax(x @ x.T), updates=[(total, total + 1)])
    inputs = {n: np.random.default_rng(n).normal(size=(n, 32)).astype(np.float32) for n in range(1, 120, 3)}
    want = {n: f(a) for n, a in inputs.items()}
    wrong: list[Any] = []

    def work(seed: int) -> None:
        sizes = np.random.default_rng(seed).choice(list(inputs), 400)
        for n in map(int, sizes):
            if not np.array_equal(f(inputs[n]), want[n]):
                wrong.append(n)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong
    assert int(total.value) == len(inputs) + 4 * 400


def test_scratch_memory_is_shared_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    arena = native_call.NativeArena(native_entry())
    blocks = [arena.take(1000 * k + 1) for k in range(12)]
    assert len({block[1] for block in blocks}) == 12
    assert all(block[1] % 64 == 0 for block in blocks)
    for block in blocks:
        arena.give(block)
    assert len(native_call._blocks) <= native_call._KEPT_BLOCKS
    x = gw.placeholder("x", "float32", ("N", 32))
    f = gw.function([x], gw.nn.softmax(x @ x.T) @ x)
    value = np.ones((300, 32), np.float32)
    assert f.memory(N=300) > 0
    f(value)
    calls = general_calls(f, monkeypatch)
    for _ in range(3):
        np.testing.assert_allclose(f(value), value, rtol=1e-5)
    assert not calls
    held = [arena.take(1) for _ in range(native_call._KEPT_BLOCKS)]  # none is left, so the general way makes one
    np.testing.assert_allclose(f(value), value, rtol=1e-5)
    assert calls
    for block in held:
        arena.give(block)
    assert len(native_call._blocks) <= native_call._KEPT_BLOCKS


def test_a_held_lock_is_waited_for() -> None:
    v = gw.Variable(np.zeros(3, np.float32), name="v")
    f = gw.function([], None, updates=[(v, v + 1.0)])
    f()
    started, done = threading.Event(), threading.Event()

    def work() -> None:
        started.set()
        f()
        done.set()

    with f.cells[0].lock:
        thread = threading.Thread(target=work)
        thread.start()
        assert started.wait(10)
        assert not done.wait(0.05)
        f()  # the holder itself may go on
    thread.join(10)
    assert done.is_set()
    np.testing.assert_array_equal(v.value, np.full(3, 3.0))


def _child(f: gw.Function, value: np.ndarray[Any, Any], pipe: Any) -> None:
    pipe.send([f(value) for _ in range(3)])


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_fork_while_a_lock_is_held() -> None:
    x, v = gw.placeholder("x", "float32", ("N",)), gw.Variable(np.zeros(3, np.float32), name="v")
    f = gw.function([x], x + gw.sum(v), updates=[(v, v + 1.0)])
    value = np.ones(4, np.float32)
    f(value)
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    released, held = threading.Event(), threading.Event()

    def hold() -> None:
        with f.cells[0].lock:
            held.set()
            released.wait(30)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(10)
    child = context.Process(target=_child, args=(f, value, there))
    child.start()
    try:
        assert here.poll(30)
        for k, got in enumerate(here.recv(), 1):
            np.testing.assert_array_equal(got, np.full(4, 1.0 + 3.0 * k))
    finally:
        released.set()
        holder.join()
        child.join(10)


def test_errors_of_native_code_raise() -> None:
    signature = Signature("f", (), (), (), (Slot("o", "float32", (3,)),))
    f = Executable(image_of(f"define i32 @f{ENTRY} {{ ret i32 3 }}"), "f", signature, (), native_entry())
    assert f.native
    for call in (f, f.general):
        with pytest.raises(GraphwrightError, match="f: the compiled code returned error 3"):
            call()


def test_without_memory() -> None:
    x = gw.placeholder("x", "float32", ("N",))
    n = gw.function([x], gw.zeros(("N*N", 2**30), "float32"))
    value = np.ones(2**10, np.float32)
    for _ in range(2):
        with pytest.raises((MemoryError, ValueError)):
            n(value)
    assert n(np.ones(0, np.float32)).shape == (0, 2**30)


def test_artifacts_bring_their_native_entry(tmp_path: Any) -> None:
    x, v = gw.placeholder("x", "float32", ("N",)), gw.Variable(np.zeros(3, np.float32), name="v")
    path = tmp_path / "model.gwa"
    gw.export(path, {"step": gw.function([x], x + gw.sum(v), updates=[(v, v + 1.0)]), "read": gw.function([], v - 0.0)})
    code = f"""
import sys
import numpy as np, graphwright as gw
model = gw.load({str(path)!r})
for k in range(3):
    assert (model.step(np.ones(4, np.float32)) == 1 + 3 * k).all()
    assert (model.read() == k + 1).all()
assert model.step.native and model.read.native, model
assert "llvmlite" not in sys.modules and not any(m.startswith("graphwright.compiler") for m in sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)

"""The memory of large results: used again when nothing refers to it any more, and never before."""

from __future__ import annotations

import gc
import pickle
import threading

import numpy as np
import pytest

import graphwright as gw
from graphwright.runtime import native_call, recycling
from graphwright.runtime.recycling import RECYCLED, Shelf, new_result

FLOAT = np.dtype("float32")


def test_memory_comes_back_with_the_last_view():
    shelf = Shelf()
    a = shelf.empty((1000, 3), FLOAT, 12_000)
    assert a.shape == (1000, 3) and a.dtype == FLOAT and a.flags.c_contiguous and a.flags.writeable
    address = a.ctypes.data
    assert address % 64 == 0
    view = a[10:20].T
    del a
    assert shelf.nbytes == 0 and shelf.empty((1000, 3), FLOAT, 12_000).ctypes.data != address
    del view
    gc.collect()
    again = [shelf.empty((3000,), FLOAT, 12_000), shelf.empty((3000,), FLOAT, 12_000)]
    assert address in [b.ctypes.data for b in again] and shelf.nbytes == 0


def test_only_memory_that_fits_is_taken():
    shelf = Shelf()
    shelf.empty((4000,), FLOAT, 16_000)
    assert shelf.nbytes == 16_000
    small, large = shelf.empty((1000,), FLOAT, 4000), shelf.empty((5000,), FLOAT, 20_000)
    assert shelf.nbytes == 16_000
    near = shelf.empty((3500,), FLOAT, 14_000)
    assert shelf.nbytes == 0 and near.nbytes == 14_000 and small.nbytes < large.nbytes


def test_what_is_kept_has_a_bound():
    shelf = Shelf(most=30_000)
    arrays = [shelf.empty((2500,), FLOAT, 10_000) for _ in range(7)]
    del arrays
    gc.collect()
    assert shelf.nbytes == 30_000
    shelf.clear()
    assert shelf.nbytes == 0


def test_small_results_are_numpys_own():
    array, address = new_result((10,), FLOAT, 40)
    assert address == array.ctypes.data and address % 64 == 0


@pytest.fixture
def low(monkeypatch):
    """Results of 4 KB are large."""
    for module in (recycling, native_call):
        monkeypatch.setattr(module, "RECYCLED", 4096)
    monkeypatch.setattr(recycling, "_shelf", Shelf())


def test_results_of_calls(low):
    x = gw.placeholder("x", "float32", ("N",))
    f = gw.function([x], [x + 1, gw.sum(x)])
    data = np.arange(5000, dtype=np.float32)
    kept = f(data)[0]
    address = f(data)[0].ctypes.data  # gone at once
    again = f(data * 2)[0]
    assert again.ctypes.data == address != kept.ctypes.data
    np.testing.assert_array_equal(kept, data + 1)
    np.testing.assert_array_equal(again, data * 2 + 1)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(kept)), kept)
    np.testing.assert_array_equal(f(kept)[0], data + 2)  # as an argument
    assert f(data[:3])[0].tolist() == [1, 2, 3]


def test_threads(low):
    x = gw.placeholder("x", "float32", ("N",))
    f = gw.function([x], x * 2)
    wrong = []

    def work(k):
        data = np.full(3000, k, np.float32)
        for _ in range(200):
            a, b = f(data), f(data + 1)
            if a[0] != 2 * k or b[-1] != 2 * k + 2 or not (a == 2 * k).all():
                wrong.append(k)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


def test_the_bound_is_in_use():
    x = gw.placeholder("x", "uint8", ("N",))
    f = gw.function([x], x + 1)
    data = np.zeros(RECYCLED, np.uint8)
    address = f(data).ctypes.data
    assert f(data).ctypes.data == address
    recycling._shelf.clear()

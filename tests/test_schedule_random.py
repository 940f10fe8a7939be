"""The schedule of loops that draw: where it applies, by text and by values; elsewhere the definition stands."""

from __future__ import annotations

import re

import numpy as np
import pytest
from checks import graph, input_value

from graphwright.ir import dims
from graphwright.ir.dtypes import float32, uint32, uint64
from graphwright.ir.interpret_loops import interpret_kernel
from graphwright.ir.op import OPS
from graphwright.ir.printer import print_kernel
from graphwright.ir.verify import verify_kernel
from graphwright.passes.cpu_model import CpuModel
from graphwright.passes.lower_to_loops import lower_to_loops
from graphwright.passes.schedule_cpu import schedule_cpu

N = dims.symbol("N")
KEY = np.array([1, 2, 3, 4], np.uint32)


def draw(key, shape, dtype=uint32, stream=0):
    return OPS["random_bits"](key, shape=shape, dtype=dtype, stream=stream)


def scheduled(inputs, outputs):
    declarative = lower_to_loops(graph(inputs, outputs), "k")
    kernel = schedule_cpu(declarative, CpuModel())
    verify_kernel(kernel)
    return declarative, kernel


def shape_of(text):
    """The lines of a kernel's loops and stores; what is stored is cut off."""
    lines = [re.sub(r" = .*\bcast.*", " = ...", line) for line in text.splitlines() if not re.match(r" *\$", line)]
    return "\n".join(lines[2:-1])


def test_words_are_written_before_they_are_used():
    key, x = input_value("key", (4,), "uint32"), input_value("x", (N, 8), "float32")
    drop = OPS["lt"](draw(key, (N, 8)), 2**31)
    _, kernel = scheduled([key, x], [OPS["where"](drop, 0, x)])
    assert shape_of(print_kernel(kernel)) == """\
  parallel i1p = 0..((8*N + 2047) // 2048) {
    alloc %bits0: u32[2048] local
    for i1q = 0..((min(2048, 8*N - 2048*i1p) + 63) // 64) {
      vector(8) i1l = 0..16 {
        store %bits0[i1l + 64*i1q] = ...
        store %bits0[i1l + 64*i1q + 16] = ...
        store %bits0[i1l + 64*i1q + 32] = ...
        store %bits0[i1l + 64*i1q + 48] = ...
      }
    }
    vector(16) i1 = 0..min(2048, 8*N - 2048*i1p) {
      store %out0[i1 + 2048*i1p] = select(load %bits0[i1] < 2147483648:u32, 0.0, load %in1[i1 + 2048*i1p])
    }
  }"""


def test_words_of_64_bits_are_pairs():
    key = input_value("key", (4,), "uint32")
    _, kernel = scheduled([key], [draw(key, (100,), uint64)])
    text = shape_of(print_kernel(kernel))
    assert "alloc %bits0: u64[128] local" in text and "[i0l + 32*i0q + 16]" in text and "+ 48]" not in text


@pytest.mark.parametrize("size", [0, 1, 63, 64, 65, 2048, 2049])
def test_what_is_drawn_is_what_was_defined(size):
    """Two draws of different widths, another tensor, and two results beside each other."""
    key, x = input_value("key", (4,), "uint32"), input_value("x", (N,), "float32")
    a, b = draw(key, (N,), stream=1), draw(key, (N,), uint64, 2)
    outputs = [OPS["mul"](OPS["cast"](a, dtype=float32), x), OPS["bitwise_xor"](b, OPS["cast"](a, dtype=uint64))]
    declarative, kernel = scheduled([key, x], outputs)
    assert "vector(8) i0l" in print_kernel(kernel) and "u64[2048]" in print_kernel(kernel)
    values = [KEY, np.arange(size, dtype=np.float32)]
    for found, wanted in zip(*(interpret_kernel(k, values, {"N": size}) for k in (kernel, declarative)), strict=True):
        np.testing.assert_array_equal(found, wanted)


def floats(key, *shape):
    return OPS["cast"](draw(key, shape), dtype=float32)


ELSEWHERE = {
    "a transposed draw": lambda key, x: OPS["add"](x, OPS["transpose"](floats(key, 5, N), perm=(1, 0))),
    "a draw for each row": lambda key, x: OPS["add"](x, OPS["broadcast"](floats(key, N), shape=(N, 5), dims=(0,))),
    "a sum": lambda key, x: OPS["sum"](OPS["mul"](x, floats(key, N, 5)), axes=(1,)),
}


@pytest.mark.parametrize("name", ELSEWHERE)
def test_other_loops_stay_as_they_are_defined(name):
    key, x = input_value("key", (4,), "uint32"), input_value("x", (N, 5), "float32")
    declarative, kernel = scheduled([key, x], [ELSEWHERE[name](key, x)])
    assert "%bits0" not in print_kernel(kernel)
    values = [KEY, np.ones((7, 5), np.float32)]
    (found,), (wanted,) = (interpret_kernel(k, values, {"N": 7}) for k in (kernel, declarative))
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_a_mask_that_is_a_result_too():
    """As in training, where the gradient needs it."""
    key, x = input_value("key", (4,), "uint32"), input_value("x", (N, 8), "float32")
    drop = OPS["lt"](draw(key, (N, 8)), 2**31)
    declarative, kernel = scheduled([key, x], [OPS["where"](drop, 0, x), drop])
    assert print_kernel(kernel).count("alloc %bits0: u32[2048] local") == 1
    values = [KEY, np.ones((300, 8), np.float32)]
    for found, wanted in zip(*(interpret_kernel(k, values, {"N": 300}) for k in (kernel, declarative)), strict=True):
        np.testing.assert_array_equal(found, wanted)

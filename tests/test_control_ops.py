"""The ops of control flow: text, type rules, meaning."""

from __future__ import annotations

import numpy as np
import pytest

from graphwright.errors import GraphwrightError
from graphwright.ir.dims import symbol
from graphwright.ir.dtypes import float32, float64, int64
from graphwright.ir.graph import Graph, make
from graphwright.ir.interpreter import interpret
from graphwright.ir.op import OPS
from graphwright.ir.parser import parse_graph
from graphwright.ir.printer import print_graph
from graphwright.ir.verify import verify_graph

TEXT = """\
graphwright.graph v1
func @f(%h: f32[N], %xs: f32[T, N], %k: f32[N], %p: i64[]) -> (f32[N], f32[T, N], f32[N], i64[], f32[10], f32[N]) {
  %0 = scan %h, %xs, %k, %p {carries = 1, sequences = 1, length = T, reverse = true, counted = true} \
(%c0: f32[N], %x0: f32[N], %k0: f32[N]) -> (f32[N], f32[N]) {
    %0 = mul %c0, %k0 : f32[N]
    %1 = add %0, %x0 : f32[N]
    return %1, %0
  } : (f32[N], f32[T, N])                                     loc("text.py":3)
  %1 = item %0 {index = 0} : f32[N]
  %2 = item %0 {index = 1} : f32[T, N]
  %3 = while %h, %k {carries = 1, max_steps = 10} @condition(%c0: f32[N], %k0: f32[N]) -> (bool[]) {
    %0 = sum %c0 {axes = (0)} : f32[]
    %1 = lt %0, 100.0 : bool[]
    return %1
  }, @body(%c0: f32[N], %k0: f32[N]) -> (f32[N], f32[]) {
    %0 = mul %c0, %k0 : f32[N]
    %1 = sum %c0 {axes = (0)} : f32[]
    return %0, %1
  } : (f32[N], i64[], f32[10])
  %4 = item %3 {index = 0} : f32[N]
  %5 = item %3 {index = 1} : i64[]
  %6 = item %3 {index = 2} : f32[10]
  %7 = switch %p, %h, %k (%k0: f32[N], %k1: f32[N]) -> (f32[N]) {
    return %k0
  }, (%k0: f32[N], %k1: f32[N]) -> (f32[N]) {
    return %k1
  } : (f32[N])
  %8 = item %7 {index = 0} : f32[N]
  return %1, %2, %4, %5, %6, %8
}
"""


def test_text_is_canonical():
    graph = parse_graph(TEXT)
    verify_graph(graph)
    assert print_graph(graph) == TEXT
    assert parse_graph(TEXT).outputs == graph.outputs


@pytest.mark.parametrize("steps", [-1, 0, 2, 3, 9])
def test_meaning(steps):
    h, k = np.array([1, 2], np.float32), np.array([3, 2], np.float32)
    xs = np.arange(6, dtype=np.float32).reshape(3, 2)
    (last, stacked, end, count, sums, picked), _ = interpret(parse_graph(TEXT), [h, xs, k, np.array(steps)])
    c, rows = h, np.zeros((3, 2), np.float32)
    for i in reversed(range(min(max(steps, 0), 3))):
        rows[i] = c * k
        c = rows[i] + xs[i]
    np.testing.assert_array_equal(last, c)
    np.testing.assert_array_equal(stacked, rows)
    np.testing.assert_array_equal(end, [81, 32])
    assert count == 4
    np.testing.assert_array_equal(sums, [3, 7, 17, 43, 0, 0, 0, 0, 0, 0])
    np.testing.assert_array_equal(picked, k if steps > 0 else h)


def tensor(name, *shape, dtype=float32):
    return OPS["input"](name=name, shape=shape, dtype=dtype)


n = symbol("N")
H, XS, C, X, W = tensor("h", n), tensor("xs", 5, n), tensor("c0", n), tensor("x0", n), tensor("x0", 3)
STEP = Graph("region", (C, X), (), (C + X,))
TRUE = Graph("condition", (C,), (), (OPS["ge"](OPS["sum"](C, axes=(0,)), 0.0),))
SCAN = {**OPS["scan"].attrs, "carries": 1, "sequences": 1, "length": 5}
SAME = Graph("region", (C,), (), (C,))


@pytest.mark.parametrize(
    ("op", "operands", "attrs", "regions", "message"),
    [
        ("scan", (H, XS), SCAN, (), r"runs 1 regions \(body\), got 0"),
        ("scan", (H,), SCAN, (STEP,), "carries and sequences need 2 operands, got 1"),
        ("scan", (H, XS), {**SCAN, "carries": -1}, (STEP,), "carries = -1 is no number"),
        ("scan", (H, XS), {**SCAN, "length": -1}, (STEP,), "the length -1 is negative"),
        ("scan", (H, XS), {**SCAN, "length": 4}, (STEP,), r"sequence 0 is f32\[5, N\], its first axis must be"),
        ("scan", (H, XS), SCAN, (Graph("region", (C, W), (), (C,)),), r"element of sequence 0 is f32\[N\], its body"),
        ("scan", (H, XS), SCAN, (Graph("region", (C,), (), (C,)),), "its body takes 1 inputs, not 2"),
        ("scan", (H, XS), SCAN, (Graph("region", (C, X), (), ()),), "its body gives 0 values for 1 carries"),
        ("scan", (H, XS), SCAN, (Graph("region", (C, X), (), (OPS["cast"](C, dtype=float64),)),),
         r"carry 0 is f32\[N\] before a step and f64\[N\] after it"),
        ("scan", (H, XS), {**SCAN, "counted": True}, (STEP,), r"the number of steps, must be i64\[\], got None"),
        ("scan", (H, XS), {**SCAN, "checkpoint": 4}, (STEP,), "checkpoint = 4 must be true or false"),
        ("scan", (H, XS), {**SCAN, "unroll": 0}, (STEP,), "unroll = 0 must be a positive integer"),
        ("while", (H,), {"carries": 1, "max_steps": None}, (SAME, SAME), r"its condition gives f32\[N\], not one bool"),
        ("while", (H,), {"carries": 1, "max_steps": -2}, (TRUE, SAME), "max_steps -2 is negative"),
        ("while", (H,), {"carries": 1, "max_steps": None}, (TRUE, Graph("body", (C,), (), (C, C))), "needs max_steps"),
        ("switch", (H,), {}, (SAME,), r"the index must be an integer scalar, got f32\[N\]"),
        ("switch", (tensor("i", dtype=int64),), {}, (), "has no branches"),
        ("switch", (tensor("i", dtype=int64), H), {}, (SAME, Graph("region", (C,), (), ())), "branch 1 gives 0"),
        ("switch", (tensor("i", dtype=int64), H), {}, (SAME, Graph("region", (C,), (), (OPS["sum"](C, axes=(0,)),))),
         r"result 0 is f32\[N\] in branch 0 and f32\[\] in branch 1"),
    ],
)  # fmt: skip
def test_wrong_use_is_refused(op, operands, attrs, regions, message):
    with pytest.raises(GraphwrightError, match=message):
        make(OPS[op], operands, attrs, regions)


def test_regions_are_compared_by_structure():
    add, again, sub = (Graph("region", (C, X), (), (y,)) for y in (C + X, C + X, C - X))
    values = [make(OPS["scan"], (H, XS), SCAN, (region,)) for region in (add, again, sub)]
    assert values[0] is values[1] and values[0] is not values[2]


def test_the_verifier_looks_into_bodies():
    stray = Graph("region", (C, X), (), (C + X + tensor("stray", n),))
    value = OPS["item"](make(OPS["scan"], (H, XS), SCAN, (stray,)), index=0)
    with pytest.raises(GraphwrightError, match="'stray' is used but is not in the signature"):
        verify_graph(Graph("f", (H, XS), (), (value,)))

"""Programs with loops and branches: text, verifier, meaning, planning and machine code of programs written by hand."""

from __future__ import annotations

import numpy as np
import pytest

from graphwright.compiler.driver import host_target
from graphwright.compiler.link import link
from graphwright.compiler.llvm.codegen import parse
from graphwright.compiler.llvm.program import emit_program
from graphwright.compiler.signature import formula
from graphwright.errors import ParseError, VerifyError
from graphwright.ir.dims import evaluate
from graphwright.ir.interpret_program import interpret_program
from graphwright.ir.parser import parse_program
from graphwright.ir.printer import print_program
from graphwright.ir.verify_program import verify_program
from graphwright.passes.plan_memory import plan_memory
from graphwright.runtime.buffers import Cell
from graphwright.runtime.executable import Executable
from graphwright.runtime.signature import Signature, Slot

ADD = """
kernel @add(in %a: f32[3], in %b: f32[3], out %y: f32[3]) {
  for i = 0..3 {
    store %y[i] = load %a[i] + load %b[i]
  }
}
"""
COPY = """
kernel @copy(in %a: f32[3], out %y: f32[3]) {
  for i = 0..3 {
    store %y[i] = load %a[i]
  }
}
"""

CUMSUM = """graphwright.program v1
program @cumsum symbols(T) arena(0) {
  input %x: f32[T, 3]
  input %start: f32[3]
  output %y: f32[T, 3]
  output %last: f32[3]
  temp %history: f32[T + 1, 3]
  temp %first: f32[3] alias %history
  temp %before: f32[3] alias %history at 12*t0
  temp %after: f32[3] alias %history at 12*t0 + 12
  temp %final: f32[3] alias %history at 12*T
  temp %element: f32[3] alias %x at 12*t0
  temp %row: f32[3] alias %y at 12*t0
  call @copy(%start) -> (%first)
  for t0 = 0..T {
    call @add(%before, %element) -> (%after)
    call @copy(%after) -> (%row)
  }
  call @copy(%final) -> (%last)
}
""" + COPY + ADD

REVERSED = """graphwright.program v1
program @reversed symbols(T) arena(0) {
  input %x: f32[T, 3]
  input %n: i64[]
  state %total: f32[3]
  output %y: f32[T, 3]
  temp %element: f32[3] alias %x at 12*t0
  temp %row: f32[3] alias %y at 12*t0
  temp %sum: f32[3]
  for t1 = 0..T {
    call @copy(%total) -> (%row.1)
  }
  for t0 = 0..T reverse count(%n) {
    call @add(%total, %element) -> (%sum)
    call @copy(%sum) -> (%total)
    call @copy(%sum) -> (%row)
  }
}
""".replace("  temp %sum", "  temp %row.1: f32[3] alias %y at 12*t1\n  temp %sum") + COPY + ADD

DOUBLING = """graphwright.program v1
program @doubling arena(0) {
  input %limit: f32[]
  state %x: f32[]
  output %rows: f32[5]
  output %ran: i64[]
  temp %more: bool[]
  temp %row: f32[] alias %rows at 4*t0
  call @zero() -> (%rows)
  loop t0 limit(5) steps(%ran) {
    call @less(%x, %limit) -> (%more)
    break unless %more
    call @copy(%x) -> (%row)
    call @double(%x) -> (%x)
  }
}

kernel @zero(out %y: f32[5]) {
  for i = 0..5 {
    store %y[i] = 0.0
  }
}

kernel @less(in %a: f32[], in %b: f32[], out %y: bool[]) {
  store %y[] = load %a[] < load %b[]
}

kernel @copy(in %a: f32[], out %y: f32[]) {
  store %y[] = load %a[]
}

kernel @double(in %a: f32[], out %y: f32[]) inplace(%y = %a) {
  store %y[] = load %a[] + load %a[]
}
"""

SWITCH = """graphwright.program v1
program @choose arena(0) {
  input %index: i32[]
  input %a: f32[3]
  input %b: f32[3]
  output %y: f32[3]
  temp %s: f32[3]
  switch %index {
  case 0 {
    call @copy(%a) -> (%y)
  }
  case 1 {
    call @copy(%b) -> (%y)
  }
  case 2 {
    call @add(%a, %b) -> (%s)
    call @add(%s, %s) -> (%y)
  }
  }
}
""" + COPY + ADD

TEXTS = {"cumsum": CUMSUM, "reversed": REVERSED, "doubling": DOUBLING, "switch": SWITCH}


def executable(program):
    """Machine code of a program; its states are new cells."""
    target = host_target()
    module = parse(emit_program(program, target), target)
    image = link(module.optimize().object_code(), triple=target.triple, features=target.required_features)

    def slots(kind):
        found = (s.buffer for s in program.slots if s.kind == kind)
        return tuple(Slot(b.name, b.dtype.name, tuple(map(formula, b.shape))) for b in found)

    states = slots("state")
    signature = Signature(
        program.name, program.symbols, slots("input"), states, slots("output"), formula(program.arena),
        tuple(range(len(states))), ["list", *["*"] * len(slots("output"))],
    )  # fmt: skip
    cells = [Cell(s.name, np.zeros(s.shape, s.dtype)) for s in states]
    return Executable(image, program.name, signature, cells), cells


def check(text, inputs, states, dims, expected):
    """Interpreter and machine code agree with what is expected, before and after memory is planned."""
    program = parse_program(text)
    verify_program(program, dims)
    planned = plan_memory(program)
    verify_program(planned, dims)
    text = print_program(planned)
    assert print_program(parse_program(text)) == text
    for form in (program, planned):
        outputs, new = interpret_program(form, inputs, states, dims)
        for actual, value in zip((*outputs, *new), expected, strict=True):
            np.testing.assert_array_equal(actual, value)
    run, cells = executable(planned)
    for cell, state in zip(cells, states):
        cell.array[...] = state
    outputs = run(*inputs)
    for actual, value in zip((*outputs, *(c.array for c in cells)), expected, strict=True):
        np.testing.assert_array_equal(actual, value)


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_the_text_is_canonical(text):
    assert print_program(parse_program(text)) == text


@pytest.mark.parametrize("length", [0, 1, 4])
def test_a_loop_reads_and_writes_parts_of_buffers(length):
    x = np.arange(3 * length, dtype=np.float32).reshape(length, 3)
    start = np.float32([10, 20, 30])
    y = start + np.cumsum(x, 0, dtype=np.float32)
    check(CUMSUM, [x, start], [], {"T": length}, [y, y[-1] if length else start])


@pytest.mark.parametrize("count", [-1, 0, 2, 4, 9])
def test_a_loop_runs_backwards_and_as_often_as_a_buffer_says(count):
    x = np.arange(12, dtype=np.float32).reshape(4, 3)
    total = np.float32([1, 2, 3])
    n = min(max(count, 0), 4)
    y = np.tile(total, (4, 1))
    y[:n] = total + np.cumsum(x[:n][::-1], 0)[::-1]
    check(REVERSED, [x, np.int64(count)], [total], {"T": 4}, [y, total + x[:n].sum(0)])


@pytest.mark.parametrize("limit", [0, 3, 10, 1000])
def test_a_while_loop_ends_by_its_condition_or_its_limit(limit):
    rows = [x for x in (1.0, 2.0, 4.0, 8.0, 16.0) if x < limit]
    last = np.float32(2.0 ** len(rows))
    expected = [np.float32(rows + [0] * (5 - len(rows))), np.int64(len(rows)), last]
    check(DOUBLING, [np.float32(limit)], [np.float32(1)], {}, expected)


@pytest.mark.parametrize("index", [-7, 0, 1, 2, 5])
def test_only_the_chosen_branch_runs(index):
    a, b = np.float32([1, 2, 3]), np.float32([4, 5, 6])
    check(SWITCH, [np.int32(index), a, b], [], {}, [(a, b, (a + b) + (a + b))[min(max(index, 0), 2)]])


def test_the_arena_counts_what_loops_need():
    program = plan_memory(parse_program(CUMSUM))
    for length in (0, 1, 100):
        size = 12 * (length + 1)
        assert evaluate(program.arena, {"T": length}) == -(-size // 64) * 64


def test_what_a_loop_reads_keeps_its_memory_while_the_loop_runs():
    text = """graphwright.program v1
program @keep arena(0) {
  input %x: f32[3]
  output %y: f32[3]
  temp %kept: f32[3]
  temp %inner: f32[3]
  temp %sum: f32[3]
  call @twice(%x) -> (%kept)
  call @twice(%x) -> (%sum)
  for t0 = 0..3 {
    call @twice(%kept) -> (%inner)
    call @plus(%inner, %sum) -> (%sum)
  }
  call @twice(%sum) -> (%y)
}

kernel @twice(in %a: f32[3], out %y: f32[3]) inplace(%y = %a) {
  for i = 0..3 {
    store %y[i] = load %a[i] + load %a[i]
  }
}

kernel @plus(in %a: f32[3], in %b: f32[3], out %y: f32[3]) inplace(%y = %a, %y = %b) {
  for i = 0..3 {
    store %y[i] = load %a[i] + load %b[i]
  }
}
"""
    x = np.float32([1, 2, 3])
    check(text, [x], [], {}, [28 * x])
    program = plan_memory(parse_program(text))
    assert len({program.slot(n).offset for n in ("kept", "inner", "sum")}) == 3


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("for t0 = 0..T {", "for t0 = 0..M {", "unknown symbol M"),
        ("for t0 = 0..T {", "for T = 0..T {", "index 'T' is taken"),
        ("at 12*t0 + 12\n", "at 12*t0 + 24\n", "which has 60"),
        ("call @copy(%final)", "call @copy(%after)", "depends on t0, which is unknown there"),
        ("call @copy(%start) -> (%first)\n", "", "reads %before before it is written"),
        ("alias %x at 12*t0", "alias %x at 12*q", "unknown symbol q"),
    ],
)
def test_a_wrong_loop_is_refused(old, new, message):
    assert old in CUMSUM
    with pytest.raises(VerifyError, match=message):
        verify_program(parse_program(CUMSUM.replace(old, new)), {"T": 4})


def test_what_one_branch_leaves_out_is_not_written():
    text = SWITCH.replace("    call @copy(%b) -> (%y)\n", "")
    with pytest.raises(VerifyError, match="the output %y is never written"):
        verify_program(parse_program(text))
    with pytest.raises(VerifyError, match=r"the index of a switch, %a, is f32\[3\]"):
        verify_program(parse_program(SWITCH.replace("switch %index", "switch %a")))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("for t0 = 0..T {", "for t0 = 1..T {", "begins at 0"),
        ("call @add(%before", "call @sub(%before", "no kernel @sub"),
        ("for t0 = 0..T {", "for t0 = 0..T count(%q) {", "unknown buffer %q"),
        ("for t0", "while t0", "a step"),
    ],
)
def test_a_wrong_text_is_refused(old, new, message):
    with pytest.raises(ParseError, match=message):
        parse_program(CUMSUM.replace(old, new))

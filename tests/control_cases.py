"""Graphs with loops and branches, and sizes at which they are run: `CASES` by name."""

from __future__ import annotations

__all__ = ["CASES"]

_RNN = """(%x: f32[T, N], %h: f32[N], %W: f32[N, N]) -> (f32[N], f32[T, N], f32[T, N], f32[N]) {
  %s = scan %h, %x, %W {carries = 1, sequences = 1, length = TREVERSE} (%h: f32[N], %e: f32[N], %W: f32[N, N]) \
-> (f32[N], f32[N], f32[N]) {
    %0 = dot %h, %W {contract = ((0), (0))} : f32[N]
    %1 = add %0, %e : f32[N]
    %2 = tanh %1 : f32[N]
    return %2, %2, %h
  } : (f32[N], f32[T, N], f32[T, N])
  %a = item %s {index = 0} : f32[N]
  %b = item %s {index = 1} : f32[T, N]
  %c = item %s {index = 2} : f32[T, N]
  %d = mul %b, %c : f32[T, N]
  %e = sum %d {axes = (0)} : f32[N]
  return %a, %b, %c, %e
}
"""

CASES = {
    "history": "func @history" + _RNN.replace("REVERSE", ""),
    "history_reversed": "func @history_reversed" + _RNN.replace("REVERSE", ", reverse = true"),
    # both carries are read to the end of a step: neither can be overwritten
    "alternating": """func @alternating(%a: f32[N, N], %b: f32[N, N], %n: i64[]) -> (f32[N, N], f32[N, N]) {
  %s = scan %a, %b {carries = 2, length = T + 3} (%a: f32[N, N], %b: f32[N, N]) -> (f32[N, N], f32[N, N]) {
    %0 = dot %a, %b {contract = ((1), (0))} : f32[N, N]
    %1 = tanh %0 : f32[N, N]
    return %b, %1
  } : (f32[N, N], f32[N, N])
  %r = item %s {index = 0} : f32[N, N]
  %q = item %s {index = 1} : f32[N, N]
  return %r, %q
}
""".replace("%n: i64[]", "%x: f32[T, N]"),
    "alternating_reversed": """func @alternating_reversed(%a: f32[N, N], %x: f32[T, N]) -> (f32[N, N], f32[T, N]) {
  %s = scan %a, %x {carries = 1, sequences = 1, length = T, reverse = true} (%a: f32[N, N], %e: f32[N]) \
-> (f32[N, N], f32[N]) {
    %0 = dot %a, %a {contract = ((1), (0))} : f32[N, N]
    %1 = broadcast %e {dims = (1)} : f32[N, N]
    %2 = add %0, %1 : f32[N, N]
    %3 = tanh %2 : f32[N, N]
    %4 = sum %3 {axes = (0)} : f32[N]
    return %3, %4
  } : (f32[N, N], f32[T, N])
  %r = item %s {index = 0} : f32[N, N]
  %q = item %s {index = 1} : f32[T, N]
  return %r, %q
}
""",
    "swapped": """func @swapped(%a: f32[N], %b: f32[N], %x: f32[T, N]) -> (f32[N], f32[N], f32[T, N]) {
  %s = scan %a, %b, %x {carries = 2, sequences = 1, length = T} (%a: f32[N], %b: f32[N], %e: f32[N]) \
-> (f32[N], f32[N], f32[N]) {
    %0 = add %a, %e : f32[N]
    %1 = mul %0, %b : f32[N]
    return %b, %a, %1
  } : (f32[N], f32[N], f32[T, N])
  %r = item %s {index = 0} : f32[N]
  %q = item %s {index = 1} : f32[N]
  %y = item %s {index = 2} : f32[T, N]
  return %r, %q, %y
}
""",
    "in_place": """func @in_place(%x: f32[T, N]) state(%total: f32[N]) -> (f32[T, N], i64[]) {
  %0 = full {value = 0} : i64[]
  %s = scan %total, %0, %x {carries = 2, sequences = 1, length = T} (%t: f32[N], %k: i64[], %e: f32[N]) \
-> (f32[N], i64[], f32[N]) {
    %0 = add %t, %e : f32[N]
    %1 = add %k, 1 : i64[]
    %2 = exp %e : f32[N]
    return %0, %1, %2
  } : (f32[N], i64[], f32[T, N])
  %r = item %s {index = 0} : f32[N]
  %k = item %s {index = 1} : i64[]
  %y = item %s {index = 2} : f32[T, N]
  update %total = %r
  return %y, %k
}
""",
    # the loop's first value is written to the state only after the old value was read
    "restarted": """func @restarted(%x: f32[T, N]) state(%s: f32[N]) -> (f32[N]) {
  %0 = full {value = 0.5} : f32[N]
  %1 = tanh %s : f32[N]
  %2 = scan %0, %x, %1 {carries = 1, sequences = 1, length = T} (%c: f32[N], %e: f32[N], %k: f32[N]) -> (f32[N]) {
    %0 = mul %c, %k : f32[N]
    %1 = add %0, %e : f32[N]
    return %1
  } : (f32[N])
  %3 = item %2 {index = 0} : f32[N]
  update %s = %3
  %4 = sum %x {axes = (0)} : f32[N]
  return %4
}
""",
    "counted": """func @counted(%h: f32[N], %x: f32[T, N], %n: i64[]) -> (f32[N], f32[N], f32[T, N], f32[T, N]) {
  %0 = full {value = 0.5} : f32[N]
  %s = scan %h, %0, %x, %n {carries = 2, sequences = 1, length = T, counted = true} \
(%h: f32[N], %g: f32[N], %e: f32[N]) -> (f32[N], f32[N], f32[N], f32[N]) {
    %0 = mul %h, %e : f32[N]
    %1 = add %0, %g : f32[N]
    return %1, %h, %1, %h
  } : (f32[N], f32[N], f32[T, N], f32[T, N])
  %a = item %s {index = 0} : f32[N]
  %b = item %s {index = 1} : f32[N]
  %c = item %s {index = 2} : f32[T, N]
  %d = item %s {index = 3} : f32[T, N]
  return %a, %b, %c, %d
}
""",
    "unchanged": """func @unchanged(%h: f32[N], %x: f32[T, N]) -> (f32[N], f32[N], f32[T, N], f32[T]) {
  %s = scan %h, %h, %x, %x {carries = 2, sequences = 1, length = T} \
(%h: f32[N], %g: f32[N], %e: f32[N], %all: f32[T, N]) -> (f32[N], f32[N], f32[N], f32[]) {
    %0 = add %g, %h : f32[N]
    %1 = sum %all {axes = (0, 1)} : f32[]
    return %h, %0, %e, %1
  } : (f32[N], f32[N], f32[T, N], f32[T])
  %a = item %s {index = 0} : f32[N]
  %b = item %s {index = 1} : f32[N]
  %c = item %s {index = 2} : f32[T, N]
  %d = item %s {index = 3} : f32[T]
  return %a, %b, %c, %d
}
""",
    "constant_sequence": """func @constant_sequence(%h: f32[N]) -> (f32[N], f32[3, N]) {
  %0 = constant dense<[0.5, -2.0, 3.0]> : f32[3]
  %1 = full {value = 1.5} : f32[3]
  %s = scan %h, %0, %1 {carries = 1, sequences = 2, length = 3} (%h: f32[N], %e: f32[], %f: f32[]) \
-> (f32[N], f32[N]) {
    %0 = broadcast %e {dims = ()} : f32[N]
    %1 = broadcast %f {dims = ()} : f32[N]
    %2 = mul %h, %0 : f32[N]
    %3 = add %2, %1 : f32[N]
    return %3, %0
  } : (f32[N], f32[3, N])
  %a = item %s {index = 0} : f32[N]
  %b = item %s {index = 1} : f32[3, N]
  return %a, %b
}
""",
    "while": """func @while(%x: f32[N], %limit: f32[]) -> (f32[N], i64[], f32[7, N], f32[N]) {
  %w = while %x, %x, %limit {carries = 2, max_steps = 7} @condition(%a: f32[N], %b: f32[N], %l: f32[]) -> (bool[]) {
    %0 = abs %a : f32[N]
    %1 = sum %0 {axes = (0)} : f32[]
    %2 = lt %1, %l : bool[]
    return %2
  }, @body(%a: f32[N], %b: f32[N], %l: f32[]) -> (f32[N], f32[N], f32[N]) {
    %0 = add %a, %b : f32[N]
    %1 = add %0, 0.25 : f32[N]
    return %1, %a, %b
  } : (f32[N], f32[N], i64[], f32[7, N])
  %a = item %w {index = 0} : f32[N]
  %b = item %w {index = 1} : f32[N]
  %n = item %w {index = 2} : i64[]
  %y = item %w {index = 3} : f32[7, N]
  return %a, %n, %y, %b
}
""",
    "unbounded": """func @unbounded(%n: i64[]) -> (i64[], i64[], i64[]) {
  %0 = full {value = 1} : i64[]
  %w = while %0, %0, %n {carries = 2} @condition(%a: i64[], %b: i64[], %l: i64[]) -> (bool[]) {
    %0 = lt %b, %l : bool[]
    return %0
  }, @body(%a: i64[], %b: i64[], %l: i64[]) -> (i64[], i64[]) {
    %0 = add %a, %b : i64[]
    return %b, %0
  } : (i64[], i64[], i64[])
  %a = item %w {index = 0} : i64[]
  %b = item %w {index = 1} : i64[]
  %k = item %w {index = 2} : i64[]
  return %a, %b, %k
}
""",
    "switch": """func @switch(%n: i64[], %a: f32[N], %b: f32[N]) state(%s: f32[N]) -> (f32[N], f32[N]) {
  %r = switch %n, %a, %b, %s @first(%a: f32[N], %b: f32[N], %s: f32[N]) -> (f32[N], f32[N]) {
    return %a, %a
  }, @second(%a: f32[N], %b: f32[N], %s: f32[N]) -> (f32[N], f32[N]) {
    %0 = exp %b : f32[N]
    %1 = add %0, %s : f32[N]
    return %0, %1
  }, @third(%a: f32[N], %b: f32[N], %s: f32[N]) -> (f32[N], f32[N]) {
    %0 = sum %a {axes = (0)} : f32[]
    %1 = broadcast %0 {dims = ()} : f32[N]
    %2 = full {value = 3.0} : f32[N]
    return %2, %1
  } : (f32[N], f32[N])
  %p = item %r {index = 0} : f32[N]
  %q = item %r {index = 1} : f32[N]
  update %s = %q
  return %p, %q
}
""",
    # the inner loop begins with a value of its own and ends in the outer carry's memory, which another step still reads
    "begun_in_time": """func @begun_in_time(%x: f32[T, 3, N], %h: f32[N]) -> (f32[N], f32[T, N]) {
  %s = scan %h, %x {carries = 1, sequences = 1, length = T} (%h: f32[N], %row: f32[3, N]) -> (f32[N], f32[N]) {
    %0 = sum %row {axes = (0)} : f32[N]
    %1 = add %h, %0 : f32[N]
    %2 = scan %1, %row {carries = 1, sequences = 1, length = 3} (%g: f32[N], %e: f32[N]) -> (f32[N]) {
      %0 = mul %g, %e : f32[N]
      return %0
    } : (f32[N])
    %3 = item %2 {index = 0} : f32[N]
    %4 = scan %3, %h {carries = 1, length = 2} (%g: f32[N], %h: f32[N]) -> (f32[N]) {
      %0 = sub %h, %g : f32[N]
      return %0
    } : (f32[N])
    %5 = item %4 {index = 0} : f32[N]
    %6 = sum %h {axes = (0)} : f32[]
    %7 = broadcast %6 {dims = ()} : f32[N]
    return %5, %7
  } : (f32[N], f32[T, N])
  %a = item %s {index = 0} : f32[N]
  %b = item %s {index = 1} : f32[T, N]
  return %a, %b
}
""",
    "begun_in_turn": """func @begun_in_turn(%x: f32[T, 3, N], %h: f32[N]) -> (f32[N], f32[T, N]) {
  %s = scan %h, %x {carries = 1, sequences = 1, length = T} (%h: f32[N], %row: f32[3, N]) -> (f32[N], f32[N]) {
    %0 = full {value = 0.5} : f32[N]
    %1 = scan %0, %row {carries = 1, sequences = 1, length = 3} (%g: f32[N], %e: f32[N]) -> (f32[N]) {
      %0 = mul %g, %e : f32[N]
      %1 = tanh %0 : f32[N]
      return %1
    } : (f32[N])
    %2 = item %1 {index = 0} : f32[N]
    %3 = scan %2, %row {carries = 1, sequences = 1, length = 3} (%g: f32[N], %e: f32[N]) -> (f32[N]) {
      %0 = sub %g, %e : f32[N]
      return %0
    } : (f32[N])
    %4 = item %3 {index = 0} : f32[N]
    %5 = sin %h : f32[N]
    return %4, %5
  } : (f32[N], f32[T, N])
  %a = item %s {index = 0} : f32[N]
  %b = item %s {index = 1} : f32[T, N]
  return %a, %b
}
""",
    # what the loop begins with is a state's new value too
    "begun_and_saved": """func @begun_and_saved(%x: f32[T, N]) state(%k: i64[]) -> (i64[]) {
  %0 = full {value = 7} : i64[]
  %s = scan %0, %x {carries = 1, sequences = 1, length = T} (%k: i64[], %e: f32[N]) -> (i64[]) {
    %0 = add %k, 1 : i64[]
    return %0
  } : (i64[])
  %r = item %s {index = 0} : i64[]
  update %k = %0
  return %r
}
""",
    "nested": """func @nested(%x: f32[T, 3, N], %h: f32[N]) -> (f32[N], f32[T, 3, N], f32[T]) {
  %s = scan %h, %x {carries = 1, sequences = 1, length = T} (%h: f32[N], %row: f32[3, N]) \
-> (f32[N], f32[3, N], f32[]) {
    %0 = scan %h, %row, %h {carries = 1, sequences = 1, length = 3, reverse = true} \
(%g: f32[N], %e: f32[N], %outer: f32[N]) -> (f32[N], f32[N]) {
      %0 = mul %g, %outer : f32[N]
      %1 = add %0, %e : f32[N]
      %2 = tanh %1 : f32[N]
      return %2, %2
    } : (f32[N], f32[3, N])
    %1 = item %0 {index = 0} : f32[N]
    %2 = item %0 {index = 1} : f32[3, N]
    %3 = sum %2 {axes = (0, 1)} : f32[]
    return %1, %2, %3
  } : (f32[N], f32[T, 3, N], f32[T])
  %a = item %s {index = 0} : f32[N]
  %b = item %s {index = 1} : f32[T, 3, N]
  %c = item %s {index = 2} : f32[T]
  return %a, %b, %c
}
""",
    "branch_in_a_loop": """func @branch_in_a_loop(%x: f32[T, N], %n: i64[]) -> (f32[N], f32[T, N]) {
  %0 = full {value = 0.0} : f32[N]
  %s = scan %0, %x, %n {carries = 1, sequences = 1, length = T} (%h: f32[N], %e: f32[N], %n: i64[]) \
-> (f32[N], f32[N]) {
    %0 = switch %n, %h, %e (%h: f32[N], %e: f32[N]) -> (f32[N]) {
      %0 = add %h, %e : f32[N]
      return %0
    }, (%h: f32[N], %e: f32[N]) -> (f32[N]) {
      %0 = scan %h, %e {carries = 1, length = 2} (%h: f32[N], %e: f32[N]) -> (f32[N]) {
        %0 = mul %h, %e : f32[N]
        %1 = add %0, 1.0 : f32[N]
        return %1
      } : (f32[N])
      %1 = item %0 {index = 0} : f32[N]
      return %1
    } : (f32[N])
    %1 = item %0 {index = 0} : f32[N]
    return %1, %1
  } : (f32[N], f32[T, N])
  %a = item %s {index = 0} : f32[N]
  %b = item %s {index = 1} : f32[T, N]
  return %a, %b
}
""",
    "one_after_another": """func @one_after_another(%x: f32[T, N], %h: f32[N]) -> (f32[N], f32[T, N]) {
  %s = scan %h, %x {carries = 1, sequences = 1, length = T} (%h: f32[N], %e: f32[N]) -> (f32[N], f32[N]) {
    %0 = add %h, %e : f32[N]
    %1 = exp %e : f32[N]
    return %0, %1
  } : (f32[N], f32[T, N])
  %a = item %s {index = 0} : f32[N]
  %b = item %s {index = 1} : f32[T, N]
  %u = scan %a, %b {carries = 1, sequences = 1, length = T, reverse = true} (%h: f32[N], %e: f32[N]) \
-> (f32[N], f32[N]) {
    %0 = sub %h, %e : f32[N]
    %1 = mul %h, %e : f32[N]
    return %0, %1
  } : (f32[N], f32[T, N])
  %c = item %u {index = 0} : f32[N]
  %d = item %u {index = 1} : f32[T, N]
  return %c, %d
}
""",
}
CASES = {name: f"graphwright.graph v1\n{text}" for name, text in CASES.items()}

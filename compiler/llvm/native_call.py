"""The native entry from Python, as LLVM IR text; `runtime.native_call` says what it does, and lays out its table.

One image of it serves all programs of a machine. It imports nothing and has no globals: functions of
CPython, NumPy and the C library stand in the table.
"""

from __future__ import annotations

from ...runtime.native_call import CALL, GIVE, TAKE
from ..target import CpuTarget
from .codegen import attributes
from .native_arguments import arguments_ir
from .native_results import results_ir
from .native_words import DATA, at, function, head, member

__all__ = ["native_call_ir"]

_BLOCK_HEAD = 64  # bytes before a block of scratch memory, where its size stands


def native_call_ir(target: CpuTarget) -> str:
    """The module that defines `runtime.native_call.ENTRIES`.

    - ``ptr gw_call2(ptr table, ptr args, i64 count, ptr names)``, a METH_FASTCALL | METH_KEYWORDS function
      whose ``self`` is the array of the table;
    - ``ptr gw_take2(ptr pool, i64 bytes)`` and ``void gw_give2(ptr pool, ptr block)``: scratch memory; both need the
      interpreter's lock, like everything that touches the pool.
    """
    parts = (_arena(), arguments_ir(), results_ir(), _locks(), _run(), _copy(), _call())
    return "\n".join([*parts, attributes(target)])


def _arena() -> str:
    return f"""\
; The block that was given last, or null if there is none of so many bytes.
define ptr @{TAKE}(ptr %pool, i64 %bytes) #0 {{
{at("count", "pool", 0)}
  %some = icmp sgt i64 %count, 0
  br i1 %some, label %look, label %none
look:
{at("block", "pool", "%count", "ptr")}
  %size.p = getelementptr i8, ptr %block, i64 -{_BLOCK_HEAD}
  %size = load i64, ptr %size.p, align 8
  %enough = icmp sge i64 %size, %bytes
  br i1 %enough, label %take, label %none
take:
  %less = sub i64 %count, 1
  store i64 %less, ptr %pool, align 8
  ret ptr %block
none:
  ret ptr null
}}

define void @{GIVE}(ptr %pool, ptr %block) #0 {{
{at("count", "pool", 0)}
  %more = add i64 %count, 1
  store i64 %more, ptr %pool, align 8
  %place = getelementptr i64, ptr %pool, i64 %more
  store ptr %block, ptr %place, align 8
  ret void
}}
"""


def _locks() -> str:
    return f"""\
; Take all locks; false, with an exception and none taken, if one cannot be had.
define internal i1 @lock(ptr %table, ptr %api) #0 {{
entry:
{head("locks")}
{head("methods", "ptr")}
{function("vectorcall")}
{function("decref")}
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %i.next, %taken ]
  %more = icmp slt i64 %i, %locks
  br i1 %more, label %take, label %yes
yes:
  ret i1 true
take:
  %first = mul i64 %i, 2
{at("acquire", "methods", "%first", "ptr")}
  %answer = call ptr %vectorcall(ptr %acquire, ptr null, i64 0, ptr null)
  %refused = icmp eq ptr %answer, null
  br i1 %refused, label %undo, label %taken
taken:
  call void %decref(ptr %answer)
  %i.next = add i64 %i, 1
  br label %loop
undo:
  call void @unlock(ptr %table, ptr %api, i64 %i)
  ret i1 false
}}

define internal void @unlock(ptr %table, ptr %api, i64 %count) #0 {{
entry:
{head("methods", "ptr")}
{function("vectorcall")}
{function("decref")}
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %i.next, %done ]
  %more = icmp slt i64 %i, %count
  br i1 %more, label %give, label %end
end:
  ret void
give:
  %first = mul i64 %i, 2
  %second = add i64 %first, 1
{at("release", "methods", "%second", "ptr")}
  %answer = call ptr %vectorcall(ptr %release, ptr null, i64 0, ptr null)
  %refused = icmp eq ptr %answer, null
  %i.next = add i64 %i, 1
  br i1 %refused, label %done, label %answered
answered:
  call void %decref(ptr %answer)
  br label %done
done:
  br label %loop
}}
"""


def _run() -> str:
    return f"""\
; Note that the variables have changed (`runtime.buffers.Cell.touch`).
define internal void @touch(ptr %table) #0 {{
entry:
{head("blocks")}
{head("stamps", "ptr")}
{head("generation", "ptr")}
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %i.next, %next ]
  %more = icmp slt i64 %i, %blocks
  br i1 %more, label %next, label %end
next:
{at("stamp", "stamps", "%i", "ptr")}
  %changes = load i64, ptr %stamp, align 8
  %changes.next = add i64 %changes, 1
  store i64 %changes.next, ptr %stamp, align 8
  %i.next = add i64 %i, 1
  br label %loop
end:
  %number = load i64, ptr %generation, align 8
  %number.next = add i64 %number, {2**32}
  store i64 %number.next, ptr %generation, align 8
  ret void
}}

; Enter the program without the interpreter's lock, holding those of the variables.
; The result is 0, or its error, or -1 with an exception set.
define internal i64 @run(ptr %table, ptr %buffers, ptr %symbols, ptr %block) #0 {{
{head("api", "ptr")}
{head("locks")}
  %locked = icmp ne i64 %locks, 0
  br i1 %locked, label %lock, label %enter
lock:
  %held = call i1 @lock(ptr %table, ptr %api)
  br i1 %held, label %enter, label %failed
failed:
  ret i64 -1
enter:
{function("save_thread")}
{function("restore_thread")}
{head("native", "ptr")}
{head("context", "ptr")}
  %thread = call ptr %save_thread()
  %status = call i32 %native(ptr %buffers, ptr %symbols, ptr %block, ptr %context)
  call void %restore_thread(ptr %thread)
  %error = zext i32 %status to i64
  br i1 %locked, label %unlock, label %done
unlock:
  call void @touch(ptr %table)
  call void @unlock(ptr %table, ptr %api, i64 %locks)
  br label %done
done:
  ret i64 %error
}}
"""


def _copy() -> str:
    return f"""\
define internal void @copy(ptr %to, ptr %from, i64 %count) #0 {{
entry:
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %i.next, %word ]
  %more = icmp slt i64 %i, %count
  br i1 %more, label %word, label %done
word:
{at("value", "from", "%i")}
  %place = getelementptr i64, ptr %to, i64 %i
  store i64 %value, ptr %place, align 8
  %i.next = add i64 %i, 1
  br label %loop
done:
  ret void
}}
"""


def _call() -> str:
    return f"""\
; All of a call: bind the arguments, find the sizes, make outputs, run, return; or leave it to the general way.
define ptr @{CALL}(ptr %self, ptr %args, i64 %count, ptr %names) #0 {{
entry:
{member("table", "self", DATA)}
{head("api", "ptr")}
{head("inputs")}
{head("ready.p2", "ptr", "ready")}
  %ready = load i64, ptr %ready.p2, align 8
  %is.ready = icmp ne i64 %ready, 0
{head("generation", "ptr")}
{head("seen", "ptr")}
  %now = load i64, ptr %generation, align 8
  %then = load i64, ptr %seen, align 8
  %is.valid = icmp eq i64 %now, %then
  %no.names = icmp eq ptr %names, null
  %all.given = icmp eq i64 %count, %inputs
  %plain = and i1 %no.names, %all.given
  %known = and i1 %is.ready, %is.valid
  %usual = and i1 %plain, %known
  br i1 %usual, label %bind, label %general
bind:
{head("words")}
{head("axes")}
{head("states")}
{head("outputs")}
{head("symbols")}
{head("cells", "ptr")}
  %numbers = alloca i64, i64 %words, align 16
  %sizes = getelementptr i64, ptr %numbers, i64 %inputs
  %dims = getelementptr i64, ptr %sizes, i64 %axes
  %buffers = getelementptr i64, ptr %dims, i64 %symbols
  %buffers.cells = getelementptr i64, ptr %buffers, i64 %inputs
  %buffers.outs = getelementptr i64, ptr %buffers.cells, i64 %states
  %outs = getelementptr i64, ptr %buffers.outs, i64 %outputs
  %bound = call i1 @bind(ptr %table, ptr %args, ptr %buffers, ptr %numbers, ptr %sizes)
  br i1 %bound, label %find, label %general
find:
  %plan = call ptr @find(ptr %table, ptr %sizes)
  %unknown = icmp eq ptr %plan, null
  br i1 %unknown, label %general, label %apart
apart:
  %plan.sizes = getelementptr i64, ptr %plan, i64 1
  %plan.dims = getelementptr i64, ptr %plan.sizes, i64 %axes
  %plan.bytes = getelementptr i64, ptr %plan.dims, i64 %symbols
  %plan.outputs = getelementptr i64, ptr %plan.bytes, i64 %inputs
{head("blocks")}
  %updates = icmp ne i64 %blocks, 0
  br i1 %updates, label %overlap, label %memory
overlap:
  %shared = call i1 @overlaps(ptr %table, ptr %buffers, ptr %plan.bytes)
  br i1 %shared, label %general, label %memory
memory:
{head("pool", "ptr", "arena")}
  %bytes = load i64, ptr %plan, align 8
  %uses.memory = icmp ne i64 %bytes, 0
  br i1 %uses.memory, label %take, label %make
take:
  %taken = call ptr @{TAKE}(ptr %pool, i64 %bytes)
  %lacking = icmp eq ptr %taken, null
  br i1 %lacking, label %general, label %make
make:
  %block = phi ptr [ null, %memory ], [ %taken, %take ]
  call void @copy(ptr %dims, ptr %plan.dims, i64 %symbols)
  call void @copy(ptr %buffers.cells, ptr %cells, i64 %states)
  %made = call i1 @make_outputs(ptr %table, ptr %plan.outputs, ptr %outs, ptr %buffers.outs)
  br i1 %made, label %run, label %over
run:
  %ran = call i64 @run(ptr %table, ptr %buffers, ptr %dims, ptr %block)
  br label %over
over:
  %status = phi i64 [ -2, %make ], [ %ran, %run ]
  br i1 %uses.memory, label %give, label %judge
give:
  call void @{GIVE}(ptr %pool, ptr %block)
  br label %judge
judge:
  %no.outputs = icmp eq i64 %status, -2
  br i1 %no.outputs, label %nothing, label %check
nothing:
  ret ptr null
check:
  %well = icmp eq i64 %status, 0
  br i1 %well, label %return, label %fail
return:
  %result = call ptr @nest(ptr %table, ptr %outs)
  ret ptr %result
fail:
  call void @drop_all(ptr %api, ptr %outs, i64 %outputs)
  %raised = icmp eq i64 %status, -1
  br i1 %raised, label %nothing, label %report
report:
{function("new_int")}
  %number = call ptr %new_int(i64 %status)
  %no.number = icmp eq ptr %number, null
  br i1 %no.number, label %nothing, label %tell
tell:
{head("failed.it", "ptr", "failed")}
  %told = call ptr @call_with(ptr %api, ptr %failed.it, ptr %number)
  ret ptr %told
general:
{head("general.it", "ptr", "general")}
{function("vectorcall")}
  %answer = call ptr %vectorcall(ptr %general.it, ptr %args, i64 %count, ptr %names)
  ret ptr %answer
}}
"""

"""What the native entry from Python does with results, as LLVM IR text: make arrays, and nest them."""

from __future__ import annotations

from .native_words import DATA, at, function, head, member

__all__ = ["results_ir"]

_ALIGNED_BYTES = 1024  # outputs of more bytes begin at a cache line
_CARRAY = 0x501  # NumPy's flags: C_CONTIGUOUS | ALIGNED | WRITEABLE


def results_ir() -> str:
    """The functions ``make_outputs`` and ``nest``, and ``drop_all`` and ``call_with``."""
    return "\n".join([_outputs(), _nest()])


def _outputs() -> str:
    return f"""\
; Make all outputs; sizes holds bytes and sizes of each. False, with an exception set, if memory lacks.
define internal i1 @make_outputs(ptr %table, ptr %sizes, ptr %outs, ptr %buffers) #0 {{
entry:
{head("outputs")}
{head("results", "ptr")}
{head("api", "ptr")}
{function("byte_dtype")}
{function("set_base")}
{function("decref")}
  %whole.p = alloca i64, align 8
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %i.next, %made ]
  %at = phi ptr [ %sizes, %entry ], [ %at.next, %made ]
  %more = icmp slt i64 %i, %outputs
  br i1 %more, label %make, label %yes
yes:
  ret i1 true
make:
  %row.number = mul i64 %i, 2
  %row = getelementptr i64, ptr %results, i64 %row.number
{at("dtype", "row", 0, "ptr")}
{at("rank", "row", 1)}
  %rank.narrow = trunc i64 %rank to i32
  %bytes = load i64, ptr %at, align 8
  %shape = getelementptr i64, ptr %at, i64 1
  %at.next = getelementptr i64, ptr %shape, i64 %rank
  %large = icmp ugt i64 %bytes, {_ALIGNED_BYTES}
  br i1 %large, label %memory, label %plain
memory:
  %whole = add i64 %bytes, 64
  store i64 %whole, ptr %whole.p, align 8
  %base = call ptr @new_array(ptr %api, ptr %byte_dtype, i32 1, ptr %whole.p, ptr null)
  %base.absent = icmp eq ptr %base, null
  br i1 %base.absent, label %undo, label %inside
inside:
{member("address", "base", DATA, "i64")}
  %beyond = add i64 %address, 63
  %line = and i64 %beyond, -64
  %data = inttoptr i64 %line to ptr
  %view = call ptr @new_array(ptr %api, ptr %dtype, i32 %rank.narrow, ptr %shape, ptr %data)
  %view.absent = icmp eq ptr %view, null
  br i1 %view.absent, label %drop, label %own
drop:
  call void %decref(ptr %base)
  br label %undo
own:
  %based = call i32 %set_base(ptr %view, ptr %base)
  br label %made
plain:
  %array = call ptr @new_array(ptr %api, ptr %dtype, i32 %rank.narrow, ptr %shape, ptr null)
  %array.absent = icmp eq ptr %array, null
  br i1 %array.absent, label %undo, label %made
made:
  %out = phi ptr [ %view, %own ], [ %array, %plain ]
{member("out.data", "out", DATA)}
  %out.to = getelementptr i64, ptr %outs, i64 %i
  store ptr %out, ptr %out.to, align 8
  %buffer = getelementptr i64, ptr %buffers, i64 %i
  store ptr %out.data, ptr %buffer, align 8
  %i.next = add i64 %i, 1
  br label %loop
undo:
  call void @drop_all(ptr %api, ptr %outs, i64 %i)
  ret i1 false
}}

; An array of its own memory, or of what begins at data; both in the order of C.
define internal ptr @new_array(ptr %api, ptr %dtype, i32 %rank, ptr %shape, ptr %data) #0 {{
{function("array_type")}
{function("new_array")}
{function("incref")}
  %own = icmp eq ptr %data, null
  %flags = select i1 %own, i32 0, i32 {_CARRAY}
  call void %incref(ptr %dtype)
  %made = call ptr %new_array(
    ptr %array_type, ptr %dtype, i32 %rank, ptr %shape, ptr null, ptr %data, i32 %flags, ptr null)
  ret ptr %made
}}

define internal void @drop_all(ptr %api, ptr %things, i64 %count) #0 {{
entry:
{function("decref")}
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %i.next, %drop ]
  %more = icmp slt i64 %i, %count
  br i1 %more, label %drop, label %done
drop:
{at("thing", "things", "%i", "ptr")}
  call void %decref(ptr %thing)
  %i.next = add i64 %i, 1
  br label %loop
done:
  ret void
}}
"""


def _nest() -> str:
    return f"""\
; What the function returns, of its outputs, whose references go with it; null with an exception.
define internal ptr @nest(ptr %table, ptr %outs) #0 {{
entry:
{head("outputs")}
{head("nesting")}
{head("api", "ptr")}
  switch i64 %nesting, label %nothing [
    i64 0, label %leaf
    i64 1, label %tuple
    i64 2, label %list
    i64 3, label %tuple
  ]
nothing:
{function("none")}
{function("incref")}
  call void %incref(ptr %none)
  ret ptr %none
leaf:
  %only = load ptr, ptr %outs, align 8
  ret ptr %only
tuple:
{function("new_tuple")}
{function("set_tuple")}
  br label %make
list:
{function("new_list")}
{function("set_list")}
  br label %make
make:
  %new = phi ptr [ %new_tuple, %tuple ], [ %new_list, %list ]
  %set = phi ptr [ %set_tuple, %tuple ], [ %set_list, %list ]
  %made = call ptr %new(i64 %outputs)
  %absent = icmp eq ptr %made, null
  br i1 %absent, label %fail, label %fill
fail:
  call void @drop_all(ptr %api, ptr %outs, i64 %outputs)
  ret ptr null
fill:
  %i = phi i64 [ 0, %make ], [ %i.next, %item ]
  %more = icmp slt i64 %i, %outputs
  br i1 %more, label %item, label %filled
item:
{at("out", "outs", "%i", "ptr")}
  %stored = call i32 %set(ptr %made, i64 %i, ptr %out)
  %i.next = add i64 %i, 1
  br label %fill
filled:
  %deeper = icmp eq i64 %nesting, 3
  br i1 %deeper, label %build, label %done
build:
{head("build.it", "ptr", "build")}
  %built = call ptr @call_with(ptr %api, ptr %build.it, ptr %made)
  ret ptr %built
done:
  ret ptr %made
}}

; Call a Python object with one argument, whose reference goes with it.
define internal ptr @call_with(ptr %api, ptr %callable, ptr %argument) #0 {{
{function("vectorcall")}
{function("decref")}
  %arguments = alloca ptr, align 8
  store ptr %argument, ptr %arguments, align 8
  %result = call ptr %vectorcall(ptr %callable, ptr %arguments, i64 1, ptr null)
  call void %decref(ptr %argument)
  ret ptr %result
}}
"""

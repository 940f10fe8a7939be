"""What the native entry from Python does with arguments, as LLVM IR text: check them, and find the sizes of a call."""

from __future__ import annotations

from ...runtime.native_call import MULTIPLIER, ROW_WORDS
from .native_words import DATA, DTYPE, FLAGS, RANK, SIZES, TYPE, VALUE, at, function, head, member

__all__ = ["arguments_ir"]

_ROW_MAJOR_ALIGNED = 0x101  # NumPy's flags: C_CONTIGUOUS | ALIGNED


def arguments_ir() -> str:
    """The functions ``bind``, ``find`` and ``overlaps``."""
    return "\n".join([_bind(), _find(), _overlaps()])


def _bind() -> str:
    return f"""\
; Whether all arguments are what the table wants; then buffers has their addresses, and sizes those of all axes.
; Numbers that stand for arrays without axes are stored to numbers.
define internal i1 @bind(ptr %table, ptr %args, ptr %buffers, ptr %numbers, ptr %sizes) #0 {{
entry:
{head("inputs")}
{head("rows", "ptr")}
{head("api", "ptr")}
{function("array_type")}
{function("float_type")}
{function("int_type")}
{function("int_value")}
  %overflow.p = alloca i32, align 4
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %i.next, %next ]
  %axis = phi i64 [ 0, %entry ], [ %axis.next, %next ]
  %more = icmp slt i64 %i, %inputs
  br i1 %more, label %check, label %yes
yes:
  ret i1 true
no:
  ret i1 false
check:
{at("x", "args", "%i", "ptr")}
{member("type", "x", TYPE)}
  %row.number = mul i64 %i, {ROW_WORDS}
  %row = getelementptr i64, ptr %rows, i64 %row.number
  %buffer = getelementptr i64, ptr %buffers, i64 %i
  %is.array = icmp eq ptr %type, %array_type
  br i1 %is.array, label %array, label %number
array:
{at("dtype.wanted", "row", 0, "ptr")}
{at("rank.wanted", "row", 1)}
{member("dtype", "x", DTYPE)}
{member("rank.narrow", "x", RANK, "i32")}
{member("flags.all", "x", FLAGS, "i32")}
  %rank = zext i32 %rank.narrow to i64
  %flags = and i32 %flags.all, {_ROW_MAJOR_ALIGNED}
  %dtype.fits = icmp eq ptr %dtype, %dtype.wanted
  %rank.fits = icmp eq i64 %rank, %rank.wanted
  %flags.fit = icmp eq i32 %flags, {_ROW_MAJOR_ALIGNED}
  %two.fit = and i1 %dtype.fits, %rank.fits
  %all.fit = and i1 %two.fit, %flags.fit
  br i1 %all.fit, label %fits, label %no
fits:
{member("data", "x", DATA)}
{member("shape", "x", SIZES)}
  store ptr %data, ptr %buffer, align 8
  %end = add i64 %axis, %rank
  br label %axes
axes:
  %k = phi i64 [ 0, %fits ], [ %k.next, %copy ]
  %left = icmp slt i64 %k, %rank
  br i1 %left, label %copy, label %next
copy:
{at("size", "shape", "%k")}
  %at = add i64 %axis, %k
  %size.to = getelementptr i64, ptr %sizes, i64 %at
  store i64 %size, ptr %size.to, align 8
  %k.next = add i64 %k, 1
  br label %axes
number:
  %value.p = getelementptr i8, ptr %x, i64 {VALUE}
{at("scalar.type", "row", 2, "ptr")}
  %is.scalar = icmp eq ptr %type, %scalar.type
  br i1 %is.scalar, label %scalar, label %other
scalar:
  store ptr %value.p, ptr %buffer, align 8
  br label %next
other:
  %slot = getelementptr i64, ptr %numbers, i64 %i
  store ptr %slot, ptr %buffer, align 8
{at("float.bytes", "row", 3)}
  %is.float = icmp eq ptr %type, %float_type
  br i1 %is.float, label %float, label %not.float
float:
{at("limit", "row", 4, "double")}
  %value = load double, ptr %value.p, align 8
  %lowest = fneg double %limit
  %above = fcmp ogt double %value, %lowest
  %below = fcmp olt double %value, %limit
  %inside = and i1 %above, %below
  br i1 %inside, label %store, label %no
not.float:
  %is.int = icmp eq ptr %type, %int_type
  br i1 %is.int, label %int, label %no
int:
{at("least", "row", 5)}
{at("greatest", "row", 6)}
  %integer = call i64 %int_value(ptr %x, ptr %overflow.p)
  %overflow = load i32, ptr %overflow.p, align 4
  %short = icmp eq i32 %overflow, 0
  %not.less = icmp sge i64 %integer, %least
  %not.more = icmp sle i64 %integer, %greatest
  %in.range = and i1 %not.less, %not.more
  %int.fits = and i1 %short, %in.range
  br i1 %int.fits, label %whole, label %no
whole:
  %wants.float = icmp ne i64 %float.bytes, 0
  br i1 %wants.float, label %convert, label %integral
integral:
  store i64 %integer, ptr %slot, align 8
  br label %next
convert:
  %converted = sitofp i64 %integer to double
  br label %store
store:
  %number.value = phi double [ %value, %float ], [ %converted, %convert ]
  %is.double = icmp eq i64 %float.bytes, 8
  br i1 %is.double, label %double, label %single
double:
  store double %number.value, ptr %slot, align 8
  br label %next
single:
  %rounded = fptrunc double %number.value to float
  store float %rounded, ptr %slot, align 8
  br label %next
next:
  %axis.next = phi i64 [ %end, %axes ], [ %axis, %scalar ], [ %axis, %double ], [ %axis, %single ], [ %axis, %integral ]
  %i.next = add i64 %i, 1
  br label %loop
}}
"""


def _find() -> str:
    return f"""\
; The plan for these sizes, or null.
define internal ptr @find(ptr %table, ptr %sizes) #0 {{
entry:
{head("axes")}
{head("plans", "ptr")}
  br label %hash
hash:
  %i = phi i64 [ 0, %entry ], [ %i.next, %mix ]
  %value = phi i64 [ 0, %entry ], [ %value.next, %mix ]
  %more = icmp slt i64 %i, %axes
  br i1 %more, label %mix, label %look
mix:
{at("size", "sizes", "%i")}
  %sum = add i64 %value, %size
  %value.next = mul i64 %sum, {MULTIPLIER - 2**64}
  %i.next = add i64 %i, 1
  br label %hash
look:
{head("mask")}
{head("width")}
  %high = lshr i64 %value, 58
  %place = and i64 %high, %mask
  %before = mul i64 %place, %width
  %plan = getelementptr i64, ptr %plans, i64 %before
  %bytes = load i64, ptr %plan, align 8
  %absent = icmp slt i64 %bytes, 0
  br i1 %absent, label %none, label %compare
compare:
  %k = phi i64 [ 0, %look ], [ %k.next, %same ]
  %left = icmp slt i64 %k, %axes
  br i1 %left, label %axis, label %found
axis:
  %k.next = add i64 %k, 1
{at("given", "sizes", "%k")}
{at("planned", "plan", "%k.next")}
  %equal = icmp eq i64 %given, %planned
  br i1 %equal, label %same, label %none
same:
  br label %compare
found:
  ret ptr %plan
none:
  ret ptr null
}}
"""


def _overlaps() -> str:
    return f"""\
; Whether an input shares memory with a state that is updated; bytes are those of each input.
define internal i1 @overlaps(ptr %table, ptr %buffers, ptr %bytes) #0 {{
entry:
{head("inputs")}
{head("blocks")}
{head("ranges", "ptr")}
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %i.next, %range ]
  %more = icmp slt i64 %i, %inputs
  br i1 %more, label %input, label %no
input:
{at("begin", "buffers", "%i")}
{at("size", "bytes", "%i")}
  %end = add i64 %begin, %size
  %i.next = add i64 %i, 1
  br label %range
range:
  %k = phi i64 [ 0, %input ], [ %k.next, %compare ]
  %left = icmp slt i64 %k, %blocks
  br i1 %left, label %compare, label %loop
compare:
  %first = mul i64 %k, 2
  %second = add i64 %first, 1
{at("from", "ranges", "%first")}
{at("to", "ranges", "%second")}
  %before = icmp ult i64 %from, %end
  %after = icmp ugt i64 %to, %begin
  %touches = and i1 %before, %after
  %k.next = add i64 %k, 1
  br i1 %touches, label %yes, label %range
yes:
  ret i1 true
no:
  ret i1 false
}}
"""

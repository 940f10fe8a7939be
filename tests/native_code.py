"""Hand-written LLVM IR to objects and images, for tests of what runs compiled code."""

from __future__ import annotations

import platform
from functools import cache

import llvmlite.binding as llvm

from graphwright.compiler.link import link
from graphwright.compiler.llvm.pool import pool_ir
from graphwright.runtime.image import Image

ARCH = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine())
TRIPLE = f"{ARCH}-unknown-linux-gnu"

llvm.initialize_all_targets()
llvm.initialize_all_asmprinters()


@cache
def compile_ir(text: str, triple: str = TRIPLE, opt: int = 2) -> bytes:
    """The relocatable object of a module."""
    module = llvm.parse_assembly(f'target triple = "{triple}"\n{text}')
    module.verify()
    target = llvm.Target.from_triple(triple)
    machine = target.create_target_machine(opt=opt, reloc="pic", codemodel="small")
    if opt:
        passes = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(opt))
        passes.getModulePassManager().run(module, passes)
    return machine.emit_object(module)


def image_of(text: str, features: tuple[str, ...] = ()) -> Image:
    """The linked image of a module."""
    return link(compile_ir(text), triple=TRIPLE, features=features)


def with_pool(text: str) -> Image:
    """The linked image of a module that may call the pool of threads."""
    return image_of(pool_ir(ARCH) + text)


def buffer(index: int, to: str) -> str:
    """IR that loads the address of one of an entry point's buffers."""
    return f"  %{to}.p = getelementptr ptr, ptr %buffers, i64 {index}\n  %{to} = load ptr, ptr %{to}.p\n"


ENTRY = "(ptr %buffers, ptr %dims, ptr %arena, ptr %context)"

# axpy: y[N] = a * x[N] + y0[N]; states: none
AXPY = f"""
define i32 @axpy{ENTRY} {{
entry:
{buffer(0, "a")}{buffer(1, "x")}{buffer(2, "y")}{buffer(3, "out")}
  %n = load i64, ptr %dims
  %s = load float, ptr %a
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %next, %body ]
  %more = icmp slt i64 %i, %n
  br i1 %more, label %body, label %done
body:
  %x.i = getelementptr float, ptr %x, i64 %i
  %y.i = getelementptr float, ptr %y, i64 %i
  %o.i = getelementptr float, ptr %out, i64 %i
  %xv = load float, ptr %x.i
  %yv = load float, ptr %y.i
  %m = fmul float %s, %xv
  %r = fadd float %m, %yv
  store float %r, ptr %o.i
  %next = add i64 %i, 1
  br label %loop
done:
  ret i32 0
}}
"""

# twice: f32[] -> f32[], no states
TWICE = f"""
define i32 @twice{ENTRY} {{
{buffer(0, "x")}{buffer(1, "y")}
  %v = load float, ptr %x
  %r = fadd float %v, %v
  store float %r, ptr %y
  ret i32 0
}}
"""

# accumulate: input x f64[N], state W f64[N]: reads W one by one into the output, then W += x
ACCUMULATE = f"""
define i32 @accumulate{ENTRY} {{
entry:
{buffer(0, "x")}{buffer(1, "w")}{buffer(2, "out")}
  %n = load i64, ptr %dims
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %next, %body ]
  %more = icmp slt i64 %i, %n
  br i1 %more, label %body, label %done
body:
  %x.i = getelementptr double, ptr %x, i64 %i
  %w.i = getelementptr double, ptr %w, i64 %i
  %o.i = getelementptr double, ptr %out, i64 %i
  %wv = load double, ptr %w.i
  store double %wv, ptr %o.i
  %j = sub i64 %n, %i
  %k = sub i64 %j, 1
  %x.k = getelementptr double, ptr %x, i64 %k
  %xv = load double, ptr %x.k
  %r = fadd double %wv, %xv
  store double %r, ptr %w.i
  %next = add i64 %i, 1
  br label %loop
done:
  ret i32 0
}}
"""

# squares: output i64[N], out[i] = i * i, in parallel; each part runs a nested loop as well
SQUARES = f"""
define internal void @part(ptr %arg, i64 %begin, i64 %end) {{
entry:
  br label %loop
loop:
  %i = phi i64 [ %begin, %entry ], [ %next, %body ]
  %more = icmp slt i64 %i, %end
  br i1 %more, label %body, label %done
body:
  %s = mul i64 %i, %i
  %p = getelementptr i64, ptr %arg, i64 %i
  %old = load i64, ptr %p
  %new = add i64 %old, %s
  store i64 %new, ptr %p
  %next = add i64 %i, 1
  br label %loop
done:
  ret void
}}

define internal void @outer(ptr %arg, i64 %begin, i64 %end) {{
entry:
  %context = load ptr, ptr %arg
  %rows.p = getelementptr ptr, ptr %arg, i64 1
  %rows = load ptr, ptr %rows.p
  %n.p = getelementptr ptr, ptr %arg, i64 2
  %n = load i64, ptr %n.p
  br label %loop
loop:
  %i = phi i64 [ %begin, %entry ], [ %next, %body ]
  %more = icmp slt i64 %i, %end
  br i1 %more, label %body, label %done
body:
  %o = mul i64 %i, %n
  %row = getelementptr i64, ptr %rows, i64 %o
  call void @gw_parallel(ptr %context, ptr @part, ptr %row, i64 %n)
  %next = add i64 %i, 1
  br label %loop
done:
  ret void
}}

; input x i64[N] (copied to the output, then squares are added)
define i32 @squares{ENTRY} {{
{buffer(0, "x")}{buffer(1, "out")}
  %n = load i64, ptr %dims
  %bytes = shl i64 %n, 3
  call void @copy(ptr %out, ptr %x, i64 %n)
  call void @gw_parallel(ptr %context, ptr @part, ptr %out, i64 %n)
  ret i32 0
}}

; input x i64[M, N]: as squares, row by row, rows in parallel and nested
define i32 @rows{ENTRY} {{
{buffer(0, "x")}{buffer(1, "out")}
  %args = alloca [3 x ptr]
  %m = load i64, ptr %dims
  %n.p = getelementptr i64, ptr %dims, i64 1
  %n = load i64, ptr %n.p
  %size = mul i64 %m, %n
  call void @copy(ptr %out, ptr %x, i64 %size)
  store ptr %context, ptr %args
  %args.1 = getelementptr ptr, ptr %args, i64 1
  store ptr %out, ptr %args.1
  %args.2 = getelementptr ptr, ptr %args, i64 2
  store i64 %n, ptr %args.2
  call void @gw_parallel(ptr %context, ptr @outer, ptr %args, i64 %m)
  ret i32 0
}}

define internal void @copy(ptr %to, ptr %from, i64 %n) "no-builtins" {{
entry:
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %next, %body ]
  %more = icmp slt i64 %i, %n
  br i1 %more, label %body, label %done
body:
  %p = getelementptr i64, ptr %from, i64 %i
  %q = getelementptr i64, ptr %to, i64 %i
  %v = load volatile i64, ptr %p
  store i64 %v, ptr %q
  %next = add i64 %i, 1
  br label %loop
done:
  ret void
}}
"""

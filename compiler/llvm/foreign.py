"""Custom ops: a user's Python kernel, compiled by Numba to LLVM IR that is linked into the program.

What is linked needs neither Python nor a math library: references to Numba's runtime must vanish when
the module is optimized, and the functions of libm that the kernel calls become our own expansions
(`passes.expand_math`). Numba is imported only when a custom op occurs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NoReturn

from ...errors import CompileError
from ...ir.dtypes import DType, float32, float64
from ...ir.loops import Const, Expr, Foreign, Kernel, Scalar, Temp, statements, walk
from ...ir.op import OPS, Op
from ...ir.scalars import SCALARS, apply, const
from ...passes.expand_math import expand_expr
from ..link import link
from ..target import CpuTarget
from .codegen import LlvmModule, attributes, parse
from .function import FunctionText, ModuleText
from .instructions import Val, emit_scalar, literal, llvm_type

__all__ = ["foreign_symbol", "link_foreign"]

Array = tuple[DType, int]
"""What Numba knows of an argument: its dtype and rank."""


def foreign_symbol(s: Foreign) -> str:
    """The name of the kernel's function: one for each combination of dtypes and ranks.

    It is ``i32 @name(ptr result, ptr exception, ptr outputs..., ptr inputs..., ptr dims)``; the first two are
    Numba's and point to memory of no meaning, `dims` to the sizes of all axes of the buffers.
    """
    return ".".join(["foreign", s.op, *(f"{dtype}x{rank}" for dtype, rank in _arrays(s))])


def link_foreign(module: LlvmModule, kernels: Iterable[Kernel]) -> LlvmModule:
    """Add the functions that the kernels' `Foreign` statements call.

    Raises
    ------
    CompileError
        If Numba refuses an op's kernel, or the kernel cannot run without Python.
    """
    found = {foreign_symbol(s): s for k in kernels for s in statements(k.body) if isinstance(s, Foreign)}
    for name, s in found.items():
        text = _python_free(OPS[s.op], name, _arrays(s), module.target)
        module.module.link_in(parse(text, module.target).module)
        module.module.get_function(name).linkage = "internal"
    return module


def _arrays(s: Foreign) -> tuple[Array, ...]:
    return tuple((b.dtype, len(b.shape)) for b in (*s.outputs, *s.inputs))


@lru_cache(maxsize=64)
def _python_free(op: Op, name: str, arrays: tuple[Array, ...], target: CpuTarget) -> str:
    """An optimized module whose one exported function is the op's kernel."""
    native, text = _numba_ir(op, arrays)
    text, functions = _with_own_functions(text.replace(f"@{native}(", f"@{name}("))
    module = parse(_with_own_attributes(text, target), target)
    module.module.link_in(parse(_support(functions, target), target).module)
    for value in (*module.module.functions, *module.module.global_variables):
        if not value.is_declaration and value.name != name:
            value.linkage = "internal"
    module.optimize(vectorize=True)
    _check(op, module)
    return str(module)


# --- Numba ---------------------------------------------------------------------------------------


def _numba_ir(op: Op, arrays: tuple[Array, ...]) -> tuple[str, str]:
    """The kernel's native function and the text of the module that Numba makes of it."""
    try:
        import numba
        from numba.core.errors import NumbaError
    except ImportError as error:
        raise CompileError(f"{op.name}: its kernel is compiled by Numba, which is not installed") from error
    kernel = op.kernels["cpu"]
    nb: Any = numba  # its own annotations lack what is used here
    options = {"error_model": "numpy", "boundscheck": False}
    scope = {"carray": nb.carray, "kernel": nb.njit(getattr(kernel, "py_func", kernel), **options)}
    exec(_entry(arrays), scope)
    pointers = [nb.types.CPointer(nb.from_dtype(dtype.numpy)) for dtype, _ in arrays]
    signature = nb.types.void(*pointers, nb.types.CPointer(nb.types.int64))
    try:
        compiled = nb.cfunc(signature, **options)(scope["entry"])
    except NumbaError as error:
        raise CompileError(f"{op.name}: Numba cannot compile its kernel:\n{error}") from error
    return compiled.native_name.removeprefix("cfunc."), compiled.inspect_llvm()


def _entry(arrays: tuple[Array, ...]) -> str:
    """Python source: the kernel called on views of raw memory, whose sizes are all in ``d``."""
    views, count = [], 0
    for k, (_, rank) in enumerate(arrays):
        shape = "".join(f"d[{n}], " for n in range(count, count + rank))
        views.append(f"carray(p{k}, ({shape}))")
        count += rank
    parameters = "".join(f"p{k}, " for k in range(len(arrays)))
    return f"def entry({parameters}d):\n    kernel({', '.join(views)})\n"


# --- the functions that a kernel calls -----------------------------------------------------------

_EXPANDED = {name for name, op in SCALARS.items() if not op.machine}
_LIBM = {
    **{n: n for n in _EXPANDED - {"sigmoid", "softplus", "logaddexp", "ipow"}},
    **{n: n for n in ("sqrt", "floor", "ceil", "trunc", "rint", "fma", "copysign", "exp10")},
    "fabs": "abs", "nearbyint": "rint", "numba_nextafter": "nextafter",
}  # fmt: skip
_MEMORY = {f"llvm.{name}.i64": f"gw.{name.split('.')[0]}" for name in ("memset.p0", "memcpy.p0.p0", "memmove.p0.p0")}


@dataclass(frozen=True)
class _Function:
    """A math function that the program brings along, on scalars or vectors."""

    op: str
    dtype: DType
    lanes: int = 1

    @property
    def arity(self) -> int:
        return 1 if self.op == "exp10" else SCALARS[self.op].arity

    @property
    def symbol(self) -> str:
        lanes = f"v{self.lanes}" if self.lanes > 1 else ""
        return f"gw.{self.op}.{lanes}f{self.dtype.bits}"

    @property
    def declaration(self) -> str:
        kind = llvm_type(self.dtype, self.lanes)
        return f"declare {kind} @{self.symbol}({', '.join([kind] * self.arity)})"

    def expression(self, args: tuple[Expr, ...]) -> Expr:
        if self.op == "exp10":
            return apply("pow", const(10, self.dtype), *args)
        if self.op == "fmod":  # C's has the dividend's sign, ours the divisor's
            return apply("copysign", apply("fmod", *(apply("abs", a) for a in args)), args[0])
        return apply(self.op, *args)

    def emit(self, module: ModuleText) -> None:
        args = tuple(Temp(f"a{k}", self.dtype) for k in range(self.arity))
        f = FunctionText(module)
        values: dict[Expr, Val] = {a: Val(f"%{a.name}", self.dtype, self.lanes) for a in args}
        expr = expand_expr(self.expression(args))
        for e in walk(expr):
            if isinstance(e, Const):
                values[e] = Val(literal(e.value, e.dtype), e.dtype)
            elif isinstance(e, Scalar):
                values[e] = emit_scalar(f, e.op, [values[a] for a in e.args], e.dtype)
        f.emit(f"ret {values[expr]}")
        parameters = ", ".join(str(values[a]) for a in args)
        kind = llvm_type(self.dtype, self.lanes)
        module.functions.append(f.text(f"define {kind} @{self.symbol}({parameters}) #0"))


_INTRINSIC = re.compile(r"llvm\.(\w+)\.(?:v(\d+))?f(32|64)")


def _replacement(name: str) -> _Function | None:
    """Our function for one of libm's or for an intrinsic that would become a call of libm's."""
    intrinsic = _INTRINSIC.fullmatch(name)
    if intrinsic:
        op, lanes, bits = intrinsic.groups()
        dtype = float32 if bits == "32" else float64
        return _Function(op, dtype, int(lanes or 1)) if op in _EXPANDED | {"exp10"} else None
    if name in _LIBM:
        return _Function(_LIBM[name], float64)
    return _Function(_LIBM[name[:-1]], float32) if name[-1:] == "f" and name[:-1] in _LIBM else None


_DECLARED = re.compile(r'declare [^@]*@"?([^"(]+)"?\(')
_REMAINDER = re.compile(r"= frem (?:[a-z]+ )*(?:<(\d+) x (float|double)>|(float|double)) ([^,\n]+), ([^,\n!]+)")


def _with_own_functions(text: str) -> tuple[str, set[_Function]]:
    """The module with calls of our functions, declared, in place of libm's; and what they are."""
    names: dict[str, str] = {}
    functions: set[_Function] = set()

    def remainder(m: re.Match[str]) -> str:
        function = _Function("fmod", float32 if "float" in m.group(2, 3) else float64, int(m[1] or 1))
        functions.add(function)
        kind = llvm_type(function.dtype, function.lanes)
        return f"= call {kind} @{function.symbol}({kind} {m[4]}, {kind} {m[5].rstrip()})"

    lines = []
    for line in _REMAINDER.sub(remainder, text).splitlines():
        declared = _DECLARED.match(line)
        function = _replacement(declared[1]) if declared else None
        if declared and function:
            functions.add(function)
            names[declared[1]] = function.symbol
        elif declared and declared[1] in _MEMORY:
            names[declared[1]] = _MEMORY[declared[1]]
        else:
            lines.append(line)
    lines += [f.declaration for f in sorted(functions, key=lambda f: f.symbol)]
    lines += [_MEMORY_DECLARATIONS[n] for n in sorted(set(names.values()) & set(_MEMORY_DECLARATIONS))]
    renamed = re.sub(r"@([\w.]+)\(", lambda m: f"@{names.get(m[1], m[1])}(", "\n".join(lines))
    return renamed + "\n", functions


_COUNTED = re.compile(r"^define [^\n]*@(NRT_incref|NRT_decref)\(.*?^\}$", re.MULTILINE | re.DOTALL)


def _with_own_attributes(text: str, target: CpuTarget) -> str:
    """The module with functions for the target, and without reference counts: nothing is counted here."""
    lines = []
    for line in _COUNTED.sub(r"define void @\1(ptr %object) {\n  ret void\n}", text).splitlines():
        if line.startswith(("attributes #", "target ")):
            continue
        if not line.startswith(("@", "!")):
            line = re.sub(r" #\d+\b", "", line)
        lines.append(re.sub(r" \{$", " #0 {", line) if line.startswith("define ") else line)
    return "\n".join([*lines, attributes(target)])


def _support(functions: set[_Function], target: CpuTarget) -> str:
    module = ModuleText()
    for function in sorted(functions, key=lambda f: f.symbol):
        function.emit(module)
    return "\n".join([module.text(), _MEMORY_IR, attributes(target)])


_MEMORY_DECLARATIONS = {
    "gw.memset": "declare void @gw.memset(ptr, i8, i64, i1)",
    "gw.memcpy": "declare void @gw.memcpy(ptr, ptr, i64, i1)",
    "gw.memmove": "declare void @gw.memmove(ptr, ptr, i64, i1)",
}

# Loops over bytes, which LLVM vectorizes; `no-builtins` keeps it from finding libc's functions in them.
_MEMORY_IR = """\
define void @gw.memset(ptr %to, i8 %value, i64 %n, i1 %volatile) #0 {
entry:
  br label %head
head:
  %i = phi i64 [ 0, %entry ], [ %next, %body ]
  %more = icmp ult i64 %i, %n
  br i1 %more, label %body, label %exit
body:
  %place = getelementptr inbounds i8, ptr %to, i64 %i
  store i8 %value, ptr %place
  %next = add nuw i64 %i, 1
  br label %head
exit:
  ret void
}

define void @gw.memcpy(ptr noalias %to, ptr noalias %from, i64 %n, i1 %volatile) #0 {
entry:
  br label %head
head:
  %i = phi i64 [ 0, %entry ], [ %next, %body ]
  %more = icmp ult i64 %i, %n
  br i1 %more, label %body, label %exit
body:
  %source = getelementptr inbounds i8, ptr %from, i64 %i
  %place = getelementptr inbounds i8, ptr %to, i64 %i
  %value = load i8, ptr %source
  store i8 %value, ptr %place
  %next = add nuw i64 %i, 1
  br label %head
exit:
  ret void
}

define void @gw.memmove(ptr %to, ptr %from, i64 %n, i1 %volatile) #0 {
entry:
  %a = ptrtoint ptr %to to i64
  %b = ptrtoint ptr %from to i64
  %distance = sub i64 %a, %b
  %forward = icmp uge i64 %distance, %n
  %last = sub i64 %n, 1
  %step = select i1 %forward, i64 1, i64 -1
  %first = select i1 %forward, i64 0, i64 %last
  br label %head
head:
  %count = phi i64 [ 0, %entry ], [ %counted, %body ]
  %i = phi i64 [ %first, %entry ], [ %next, %body ]
  %more = icmp ult i64 %count, %n
  br i1 %more, label %body, label %exit
body:
  %source = getelementptr i8, ptr %from, i64 %i
  %place = getelementptr i8, ptr %to, i64 %i
  %value = load i8, ptr %source
  store i8 %value, ptr %place
  %next = add i64 %i, %step
  %counted = add nuw i64 %count, 1
  br label %head
exit:
  ret void
}
"""


# --- what is left --------------------------------------------------------------------------------

_RAISED = ".const.picklebuf"
_RUNTIME = ("NRT_", "Py", "_Py", "numba_", "_ZN08NumbaEnv")


def _check(op: Op, module: LlvmModule) -> None:
    """Refuse a kernel that needs more than its arguments."""
    functions = {f.name for f in module.module.functions if f.is_declaration and not f.name.startswith("llvm.")}
    variables = list(module.module.global_variables)
    functions |= {v.name for v in variables if v.is_declaration or v.name.startswith("_ZN08NumbaEnv")}
    raises = any(v.name.startswith(_RAISED) for v in variables)
    python = sorted(n for n in functions if n.startswith(_RUNTIME)) + ["raised exceptions"] * raises
    if python:
        _fail(op, f"needs Python at run time: {', '.join(python)}; it must not allocate or raise")
    if functions:
        _fail(op, f"calls {', '.join(sorted(functions))}, for which programs have no code")
    if re.search(r"inttoptr \(i64 -?\d+ to ptr\)", str(module)):
        _fail(op, "refers to memory of this process: a large array or a foreign function outside the kernel")
    try:
        link(module.object_code(), triple=module.target.triple)
    except CompileError as error:
        _fail(op, f"cannot run without libraries: {error}")


def _fail(op: Op, problem: str) -> NoReturn:
    advice = "write it with loops over single elements: slices and whole arrays make copies"
    raise CompileError(f"{op.name}: its kernel {problem}\n  {advice}")

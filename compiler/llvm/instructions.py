"""Scalar ops of the loop IR as LLVM instructions, on scalars and on vectors alike."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...errors import CompileError
from ...ir.dtypes import DType, float32, int64

if TYPE_CHECKING:
    from .function import FunctionText

__all__ = ["Val", "element_type", "emit_scalar", "literal", "llvm_type", "splat", "storage_type"]


@dataclass(frozen=True)
class Val:
    """An SSA value or a constant: its text, element dtype, and number of lanes (1: a scalar)."""

    text: str
    dtype: DType
    lanes: int = 1

    @property
    def type(self) -> str:
        return llvm_type(self.dtype, self.lanes)

    def __str__(self) -> str:
        return f"{self.type} {self.text}"


def element_type(dtype: DType) -> str:
    """The LLVM type of one element in a register."""
    if dtype.is_float:
        return {32: "float", 64: "double"}[dtype.bits]
    return "i1" if dtype.is_bool else f"i{dtype.bits}"


def storage_type(dtype: DType) -> str:
    """The LLVM type of one element in memory (a bool takes a byte)."""
    return "i8" if dtype.is_bool else element_type(dtype)


def llvm_type(dtype: DType, lanes: int = 1) -> str:
    """The LLVM type of a register of so many lanes."""
    return element_type(dtype) if lanes == 1 else f"<{lanes} x {element_type(dtype)}>"


def literal(value: float, dtype: DType) -> str:
    """A constant's text; floats by their bits, since LLVM takes only exact decimals."""
    if dtype.is_bool:
        return "true" if value else "false"
    if dtype.is_float:
        if dtype == float32 and not math.isnan(value):
            try:
                value = struct.unpack("<f", struct.pack("<f", value))[0]
            except OverflowError:
                value = math.copysign(math.inf, value)
        return f"0x{struct.unpack('<Q', struct.pack('<d', value))[0]:016X}"
    return str(int(value))


def splat(f: FunctionText, v: Val, lanes: int) -> Val:
    """A scalar repeated over all lanes; a vector stays as it is."""
    if lanes == 1 or v.lanes == lanes:
        return v
    if not v.text.startswith("%"):
        return Val(f"splat ({v.type} {v.text})", v.dtype, lanes)
    vector = llvm_type(v.dtype, lanes)
    one = f.assign(f"insertelement {vector} poison, {v}, i64 0")
    return Val(
        f.assign(f"shufflevector {vector} {one}, {vector} poison, <{lanes} x i32> zeroinitializer"), v.dtype, lanes
    )


_FLOAT = {"add": "fadd contract", "sub": "fsub contract", "mul": "fmul contract", "div": "fdiv"}
_INTEGER = {"add": "add", "sub": "sub", "mul": "mul", "bitand": "and", "bitor": "or", "bitxor": "xor"}
_FCMP = {"eq": "oeq", "ne": "une", "lt": "olt", "le": "ole", "gt": "ogt", "ge": "oge"}
_ICMP = {"eq": "eq", "ne": "ne", "lt": "lt", "le": "le", "gt": "gt", "ge": "ge"}
_FLOAT_CALLS = {
    "sqrt": "sqrt", "fma": "fma", "floor": "floor", "ceil": "ceil", "trunc": "trunc",
    "rint": "roundeven", "copysign": "copysign",
}  # fmt: skip


def _intrinsic(f: FunctionText, name: str, args: list[Val], suffix: str = "") -> str:
    v = args[0]
    lanes = f"v{v.lanes}" if v.lanes > 1 else ""
    function = f"{v.type} @llvm.{name}.{lanes}{'f' if v.dtype.is_float else 'i'}{v.dtype.bits}"
    given = [*map(str, args), *([suffix] if suffix else [])]
    types = [*(a.type for a in args), *([suffix.split()[0]] if suffix else [])]
    f.module.declare(f"declare {function}({', '.join(types)})")
    return f.assign(f"call {function}({', '.join(given)})")


def _compare(f: FunctionText, op: str, a: Val, b: Val) -> str:
    if a.dtype.is_float:
        return f.assign(f"fcmp {_FCMP[op]} {a}, {b.text}")
    sign = "" if op in ("eq", "ne") else "u" if a.dtype.kind in "ub" else "s"
    return f.assign(f"icmp {sign}{_ICMP[op]} {a}, {b.text}")


def _extremum(f: FunctionText, op: str, a: Val, b: Val) -> str:
    if not a.dtype.is_float:
        sign = "u" if a.dtype.kind in "ub" else "s"
        return _intrinsic(f, f"{sign}{op}", [a, b])
    # one max/min instruction takes b where a is NaN; then a NaN in a is put back
    mask = llvm_type_mask(a.lanes)
    better = f.assign(f"fcmp {'ogt' if op == 'max' else 'olt'} {a}, {b.text}")
    chosen = f.assign(f"select {mask} {better}, {a}, {b}")
    nan = f.assign(f"fcmp uno {a}, {a.text}")
    return f.assign(f"select {mask} {nan}, {a}, {a.type} {chosen}")


def llvm_type_mask(lanes: int) -> str:
    """The type of a condition over so many lanes."""
    return "i1" if lanes == 1 else f"<{lanes} x i1>"


def _integer_division(f: FunctionText, op: str, a: Val, b: Val) -> str:
    """Floor division and modulo; a zero divisor gives 0, and the smallest integer by -1 wraps."""
    signed = a.dtype.kind == "i"
    mask, t = llvm_type_mask(a.lanes), a.type
    one = splat(f, Val("1", a.dtype), a.lanes).text
    zero = "zeroinitializer" if a.lanes > 1 else "0"
    is_zero = f.assign(f"icmp eq {b}, {zero}")
    if not signed:
        safe = f.assign(f"select {mask} {is_zero}, {t} {one}, {b}")
        r = f.assign(f"{'udiv' if op == 'floordiv' else 'urem'} {a}, {safe}")
        return f.assign(f"select {mask} {is_zero}, {t} {zero}, {t} {r}")
    minus = splat(f, Val("-1", a.dtype), a.lanes).text
    is_minus = f.assign(f"icmp eq {b}, {minus}")
    special = f.assign(f"or {mask} {is_zero}, {is_minus}")
    safe = f.assign(f"select {mask} {special}, {t} {one}, {b}")
    quotient = f.assign(f"sdiv {a}, {safe}")
    rest = f.assign(f"srem {a}, {safe}")
    opposite = f.assign(f"xor {t} {rest}, {safe}")
    differs = f.assign(f"icmp slt {t} {opposite}, {zero}")
    inexact = f.assign(f"icmp ne {t} {rest}, {zero}")
    adjust = f.assign(f"and {mask} {differs}, {inexact}")
    if op == "floordiv":
        lower = f.assign(f"sub {t} {quotient}, {one}")
        floor = f.assign(f"select {mask} {adjust}, {t} {lower}, {t} {quotient}")
        negated = f.assign(f"sub {t} {zero}, {a.text}")
        floor = f.assign(f"select {mask} {is_minus}, {t} {negated}, {t} {floor}")
        return f.assign(f"select {mask} {is_zero}, {t} {zero}, {t} {floor}")
    wrapped = f.assign(f"add {t} {rest}, {safe}")
    modulo = f.assign(f"select {mask} {adjust}, {t} {wrapped}, {t} {rest}")
    return f.assign(f"select {mask} {special}, {t} {zero}, {t} {modulo}")


def _shift(f: FunctionText, op: str, a: Val, b: Val) -> str:
    """Shifts by at least the width give 0 (or all sign bits), as in NumPy."""
    limit = splat(f, Val(str(a.dtype.bits), b.dtype), b.lanes).text
    fits = f.assign(f"icmp ult {b}, {limit}")
    mask = llvm_type_mask(a.lanes)
    zero = "zeroinitializer" if a.lanes > 1 else "0"
    last = splat(f, Val(str(a.dtype.bits - 1), b.dtype), b.lanes).text
    amount = f.assign(f"select {mask} {fits}, {b}, {b.type} {last}")
    if op == "shr" and a.dtype.kind == "i":
        return f.assign(f"ashr {a}, {amount}")
    shifted = f.assign(f"{'shl' if op == 'shl' else 'lshr'} {a}, {amount}")
    return f.assign(f"select {mask} {fits}, {a.type} {shifted}, {a.type} {zero}")


def _cast(f: FunctionText, v: Val, to: DType) -> str:
    src, dst = v.dtype, llvm_type(to, v.lanes)
    zero = "zeroinitializer" if v.lanes > 1 else ("0" if not src.is_float else "0.0")
    if to.is_bool:
        return f.assign(f"fcmp une {v}, {zero}" if src.is_float else f"icmp ne {v}, {zero}")
    if src.is_float and to.is_float:
        return f.assign(f"{'fpext' if to.bits > src.bits else 'fptrunc'} {v} to {dst}")
    if src.is_float:  # saturating, so that no input is undefined
        name = f"llvm.fpto{'s' if to.is_signed else 'u'}i.sat"
        lanes = f"v{v.lanes}" if v.lanes > 1 else ""
        full = f"{name}.{lanes}i{to.bits}.{lanes}f{src.bits}"
        f.module.declare(f"declare {dst} @{full}({v.type})")
        return f.assign(f"call {dst} @{full}({v})")
    if to.is_float:
        return f.assign(f"{'sitofp' if src.kind == 'i' else 'uitofp'} {v} to {dst}")
    width = 1 if src.is_bool else src.bits
    if to.bits == width:
        return v.text
    return f.assign(f"{'trunc' if to.bits < width else 'sext' if src.kind == 'i' else 'zext'} {v} to {dst}")


def emit_scalar(f: FunctionText, op: str, args: list[Val], dtype: DType) -> Val:
    """Emit one scalar op on operands of equal lanes.

    Raises
    ------
    CompileError
        If the op is not a machine op (it should have been expanded).
    """
    lanes = max(a.lanes for a in args)
    args = [splat(f, a, lanes) for a in args]
    a = args[0]

    def done(text: str) -> Val:
        return Val(text, dtype, lanes)

    if op == "cast":
        return a if a.dtype == dtype else done(_cast(f, a, dtype))
    if op == "bitcast":
        return done(f.assign(f"bitcast {a} to {llvm_type(dtype, lanes)}"))
    if op == "select":
        return done(f.assign(f"select {a}, {args[1]}, {args[2]}"))
    if op in _FCMP:
        return done(_compare(f, op, a, args[1]))
    if op in ("max", "min"):
        return done(_extremum(f, op, a, args[1]))
    if a.dtype.is_float:
        if op in _FLOAT:
            return done(f.assign(f"{_FLOAT[op]} {a}, {args[1].text}"))
        if op == "neg":
            return done(f.assign(f"fneg {a}"))
        if op == "abs":
            return done(_intrinsic(f, "fabs", args))
        if op in _FLOAT_CALLS:
            return done(_intrinsic(f, _FLOAT_CALLS[op], args))
    elif op in _INTEGER:
        return done(f.assign(f"{_INTEGER[op]} {a}, {args[1].text}"))
    elif op == "neg":
        return done(f.assign(f"sub {a.type} {'zeroinitializer' if lanes > 1 else '0'}, {a.text}"))
    elif op == "abs":
        return done(_intrinsic(f, "abs", args, "i1 false")) if a.dtype.is_signed else a
    elif op == "bitnot":
        return done(f.assign(f"xor {a}, {splat(f, Val('true' if a.dtype.is_bool else '-1', a.dtype), lanes).text}"))
    elif op in ("floordiv", "mod"):
        return done(_integer_division(f, op, a, args[1]))
    elif op in ("shl", "shr"):
        return done(_shift(f, op, a, args[1]))
    elif op in ("floor", "ceil", "trunc", "rint"):
        return a
    raise CompileError(f"scalar op {op} on {a.dtype!r} has no instruction and was not expanded")


def lane_numbers(lanes: int) -> Val:
    """The vector ``<0, 1, 2, ...>``."""
    return Val("<" + ", ".join(f"i64 {k}" for k in range(lanes)) + ">", int64, lanes)

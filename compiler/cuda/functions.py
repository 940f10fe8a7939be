"""The scalar functions that CUDA kernels call, by the names that their source gives them.

Functions of libdevice stand for themselves; the others are device functions, written here for each
dtype: ``sigmoid_f32``, ``floordiv_i64``. In Numba's simulator there is no libdevice, and NumPy's
functions of the same meaning take its place. This module imports Numba.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import numpy as np

from ...errors import CompileError
from ...ir.dtypes import DTYPES, DType
from ...ir.scalars import SCALARS
from .expressions import LIBDEVICE

__all__ = ["SIMULATED", "cuda", "function", "refusals"]

cuda: Any = import_module("numba.cuda")
config: Any = import_module("numba.core.config")
errors: Any = import_module("numba.core.errors")

SIMULATED = bool(config.ENABLE_CUDASIM)
"""Whether Numba simulates the device (``NUMBA_ENABLE_CUDASIM=1`` when it was first imported)."""

_REFERENCES: dict[str, Callable[..., Any]] = {"c_fmod": np.fmod}

Function = Callable[..., Any]


@contextmanager
def refusals(kernel: str) -> Iterator[None]:
    """Turns Numba's refusal to compile a kernel into a `CompileError` that names it."""
    try:
        yield
    except errors.NumbaError as error:
        raise CompileError(f"{kernel}: Numba cannot compile its CUDA kernel:\n{error}") from error


def _device(f: Function) -> Function:
    """A function that kernels may call; inlined, because Numba compiles others only where a GPU is."""
    inlined: Function = f if SIMULATED else cuda.jit(device=True, inline="always")(f)
    return inlined


def _primitive(op: str, dtype: DType) -> Function:
    if SIMULATED:
        reference, to = _REFERENCES.get(op) or SCALARS[op].reference, dtype.numpy.type
        return lambda *args: to(reference(*args))
    function: Function = getattr(cuda.libdevice, LIBDEVICE[op] + ("f" if dtype.bits == 32 else ""))
    return function


@_device
def maximum(a: Any, b: Any) -> Any:
    """The larger; a NaN wins."""
    return a if a > b or a != a else b


@_device
def minimum(a: Any, b: Any) -> Any:
    """The smaller; a NaN wins."""
    return a if a < b or a != a else b


def _float_functions(dtype: DType) -> dict[str, Function]:
    real = dtype.numpy.type
    names = ("exp", "log1p", "copysign", "c_fmod")
    exp, log1p, copysign, c_fmod = (function(f"{n}_{dtype}") for n in names)
    zero, one, log_2 = real(0), real(1), real(np.log(2))

    def sigmoid(x: Any) -> Any:
        e = exp(-abs(x))  # never overflows
        return (one if x >= zero else e) / (one + e)

    def softplus(x: Any) -> Any:
        return (x if x > zero or x != x else zero) + log1p(exp(-abs(x)))

    def logaddexp(a: Any, b: Any) -> Any:
        if a == b:  # also two equal infinities
            return a + log_2
        return (a if a > b or a != a else b) + log1p(exp(-abs(a - b)))

    def fmod(x: Any, y: Any) -> Any:
        r = c_fmod(x, y)
        if r == zero:
            return copysign(zero, y)
        return r + y if (r < zero) != (y < zero) else r

    return {f.__name__: f for f in (sigmoid, softplus, logaddexp, fmod)}


def _integer_functions(dtype: DType) -> dict[str, Function]:
    integer = dtype.numpy.type
    signed = dtype.is_signed
    zero, one, minus = integer(0), integer(1), integer(-1 if signed else 0)
    width, last = integer(dtype.bits), integer(dtype.bits - 1)
    lowest, highest = integer(np.iinfo(integer).min), integer(np.iinfo(integer).max)
    below, above = np.float64(np.iinfo(integer).min), np.float64(2.0 ** (dtype.bits - signed))

    def floordiv(a: Any, b: Any) -> Any:
        if b == zero:
            return zero
        if signed and b == minus:  # the lowest number wraps
            return integer(zero - a)
        return integer(a // b)

    def mod(a: Any, b: Any) -> Any:
        if b == zero or (signed and b == minus):
            return zero
        return integer(a % b)

    def shl(a: Any, b: Any) -> Any:
        return integer(a << b) if zero <= b and b < width else zero

    def shr(a: Any, b: Any) -> Any:
        if zero <= b and b < width:
            return integer(a >> b)
        return integer(a >> last) if signed else zero

    def ipow(x: Any, n: Any) -> Any:
        if n < zero:  # truncated: 0, but for 1 and -1
            if x == one:
                return one
            return zero if x != minus else x if integer(n & one) != zero else one
        result = one
        while n != zero:
            if integer(n & one) != zero:
                result = integer(result * x)
            x = integer(x * x)
            n = integer(n >> one)
        return result

    def saturate(x: Any) -> Any:
        if x != x:
            return zero
        if np.float64(x) <= below:
            return lowest
        return highest if np.float64(x) >= above else integer(x)

    return {f.__name__: f for f in (floordiv, mod, shl, shr, ipow, saturate)}


_made: dict[str, Function] = {"maximum": maximum, "minimum": minimum}


def function(name: str) -> Function:
    """The function that a kernel's source calls by a name, such as ``tanh_f32``.

    Raises
    ------
    KeyError
        If there is none.
    """
    if name not in _made:
        op, _, short = name.rpartition("_")
        dtype = next(d for d in DTYPES.values() if d.short == short)
        if dtype.is_float and op in LIBDEVICE:
            _made[name] = _primitive(op, dtype)
        else:
            made = _float_functions(dtype) if dtype.is_float else _integer_functions(dtype)
            _made[name] = _device(made[op])
    return _made[name]


def __getattr__(name: str) -> Function:  # what ``from .functions import tanh_f32`` looks up
    try:
        return function(name)
    except (KeyError, StopIteration):
        raise AttributeError(f"there is no CUDA function {name!r}") from None

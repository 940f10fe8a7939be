"""Element types and the promotion lattice of the Python Array API standard."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ..errors import DTypeError

__all__ = [
    "DTYPES",
    "DType",
    "as_dtype",
    "bool_",
    "default_dtype",
    "elements",
    "float32",
    "float64",
    "holds",
    "int16",
    "int32",
    "int64",
    "int8",
    "number_shown",
    "number_text",
    "promote",
    "result_dtype_with_scalar",
    "rounded",
    "uint16",
    "uint32",
    "uint64",
    "uint8",
]


@dataclass(frozen=True)
class DType:
    """One element type.

    Attributes
    ----------
    name : the Array API name, e.g. ``"float32"``.
    short : the name in IR text, e.g. ``"f32"``.
    kind : ``"b"`` bool, ``"i"`` signed, ``"u"`` unsigned, ``"f"`` floating.
    bits : storage width; a bool is stored in 8 bits.
    """

    name: str
    short: str
    kind: str
    bits: int

    @property
    def itemsize(self) -> int:
        """Size of one element in bytes."""
        return self.bits // 8

    @cached_property
    def numpy(self) -> np.dtype[Any]:
        """The NumPy dtype of the same name."""
        return np.dtype(self.name)

    @property
    def is_float(self) -> bool:
        return self.kind == "f"

    @property
    def is_integer(self) -> bool:
        return self.kind in "iu"

    @property
    def is_signed(self) -> bool:
        return self.kind in "if"

    @property
    def is_bool(self) -> bool:
        return self.kind == "b"

    def __str__(self) -> str:
        return self.short

    def __repr__(self) -> str:
        return self.name


bool_ = DType("bool", "bool", "b", 8)
int8, int16, int32, int64 = (DType(f"int{n}", f"i{n}", "i", n) for n in (8, 16, 32, 64))
uint8, uint16, uint32, uint64 = (DType(f"uint{n}", f"u{n}", "u", n) for n in (8, 16, 32, 64))
float32, float64 = (DType(f"float{n}", f"f{n}", "f", n) for n in (32, 64))

DTYPES: dict[str, DType] = {
    d.name: d
    for d in (bool_, int8, int16, int32, int64, uint8, uint16, uint32, uint64, float32, float64)
}
_SHORT = {d.short: d for d in DTYPES.values()}


def as_dtype(spec: object) -> DType:
    """The `DType` meant by a name, a short name, a NumPy dtype, or a DType.

    Raises
    ------
    DTypeError
        If the dtype is not one of the supported ones.
    """
    if isinstance(spec, DType):
        return spec
    if isinstance(spec, str) and (spec in DTYPES or spec in _SHORT):
        return DTYPES.get(spec) or _SHORT[spec]
    try:
        name = np.dtype(spec).name  # type: ignore[call-overload]
    except TypeError:
        name = str(spec)
    if name not in DTYPES:
        raise DTypeError(f"dtype {name!r} is not supported; the supported ones are {', '.join(DTYPES)}")
    return DTYPES[name]


def promote(a: DType, b: DType) -> DType:
    """The dtype of ``a op b`` by the Array API's lattice.

    Mixed kinds that the standard leaves undefined (integer with float, bool with a number) follow
    NumPy where that loses nothing: bool yields to the number, an integer yields to the float.
    ``uint64`` with a signed integer has no common integer type and raises.
    """
    if a == b:
        return a
    if a.is_bool or b.is_bool:
        return b if a.is_bool else a
    if a.is_float or b.is_float:
        if a.is_float and b.is_float:
            return a if a.bits > b.bits else b
        return a if a.is_float else b
    if a.kind == b.kind:
        return a if a.bits > b.bits else b
    signed, unsigned = (a, b) if a.kind == "i" else (b, a)
    if signed.bits > unsigned.bits:
        return signed
    if unsigned.bits == 64:
        raise DTypeError(f"{a!r} and {b!r} have no common dtype; cast one of them with astype")
    return DTYPES[f"int{unsigned.bits * 2}"]


def rounded(value: float, dtype: DType) -> bool | int | float:
    """A number as an element of `dtype` has it."""
    if dtype.is_bool:
        return bool(value)
    if not dtype.is_float:
        return int(value)
    with np.errstate(over="ignore"):
        return float(value) if dtype.bits == 64 else float(np.asarray(value, np.float64).astype(dtype.numpy))


def holds(dtype: DType, value: object) -> bool:
    """Whether a Python number is an element of `dtype`, perhaps once it is rounded: of its kind and range."""
    if not isinstance(value, (bool, int, float)):
        return False
    if dtype.is_integer:
        info = np.iinfo(dtype.numpy)
        return isinstance(value, int) and int(info.min) <= value <= int(info.max)
    if dtype.is_float:
        return isinstance(value, float) or abs(value) <= sys.float_info.max
    return value in (0, 1)


def elements(dtype: DType) -> str:
    """What `holds` asks for, in words."""
    if dtype.is_integer:
        info = np.iinfo(dtype.numpy)
        return f"an integer of {info.min} .. {info.max}"
    return "a number of at most about 1e308" if dtype.is_float else "a bool"


def number_shown(value: object) -> str:
    """A value for an error's message; the digits of a huge integer say nothing."""
    huge = isinstance(value, int) and abs(value) >= 10**40
    return f"an integer of {value.bit_length()} bits" if huge else repr(value)  # type: ignore[attr-defined]


def number_text(value: bool | int | float, dtype: DType) -> str:
    """The shortest text that `rounded` reads back as the same element of `dtype`."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and dtype == float32:
        with np.errstate(over="ignore"):
            element = np.float32(value)
        if float(element) == value:
            text = str(element)
            return text if any(c in text for c in ".ein") else text + ".0"
    return repr(value)


def default_dtype(scalar: bool | int | float) -> DType:
    """The dtype a Python scalar gets when no tensor decides it."""
    if isinstance(scalar, bool):
        return bool_
    return int64 if isinstance(scalar, int) else float32


def result_dtype_with_scalar(dtype: DType, scalar: bool | int | float) -> DType:
    """The dtype of ``tensor op scalar``: the tensor's own, unless the scalar's kind is wider.

    Raises
    ------
    DTypeError
        If the scalar does not fit, such as a float with an integer tensor.
    """
    if isinstance(scalar, bool):
        return dtype
    if isinstance(scalar, int) and not dtype.is_bool:
        if not holds(dtype, scalar):
            shown = number_shown(scalar)
            raise DTypeError(f"Python integer {shown} does not fit {dtype!r}; cast the tensor with astype first")
        return dtype
    if isinstance(scalar, float) and dtype.is_float:
        return dtype
    raise DTypeError(
        f"Python {type(scalar).__name__} {scalar!r} cannot join a tensor of {dtype!r}; "
        "cast the tensor with astype first"
    )
